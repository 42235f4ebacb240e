import pytest
from hf_directories import ESM_TOKENS, PROTBERT_TOKENS
from transformers import BertTokenizer, EsmTokenizer

from mutmeta_lib.data.variants import AMINO_ACIDS
from mutmeta_lib.errors import DataError
from mutmeta_lib.tasks.vocabulary import TINY_VOCABULARY, Vocabulary


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    directory = tmp_path_factory.mktemp("vocabularies")
    files = {}
    for name, tokens in (
        ("protbert", PROTBERT_TOKENS),
        ("esm", ESM_TOKENS),
        ("uncased", [t if t.startswith("[") else t.lower() for t in PROTBERT_TOKENS]),
        ("words", [*PROTBERT_TOKENS[:5], "protein"]),
    ):
        files[name] = directory / f"{name}.txt"
        files[name].write_text("\n".join(tokens) + "\n")
    return {
        "protbert": BertTokenizer(str(files["protbert"]), do_lower_case=False),
        "esm": EsmTokenizer(str(files["esm"])),
        "uncased": BertTokenizer(str(files["uncased"]), do_lower_case=True),
        "words": BertTokenizer(str(files["words"]), do_lower_case=False),
    }


def test_protbert(tokenizers):
    vocabulary = Vocabulary.from_tokenizer(tokenizers["protbert"], name="ProtBERT")
    assert vocabulary.tokens == tuple(PROTBERT_TOKENS)
    assert (vocabulary.pad, vocabulary.unknown) == ("[PAD]", "[UNK]")
    assert (vocabulary.start, vocabulary.end, vocabulary.separator) == ("[CLS]", "[SEP]", "[SEP]")
    assert vocabulary.spaced
    assert vocabulary.residue_ids("MKX") == (21, 12, 25)


def test_esm(tokenizers):
    vocabulary = Vocabulary.from_tokenizer(tokenizers["esm"])
    assert vocabulary.tokens == tuple(ESM_TOKENS)
    assert (vocabulary.pad, vocabulary.unknown) == ("<pad>", "<unk>")
    assert (vocabulary.start, vocabulary.end, vocabulary.separator) == ("<cls>", "<eos>", "<eos>")
    assert not vocabulary.spaced


def test_the_esm_separator_is_what_its_tokenizer_puts_between_two_sequences(tokenizers):
    esm = tokenizers["esm"]
    shown = Vocabulary.from_tokenizer(esm).show(esm("MK", "TA")["input_ids"])
    assert shown == ["<cls>", "M", "K", "<eos>", "T", "A", "<eos>"]


def test_the_separator_can_be_another_token_of_the_vocabulary(tokenizers):
    vocabulary = Vocabulary.from_tokenizer(tokenizers["esm"], separator="<null_1>")
    assert vocabulary.id(vocabulary.separator) == ESM_TOKENS.index("<null_1>")


def test_an_uncased_vocabulary_reads_residues_as_its_tokenizer_does(tokenizers):
    vocabulary = Vocabulary.from_tokenizer(tokenizers["uncased"])
    ids = tokenizers["uncased"](" ".join(AMINO_ACIDS), add_special_tokens=False)["input_ids"]
    assert list(vocabulary.residue_ids(AMINO_ACIDS)) == ids


@pytest.mark.parametrize(
    ("kind", "separator", "says"),
    [("esm", "[SEP]", r"no separator token '\[SEP\]'"), ("words", None, "residues M and K")],
)
def test_tokenizers_that_cannot_serve_are_refused(tokenizers, kind, separator, says):
    with pytest.raises(DataError, match=says):
        Vocabulary.from_tokenizer(tokenizers[kind], separator=separator)


def test_nothing_becomes_unknown_silently():
    with pytest.raises(DataError, match="no token 'B'"):
        TINY_VOCABULARY.residue_ids("MB")
    with pytest.raises(DataError, match="no token 'm'"):
        TINY_VOCABULARY.residue_ids("m")


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
    fields = {name: getattr(TINY_VOCABULARY, name) for name in Vocabulary.__dataclass_fields__}
    with pytest.raises(DataError, match=says):
        Vocabulary(**{**fields, **change})


def test_show_undoes_the_lookup():
    ids = [TINY_VOCABULARY.id(token) for token in TINY_VOCABULARY.tokens]
    assert ids == list(range(len(TINY_VOCABULARY)))
    assert tuple(TINY_VOCABULARY.show(ids)) == TINY_VOCABULARY.tokens
