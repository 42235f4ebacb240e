"""One contract for all encodings, and what is particular to one."""

from itertools import pairwise

import pytest
from cases import ESM_TOKENS
from hf_directories import PROTBERT_TOKENS
from hypothesis import example, given
from hypothesis import strategies as st
from test_variants import variants_of

from mutmeta_lib.data.variants import AMINO_ACIDS, Substitution, apply_variant, parse_variant
from mutmeta_lib.errors import DataError
from mutmeta_lib.tasks.encodings import ENCODINGS, around, cost, encode, encode_variants, window
from mutmeta_lib.tasks.vocabulary import TINY_VOCABULARY, Vocabulary

WILD_TYPE = "MKTAYIAKQR"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[SEP]")
PROTBERT = Vocabulary("ProtBERT", tuple(PROTBERT_TOKENS), *SPECIAL)
ESM = Vocabulary("ESM-2", tuple(ESM_TOKENS), "<pad>", "<unk>", "<cls>", "<eos>", "<eos>")

each_encoding = pytest.mark.parametrize("encoding", ENCODINGS)
vocabularies = st.sampled_from([TINY_VOCABULARY, PROTBERT, ESM])
long_variants = variants_of(st.text(alphabet=AMINO_ACIDS, min_size=60, max_size=300))


def at_sites(encoding, variant, vocabulary):
    """The token that must stand at each site."""
    return [
        {"unknown_text": s.wild_type, "unknown_site": vocabulary.unknown}.get(encoding, s.mutant)
        for s in variant
    ]


def least_context(encoding, variant, vocabulary):
    """Tokens that the mutated sites alone take: one per residue, one per joint, and extras."""
    n = len(variant)
    joints = sum(right.position - left.position > 1 for left, right in pairwise(variant))
    kept = max(1, n + joints)
    extra = {"separator": 4 * n, "unknown_text": n + bool(n), "wt_mutant_pair": kept + 1}
    return bool(vocabulary.start) + bool(vocabulary.end) + kept + extra.get(encoding, 0)


@each_encoding
@given(long_variants, vocabularies, st.integers(-400, 300))
@example(("MKTA" * 20, parse_variant("M1A:A80C")), TINY_VOCABULARY, 0)
@example(("MKTA" * 20, parse_variant("M1A:A80C")), ESM, 1)
@example(("MKTA" * 20, ()), ESM, 0)
@example(("MKTA" * 20, ()), ESM, -1)
def test_any_context_with_room_for_the_sites_is_enough_and_no_smaller(
    encoding, case, vocabulary, spare
):
    wild_type, variant = case
    least = least_context(encoding, variant, vocabulary)
    if spare < 0:
        says = rf"at least {least} tokens .* more than max_tokens = {least + spare}; raise max_tok"
        with pytest.raises(DataError, match=says):
            encode(encoding, wild_type, variant, vocabulary, least + spare)
        return
    encoded = encode(encoding, wild_type, variant, vocabulary, least + spare)
    assert len(encoded.token_ids) <= least + spare
    shown = vocabulary.show(encoded.token_ids)
    assert [shown[site] for site in encoded.sites] == at_sites(encoding, variant, vocabulary)
    assert list(encoded.sites) == sorted(set(encoded.sites))


@each_encoding
@given(variants_of())
def test_only_unknown_encodings_confuse_variants_of_the_same_sites(encoding, case):
    wild_type, variant = case
    other = tuple(
        Substitution(s.position, s.wild_type, next(a for a in AMINO_ACIDS if a not in str(s)))
        for s in variant
    )
    ours, theirs = (encode(encoding, wild_type, v, PROTBERT, 500) for v in (variant, other))
    assert (ours == theirs) == (not variant or encoding.startswith("unknown"))


@given(long_variants.filter(lambda case: case[1]), vocabularies, st.integers(40, 120))
def test_a_window_is_made_of_true_stretches_around_the_sites(case, vocabulary, max_tokens):
    wild_type, variant = case
    shown = vocabulary.show(encode("mutant", wild_type, variant, vocabulary, max_tokens).token_ids)
    assert shown[0] == vocabulary.start
    shown = shown[1:-1] if vocabulary.end else shown[1:]
    mutated, found = apply_variant(variant, wild_type), 0
    for part in "".join(" " if t == vocabulary.separator else t for t in shown).split():
        found = mutated.index(part, found) + len(part)  # in order, without overlap


@pytest.mark.parametrize(
    ("encoding", "text", "tokens", "sites"),
    [
        ("separator", "K2R:T3G", "[CLS] M [SEP] K [SEP] R [SEP] [SEP] T [SEP] G [SEP] A", [5, 10]),
        ("unknown_text", "M1G:T3G", "[CLS] M K T A [SEP] [UNK] [UNK]", [1, 3]),
        ("unknown_site", "T3G", "[CLS] M K [UNK] A", [3]),
        ("wt_mutant_pair", "T3G", "[CLS] M K T A [SEP] M K G A", [8]),
        ("wt_mutant_pair", "WT", "[CLS] M K T A [SEP] M K T A", []),
    ],
)
def test_tokens_as_the_tiny_encoder_sees_them(encoding, text, tokens, sites):
    encoded = encode(encoding, "MKTA", parse_variant(text), TINY_VOCABULARY, 256)
    assert " ".join(TINY_VOCABULARY.show(encoded.token_ids)) == tokens
    assert list(encoded.sites) == sites


def as_text(encoding, wild_type, variant, mark, unknown_word):
    """The text that a tokenizer is given for an encoding, with blanks between all words."""
    words = list(wild_type)
    for s in variant:
        words[s.position - 1] = {
            "separator": f"{mark} {s.wild_type} {mark} {s.mutant} {mark}",
            "unknown_site": unknown_word(s),
            "mutant": s.mutant,
        }.get(encoding, s.wild_type)
    if encoding == "unknown_text" and variant:
        words += [mark, *map(unknown_word, variant)]
    if encoding == "wt_mutant_pair":
        words += [mark, *apply_variant(variant, wild_type)]
    return " ".join(words)


@each_encoding
@given(variants_of())
@example((WILD_TYPE, parse_variant("M1A:K2L:R10W")))
def test_ids_are_those_of_the_models_own_tokenizers(tokenizers, encoding, case):
    # To ProtBERT the mutation is a plain word, such as T3G, which its tokenizer makes unknown.
    expected = tokenizers["protbert"](as_text(encoding, *case, "[SEP]", str))["input_ids"]
    assert list(encode(encoding, *case, PROTBERT, 500).token_ids) == expected
    written = as_text(encoding, *case, "<eos>", lambda _: "<unk>")
    for form in (written, written.replace(" ", "")):
        expected = tokenizers["esm"](form)["input_ids"]
        assert list(encode(encoding, *case, ESM, 500).token_ids) == expected


@pytest.mark.parametrize(
    ("encoding", "wild_type", "text", "says"),
    [
        ("seperator", "MKT", "T3G", "no encoding 'seperator'; use one of separator, "),
        ("mutant", "MKT", "T4G", "position 4 lies outside"),
        ("mutant", "MKT", "K3G", "expects K at position 3"),
        ("mutant", "MK-T", "T4G", "'-' at position 3"),
        ("mutant", "", "WT", "empty"),
    ],
)
def test_bad_input(encoding, wild_type, text, says):
    with pytest.raises(DataError, match=says):
        encode(encoding, wild_type, parse_variant(text), ESM, 50)


@each_encoding
@given(st.data(), vocabularies)
def test_a_batch_holds_what_encode_gives(encoding, data, vocabulary):
    wild_type, first = data.draw(variants_of())
    others = data.draw(st.lists(variants_of(st.just(wild_type)), max_size=3))
    variants = [first, *(variant for _, variant in others), ()]
    batch = encode_variants(encoding, wild_type, variants, vocabulary, 400)
    assert len(batch) == len(variants)
    for row, variant in enumerate(variants):
        n = int(batch.mask[row].sum())
        assert batch.mask[row, :n].all()  # padding comes last
        assert (batch.token_ids[row, n:] == vocabulary.id(vocabulary.pad)).all()
        encoded = encode(encoding, wild_type, variant, vocabulary, 400)
        assert tuple(batch.token_ids[row, :n].tolist()) == encoded.token_ids
        assert tuple(batch.sites[row].nonzero()[:, 0].tolist()) == encoded.sites


@st.composite
def windows(draw):
    length = draw(st.integers(1, 200))
    return length, sorted(draw(st.sets(st.integers(0, length - 1), max_size=6)))


@given(windows(), st.integers(0, 220))
def test_a_window_is_the_widest_within_the_budget_and_holds_all_sites(case, budget):
    length, sites = case
    kept = window(length, sites, budget)
    costs = [cost(around(length, sites, radius)) for radius in range(length)]
    if not kept:
        assert budget < max(1, costs[0])
        return
    assert cost(kept) <= budget
    assert all(any(site in part for part in kept) for site in sites)
    assert all(left.stop < right.start for left, right in pairwise(kept))
    assert 0 <= kept[0].start < kept[-1].stop <= length
    if kept == [range(length)]:
        return
    assert budget < length
    if sites:
        radius = max(r for r in range(length) if around(length, sites, r) == kept)
        assert cost(around(length, sites, radius + 1)) > budget
    else:
        assert kept == [range(budget)]
