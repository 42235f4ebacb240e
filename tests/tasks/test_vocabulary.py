"""Vocabularies: built in, read out of tokenizers, and refused where they cannot serve."""

from dataclasses import replace

import pytest

from mutmeta_lib.data.variants import AMINO_ACIDS
from mutmeta_lib.errors import DataError
from mutmeta_lib.tasks.vocabulary import TINY_VOCABULARY, Vocabulary

BERT = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[SEP]")


@pytest.mark.parametrize(
    ("name", "roles", "shown"),
    [
        ("protbert", BERT, "[CLS] M K [SEP] T [SEP]"),
        ("uncased", BERT, "[CLS] m k [SEP] t [SEP]"),
        ("esm", ("<pad>", "<unk>", "<cls>", "<eos>", "<eos>"), "<cls> M K <eos> T <eos>"),
    ],
)
def test_a_tokenizer_is_read_as_it_writes(tokenizers, name, roles, shown):
    tokenizer, vocabulary = tokenizers[name], Vocabulary.from_tokenizer(tokenizers[name])
    assert vocabulary.tokens == tuple(tokenizer.convert_ids_to_tokens(range(len(tokenizer))))
    found = ("pad", "unknown", "start", "end", "separator")
    assert tuple(getattr(vocabulary, role) for role in found) == roles
    ids = tokenizer(" ".join(AMINO_ACIDS + "X"), add_special_tokens=False)["input_ids"]
    assert list(vocabulary.residue_ids(AMINO_ACIDS + "X")) == ids
    # The separator is the token that the tokenizer itself puts between two sequences.
    assert " ".join(vocabulary.show(tokenizer("M K", "T")["input_ids"])) == shown
    with pytest.raises(DataError, match="residues M and K"):
        Vocabulary.from_tokenizer(tokenizers["words"])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"pad": ""}, "no pad token"),
        ({"separator": "<sep>"}, "no separator token '<sep>'"),
        ({"tokens": (*TINY_VOCABULARY.tokens, "A")}, "holds a token twice"),
        ({"tokens": TINY_VOCABULARY.tokens[:-2]}, "no token 'Y'"),
        ({"end": "[END]"}, "no end token"),
    ],
)
def test_an_inconsistent_vocabulary_cannot_be_built(change, says):
    with pytest.raises(DataError, match=says):
        replace(TINY_VOCABULARY, **change)


def test_nothing_becomes_unknown_silently():
    both_cases = replace(TINY_VOCABULARY, tokens=(*TINY_VOCABULARY.tokens, "m"))
    assert both_cases.residue_ids("MK") == TINY_VOCABULARY.residue_ids("MK")
    for sequence, letter in (("MB", "B"), ("m", "m")):
        with pytest.raises(DataError, match=f"no token '{letter}'"):
            TINY_VOCABULARY.residue_ids(sequence)
