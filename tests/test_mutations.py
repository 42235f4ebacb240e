import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mutmeta_lib.errors import DataError
from mutmeta_lib.mutations import (
    AMINO_ACIDS,
    Substitution,
    apply_variant,
    check_sequence,
    check_variant,
    difference,
    format_hgvs,
    format_variant,
    parse_hgvs,
    parse_variant,
)

sequences = st.text(alphabet=AMINO_ACIDS, min_size=1, max_size=60)


@st.composite
def variants_of(draw, wild_types=sequences):
    """A wild type and a variant of it."""
    wild_type = draw(wild_types)
    sites = draw(st.lists(st.integers(1, len(wild_type)), unique=True, max_size=6))
    return wild_type, tuple(
        Substitution(
            site,
            wild_type[site - 1],
            draw(st.sampled_from([a for a in AMINO_ACIDS if a != wild_type[site - 1]])),
        )
        for site in sorted(sites)
    )


@given(variants_of())
def test_parse_undoes_format(case):
    _, variant = case
    assert parse_variant(format_variant(variant)) == variant


@given(variants_of())
def test_hgvs_round_trip(case):
    _, variant = case
    assert parse_hgvs(format_hgvs(variant)) == variant


@given(variants_of())
def test_difference_undoes_apply(case):
    wild_type, variant = case
    assert difference(wild_type, apply_variant(variant, wild_type)) == variant


@given(sequences, st.data())
def test_apply_undoes_difference(wild_type, data):
    n = len(wild_type)
    sequence = data.draw(st.text(alphabet=AMINO_ACIDS, min_size=n, max_size=n))
    assert apply_variant(difference(wild_type, sequence), wild_type) == sequence


@given(variants_of(), st.randoms(use_true_random=False))
def test_the_order_in_the_text_does_not_matter(case, random):
    _, variant = case
    parts = [str(s) for s in variant]
    random.shuffle(parts)
    assert parse_variant(":".join(parts) or "WT") == variant


@pytest.mark.parametrize(
    ("text", "expected"),
    [("WT", "WT"), ("A24G", "A24G"), ("T02A", "T2A"), ("F30L:A24G", "A24G:F30L")],
)
def test_texts_are_normalised(text, expected):
    assert format_variant(parse_variant(text)) == expected


@given(st.text(max_size=12))
@example("A24G:F30L")
@example("F30L:A24G")
@example("WT")
def test_any_text_is_parsed_back_or_refused_with_a_mend(text):
    try:
        variant = parse_variant(text)
    except DataError as error:
        told = all([error.problem, error.mend])
    else:
        kept = re.sub("(?<=[A-Z])0+", "", text)
        told = sorted(kept.split(":")) == sorted(format_variant(variant).split(":"))
    assert told


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("a24g", "write A24G"),
        ("A24g", "write A24G"),
        ("a24G", "write A24G"),
        ("wt", "write WT"),
        (" A24G", "write 'A24G'"),
        ("A24G: F30L", "write 'A24G:F30L'"),
        ("A24*", "stop codon"),
        ("*24A", "stop codon"),
        ("X24G", "unknown letter 'X'"),
        ("A24B", "unknown letter 'B'"),
        ("A24-", "unknown letter '-'"),
        ("A24=", "unknown letter '='"),
        ("A0G", "position 0"),
        ("A-1G", "count|substitution"),
        ("A24A", "by itself"),
        ("A24G:A24C", "same position 24"),
        ("A24G:A24G", "same position 24"),
        ("A24G,F30L", "A24G:F30L"),
        ("A24G;F30L", "A24G:F30L"),
        ("A24G/F30L", "A24G:F30L"),
        ("A24G:", "empty part"),
        (":A24G", "empty part"),
        ("A24", "as in A24G"),
        ("24G", "as in A24G"),
        ("AG", "as in A24G"),
        ("AA24G", "one residue"),
        ("A24GF", "one residue"),
        ("Ala24Gly", "one-letter"),
        ("A24fs", "one-letter"),
        ("A24del", "one-letter"),
        ("p.Ala24Gly", "HGVS"),
        ("A٢٤G", "as in A24G"),
        ("ALA24GLY", "one residue"),
    ],
)
def test_bad_texts_say_how_to_mend_them(text, says):
    with pytest.raises(DataError, match=says):
        parse_variant(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("p.Ala24Gly", "A24G"),
        ("p.[Ala24Gly;Phe30Leu]", "A24G:F30L"),
        ("p.[Phe30Leu;Ala24Gly]", "A24G:F30L"),
        ("p.=", "WT"),
        ("p.(=)", "WT"),
    ],
)
def test_hgvs(text, expected):
    assert format_variant(parse_hgvs(text)) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("p.Ala24Ter", "stop codon"),
        ("p.Ala24fs", "frame shift"),
        ("p.Ala24del", "deletion"),
        ("p.Ala24_Gly26del", "deletion"),
        ("p.Ala24dup", "duplication"),
        ("p.Ala24_Gly25insTrp", "insertion"),
        ("p.Ala24delinsTrpTrp", "deletion-insertion"),
        ("p.Ala24=", "p.= for the wild type"),
        ("p.Ala24Ala", "by itself"),
        ("p.(Ala24Gly)", "write p.Ala24Gly"),
        ("p.[Ala24Gly;Ala24Phe]", "same position"),
        ("p.[Ala24Gly;Phe30Ter]", "stop codon"),
        ("p.A24G", "write p.Ala24Gly"),
        ("p.Xaa24Gly", "write p.Ala24Gly"),
        ("p.Ala0Gly", "write p.Ala24Gly"),
        ("c.71C>G", "nucleotide"),
        ("NP_000001.1:p.Ala24Gly", "leave 'NP_000001.1:' out"),
        ("A24G", "not HGVS"),
        ("", "not HGVS"),
    ],
)
def test_bad_hgvs_says_how_to_mend_it(text, says):
    with pytest.raises(DataError, match=says):
        parse_hgvs(text)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((0, "A", "G"), "below 1"),
        ((1, "X", "G"), "'X'"),
        ((1, "A", "g"), "'g'"),
        ((1, "A", ""), "''"),
        ((1, "A", "CD"), "'CD'"),
        ((1, "A", "A"), "by itself"),
    ],
)
def test_a_substitution_is_valid_however_it_is_made(arguments, says):
    with pytest.raises(DataError, match=says):
        Substitution(*arguments)


@pytest.mark.parametrize(
    ("variant", "wild_type", "says"),
    [
        ("K4R", "MKT", "position 4 lies outside the wild type .3 residues.; check the numbering"),
        ("R2K", "MKT", "R2K expects R at position 2, but the wild type has K"),
        ("M1A:R2K", "MKT", "R2K"),
    ],
)
def test_a_variant_must_fit_the_wild_type(variant, wild_type, says):
    for use in (check_variant, apply_variant):
        with pytest.raises(DataError, match=says):
            use(parse_variant(variant), wild_type)


def test_a_variant_built_by_hand_must_be_sorted_without_repeats():
    first, second = Substitution(1, "M", "A"), Substitution(2, "K", "R")
    check_variant((first, second), "MKT")
    for bad in [(second, first), (first, first), (first, Substitution(1, "M", "C"))]:
        with pytest.raises(DataError, match="unsorted or repeated"):
            check_variant(bad, "MKT")


def test_difference_needs_equal_lengths_and_known_residues():
    with pytest.raises(DataError, match="2 residues"):
        difference("MKT", "MK")
    with pytest.raises(DataError, match="'X'"):
        difference("MXT", "MAT")
    assert difference("MXT", "MXT") == ()
    assert format_variant(difference("MXT", "MXA")) == "T3A"


@pytest.mark.parametrize(
    ("sequence", "what", "says"),
    [
        ("", "wild type", "wild type is empty"),
        ("mkt", "wild type", "capitals"),
        ("MK*", "wild type", "leave the final"),
        ("M*K", "wild type", "position 2"),
        ("MK-T", "wild type", "'-' at position 3"),
        ("MKB", "wild type", "'B' at position 3"),
        ("MKX", "mutated sequence", "mutated sequence has 'X' at position 3"),
        ("MK T", "wild type", "' ' at position 3"),
    ],
)
def test_bad_sequences(sequence, what, says):
    with pytest.raises(DataError, match=says):
        check_sequence(sequence, what)


def test_unresolved_residues_are_allowed_in_a_wild_type():
    check_sequence("MKXT")
