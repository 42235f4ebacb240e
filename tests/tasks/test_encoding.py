import random
from itertools import pairwise

import pytest
from hf_directories import ESM_TOKENS, PROTBERT_TOKENS
from hypothesis import example, given
from hypothesis import strategies as st
from test_mutations import variants_of
from transformers import BertTokenizer, EsmTokenizer

from mutmeta_lib.data.variants import (
    AMINO_ACIDS,
    apply_variant,
    format_variant,
    parse_variant,
)
from mutmeta_lib.errors import DataError
from mutmeta_lib.tasks.encodings import ENCODINGS, Encoded, encode, encode_variants
from mutmeta_lib.tasks.vocabulary import TINY_VOCABULARY, Vocabulary

WILD_TYPE = "MKTAYIAKQR"
VARIANTS = ["WT", "T3G", "M1A", "R10W", "T3G:A4C", "M1A:K2L:R10W"]
PROTBERT = Vocabulary(
    "ProtBERT", tuple(PROTBERT_TOKENS), "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[SEP]", spaced=True
)
ESM = Vocabulary(
    "ESM-2", tuple(ESM_TOKENS), "<pad>", "<unk>", "<cls>", "<eos>", "<eos>", spaced=False
)

vocabularies = st.sampled_from([TINY_VOCABULARY, PROTBERT, ESM])
encodings = st.sampled_from(sorted(ENCODINGS))
long_variants = variants_of(st.text(alphabet=AMINO_ACIDS, min_size=60, max_size=300))


@pytest.fixture(scope="module")
def protbert(tmp_path_factory):
    file = tmp_path_factory.mktemp("protbert") / "vocab.txt"
    file.write_text("\n".join(PROTBERT_TOKENS) + "\n")
    return BertTokenizer(str(file), do_lower_case=False)


@pytest.fixture(scope="module")
def esm(tmp_path_factory):
    file = tmp_path_factory.mktemp("esm") / "vocab.txt"
    file.write_text("\n".join(ESM_TOKENS) + "\n")
    return EsmTokenizer(str(file))


def as_text(encoding, variant, separator, unknown_word):
    """The text that a tokenizer is given for an encoding, with blanks between all words."""
    words = list(WILD_TYPE)
    if encoding == "separator":
        for s in variant:
            words[s.position - 1] = f"{separator} {s.wild_type} {separator} {s.mutant} {separator}"
    elif encoding == "unknown_text" and variant:
        words += [separator, *map(unknown_word, variant)]
    elif encoding == "unknown_site":
        for s in variant:
            words[s.position - 1] = unknown_word(s)
    elif encoding == "mutant":
        words = list(apply_variant(variant, WILD_TYPE))
    elif encoding == "wt_mutant_pair":
        words += [separator, *apply_variant(variant, WILD_TYPE)]
    return " ".join(words)


@pytest.mark.parametrize("text", VARIANTS)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_ids_are_those_of_the_protbert_tokenizer(protbert, encoding, text):
    variant = parse_variant(text)
    # The mutation is written as a plain word, such as T3G; the tokenizer makes it unknown.
    expected = protbert(as_text(encoding, variant, "[SEP]", str))["input_ids"]
    assert list(encode(encoding, WILD_TYPE, variant, PROTBERT, 100).token_ids) == expected


@pytest.mark.parametrize("text", VARIANTS)
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("blank", [" ", ""])
def test_ids_are_those_of_the_esm_tokenizer(esm, encoding, text, blank):
    variant = parse_variant(text)
    written = as_text(encoding, variant, "<eos>", lambda _: "<unk>").replace(" ", blank)
    expected = esm(written)["input_ids"]
    assert list(encode(encoding, WILD_TYPE, variant, ESM, 100).token_ids) == expected


def test_what_goes_wrong_when_the_text_of_protbert_is_given_to_esm(esm):
    """Why ids are looked up: ESM-2 reads [SEP] as three residues between unknown tokens."""
    separator = esm(" [SEP] ", add_special_tokens=False)["input_ids"]
    assert ESM.show(separator) == ["<unk>", "S", "E", "P", "<unk>"]
    mutation = esm("A24G", add_special_tokens=False)["input_ids"]
    assert ESM.show(mutation) == ["A", "<unk>", "G"]
    naive = esm(as_text("separator", parse_variant("T3G"), "[SEP]", str))["input_ids"]
    ours = encode("separator", WILD_TYPE, parse_variant("T3G"), ESM, 100).token_ids
    assert len(naive) - len(ours) == 3 * 4  # three separators, each four tokens too long


@pytest.mark.parametrize(
    ("encoding", "text", "tokens", "sites"),
    [
        ("separator", "WT", "[CLS] M K T A", []),
        ("separator", "T3G", "[CLS] M K [SEP] T [SEP] G [SEP] A", [6]),
        ("separator", "M1G", "[CLS] [SEP] M [SEP] G [SEP] K T A", [4]),
        ("separator", "A4G", "[CLS] M K T [SEP] A [SEP] G [SEP]", [7]),
        (
            "separator",
            "K2R:T3G",
            "[CLS] M [SEP] K [SEP] R [SEP] [SEP] T [SEP] G [SEP] A",
            [5, 10],
        ),
        ("unknown_text", "WT", "[CLS] M K T A", []),
        ("unknown_text", "T3G", "[CLS] M K T A [SEP] [UNK]", [3]),
        ("unknown_text", "M1G:T3G", "[CLS] M K T A [SEP] [UNK] [UNK]", [1, 3]),
        ("unknown_site", "T3G", "[CLS] M K [UNK] A", [3]),
        ("mutant", "T3G", "[CLS] M K G A", [3]),
        ("wt_mutant_pair", "T3G", "[CLS] M K T A [SEP] M K G A", [8]),
        ("wt_mutant_pair", "WT", "[CLS] M K T A [SEP] M K T A", []),
    ],
)
def test_tokens_as_the_tiny_encoder_sees_them(encoding, text, tokens, sites):
    encoded = encode(encoding, "MKTA", parse_variant(text), TINY_VOCABULARY, 256)
    assert " ".join(TINY_VOCABULARY.show(encoded.token_ids)) == tokens
    assert list(encoded.sites) == sites
    assert encoded.attention_mask == (1,) * len(encoded)


def site_tokens(encoding, variant, vocabulary):
    """The token that must stand at each site."""
    return [
        {"unknown_text": s.wild_type, "unknown_site": vocabulary.unknown}.get(encoding, s.mutant)
        for s in variant
    ]


def least_context(encoding, variant, vocabulary):
    """Tokens that the mutated sites alone take: one per residue, one per joint, and extras."""
    frame = bool(vocabulary.start) + bool(vocabulary.end)
    n = len(variant)
    joints = sum(right.position - left.position > 1 for left, right in pairwise(variant))
    kept = max(1, n + joints)
    extra = {"separator": 4 * n, "unknown_text": n + bool(n), "wt_mutant_pair": kept + 1}
    return frame + kept + extra.get(encoding, 0)


@given(long_variants, encodings, vocabularies, st.integers(0, 300))
@example(("MKTA" * 20, parse_variant("M1A:A80C")), "separator", TINY_VOCABULARY, 0)
@example(("MKTA" * 20, parse_variant("M1A:A80C")), "wt_mutant_pair", ESM, 1)
@example(("MKTA" * 20, ()), "wt_mutant_pair", ESM, 0)
def test_a_context_with_room_for_the_sites_is_enough(case, encoding, vocabulary, spare):
    wild_type, variant = case
    max_tokens = least_context(encoding, variant, vocabulary) + spare
    encoded = encode(encoding, wild_type, variant, vocabulary, max_tokens)
    assert len(encoded) <= max_tokens
    shown = vocabulary.show(encoded.token_ids)
    assert [shown[site] for site in encoded.sites] == site_tokens(encoding, variant, vocabulary)
    assert shown[0] == vocabulary.start
    assert not vocabulary.end or shown[-1] == vocabulary.end


@given(long_variants, encodings, vocabularies, st.integers(1, 400))
@example(("MKTA" * 20, ()), "wt_mutant_pair", ESM, 1)
def test_sites_too_spread_for_the_context_are_an_error(case, encoding, vocabulary, lack):
    wild_type, variant = case
    least = least_context(encoding, variant, vocabulary)
    says = rf"at least {least} tokens .* more than max_tokens = {least - lack}; raise max_tokens"
    with pytest.raises(DataError, match=says):
        encode(encoding, wild_type, variant, vocabulary, least - lack)


@given(long_variants, vocabularies, st.integers(40, 120))
def test_a_window_is_made_of_true_stretches_around_the_sites(case, vocabulary, max_tokens):
    wild_type, variant = case
    if not variant:
        return
    encoded = encode("mutant", wild_type, variant, vocabulary, max_tokens)
    shown = vocabulary.show(encoded.token_ids)
    body = shown[1:-1] if vocabulary.end else shown[1:]
    mutated = apply_variant(variant, wild_type)
    pieces = "".join(" " if token == vocabulary.separator else token for token in body).split()
    found = 0
    for piece in pieces:  # in order, without overlap
        found = mutated.index(piece, found) + len(piece)


@given(variants_of(), vocabularies)
def test_the_separator_encoding_can_be_read_back(case, vocabulary):
    wild_type, variant = case
    encoded = encode("separator", wild_type, variant, vocabulary, 400)
    shown = vocabulary.show(encoded.token_ids)
    rest = shown[1:-1] if vocabulary.end else shown[1:]
    before, after = "", ""
    while rest:
        if rest[0] == vocabulary.separator:
            unit, rest = rest[:5], rest[5:]
            assert [unit[i] for i in (0, 2, 4)] == [vocabulary.separator] * 3
            before, after = before + unit[1], after + unit[3]
        else:
            before, after, rest = before + rest[0], after + rest[0], rest[1:]
    assert before == wild_type
    assert after == apply_variant(variant, wild_type)


@given(variants_of(), encodings, st.randoms(use_true_random=False))
def test_the_order_of_mutations_in_a_text_is_irrelevant(case, encoding, rng: random.Random):
    wild_type, variant = case
    parts = format_variant(variant).split(":")
    rng.shuffle(parts)
    shuffled = parse_variant(":".join(parts))
    assert encode(encoding, wild_type, shuffled, TINY_VOCABULARY, 400) == encode(
        encoding, wild_type, variant, TINY_VOCABULARY, 400
    )


@given(variants_of())
def test_only_unknown_encodings_confuse_variants(case):
    wild_type, variant = case
    # The same sites with other letters: another variant of the same wild type.
    swapped = parse_variant(
        ":".join(
            f"{s.wild_type}{s.position}{next(a for a in AMINO_ACIDS if a not in str(s))}"
            for s in variant
        )
        or "WT"
    )
    for encoding in ENCODINGS:
        same = encode(encoding, wild_type, variant, PROTBERT, 500) == encode(
            encoding, wild_type, swapped, PROTBERT, 500
        )
        assert same == (not variant or encoding.startswith("unknown"))


def test_unknown_text_is_the_same_for_every_single_mutant():
    texts = {
        encode("unknown_text", WILD_TYPE, parse_variant(text), PROTBERT, 100).token_ids
        for text in ("T3G", "T3C", "M1A", "R10W")
    }
    assert len(texts) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("seperator", "MKT", "T3G"), "no encoding 'seperator'; use one of separator, "),
        (("mutant", "MKT", "T4G"), "position 4 lies outside"),
        (("mutant", "MKT", "K3G"), "expects K at position 3"),
        (("mutant", "MK-T", "T4G"), "'-' at position 3"),
        (("mutant", "", "WT"), "empty"),
    ],
)
def test_bad_input(arguments, says):
    encoding, wild_type, text = arguments
    variant = parse_variant(text)
    with pytest.raises(DataError, match=says):
        encode(encoding, wild_type, variant, ESM, 50)
    with pytest.raises(DataError, match=says):
        encode_variants(encoding, wild_type, [variant], ESM, 50)


def test_a_wild_type_may_hold_unresolved_residues():
    encoded = encode("mutant", "MXT", parse_variant("T3G"), ESM, 50)
    assert ESM.show(encoded.token_ids) == ["<cls>", "M", "X", "G", "<eos>"]


@given(st.data(), encodings, vocabularies)
def test_a_batch_holds_what_encode_gives(data, encoding, vocabulary):
    wild_type, first = data.draw(variants_of())
    others = data.draw(st.lists(variants_of(st.just(wild_type)), max_size=3))
    variants = [first, *(variant for _, variant in others), ()]
    batch = encode_variants(encoding, wild_type, variants, vocabulary, 400)
    assert len(batch) == len(variants)
    for row, variant in enumerate(variants):
        mask = batch.mask[row]
        n = int(mask.sum())
        assert mask[:n].all()  # padding comes last
        assert (batch.token_ids[row, n:] == vocabulary.id(vocabulary.pad)).all()
        read = Encoded(
            tuple(batch.token_ids[row, :n].tolist()),
            tuple(batch.sites[row].nonzero()[:, 0].tolist()),
        )
        assert read == encode(encoding, wild_type, variant, vocabulary, 400)
