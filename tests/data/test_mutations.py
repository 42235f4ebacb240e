import pytest
from fqfa.constants import AA_CODES
from hypothesis import example, given, reject
from hypothesis import strategies as st
from mavehgvs import MaveHgvsParseError
from mavehgvs import Variant as HgvsVariant

from mutmeta_lib.data.variants import (
    AMINO_ACIDS,
    Substitution,
    apply_variant,
    check_sequence,
    check_variant,
    difference,
    format_hgvs,
    format_variant,
    parse_variant,
    written_sites,
)
from mutmeta_lib.errors import DataError

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
    assert parse_variant(format_hgvs(variant)) == variant


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


# How tables write variants, and what is read. Below stand, in pairs with these, texts that look
# alike and are something else.
READ = {
    "one letter": [("D7N", "D7N"), ("D007N", "D7N"), ("  D7N ", "D7N"), ("D7Asn", "D7N")],
    "three letters": [("Asp7Asn", "D7N"), ("p.Asp7Asn", "D7N"), ("p.D7N", "D7N")],
    "the wild type": [
        (text, "WT") for text in ("WT", "wt", "_wt", "wildtype", "Wild type", "p.=", "p.(=)", " WT")
    ],
    "several, joined by": [
        (f"F12L{joined}D7N", "D7N:F12L")
        for joined in (":", ";", ",", " ", "/", "|", "+", "&", "-", "_", ", ", " ; ", "  ")
    ],
    "several in HGVS": [
        ("p.[Asp7Asn;Phe12Leu]", "D7N:F12L"),
        ("p.[Phe12Leu;Asp7Asn]", "D7N:F12L"),
        ("p.[D7N;F12L]", "D7N:F12L"),
        ("p.Asp7Asn;p.Phe12Leu", "D7N:F12L"),
        ("p.D7N p.F12L", "D7N:F12L"),
        ("p.Asp7Asn:p.Phe12Leu", "D7N:F12L"),
        ("F12L:p.D7N", "D7N:F12L"),
    ],
}


@pytest.mark.parametrize(
    ("text", "expected"), [pair for pairs in READ.values() for pair in pairs], ids=repr
)
def test_what_is_a_substitution_is_read(text, expected):
    assert format_variant(parse_variant(text)) == expected


NAMED = {
    ("a stop codon", "nonsense"): ["D7*", "D7Ter", "D7Stop", "p.Asp7Ter", "p.Asp7*", "p.D7*"],
    ("a synonymous change", "synonymous"): ["D7D", "D7=", "p.Asp7=", "p.Asp7Asp", "p.D7=", "_sy"],
    ("a frame shift", "indels"): [
        "D7fs", "p.Asp7fs", "p.Asp7LysfsTer12", "p.Asp7Lysfs*12", "p.D7Kfs*12", "p.D7fs",
    ],
    ("a deletion", "indels"): [
        "D7del", "D7-", "p.Asp7del", "p.Asp7_Phe12del", "D7_F12del", "ΔD7", "del7",
    ],
    ("an insertion", "indels"): ["D7_G8insW", "p.Asp7_Gly8insTrp", "p.D7_G8insWW"],
    ("a deletion and insertion", "indels"): ["D7delinsWW", "p.Asp7_Phe12delinsTrp"],
    ("a duplication", "indels"): ["D7dup", "p.Asp7dup", "p.Asp7_Phe12dup"],
    ("a lost stop codon", "indels"): ["*57D", "p.Ter57Asp"],
    ("an extension", "indels"): ["p.Ter57Aspext*9", "p.Met1ext-5"],
    ("empty", "missing"): ["", "   "],
    ("missing", "missing"): ["NA", "nan", "-", "p.?"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "what", "drop"),
    [(text, *kind) for kind, texts in NAMED.items() for text in texts],
    ids=repr,
)
def test_what_is_no_substitution_is_named_for_what_it_is(text, what, drop):
    with pytest.raises(DataError, match=f" {what}\\b|{what};") as caught:
        parse_variant(text)
    assert caught.value.drop == drop
    if drop != "missing":
        beside = f"F12L;{text}"
        with pytest.raises(DataError) as both:
            parse_variant(beside)
        # A stop or an indel makes the row one; a synonymous part is for the reader to take out.
        assert both.value.drop == ("" if drop == "synonymous" else drop)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("d7n", "write D7N"),
        ("D7n", "write D7N"),
        ("asp7asn", "write Asp7Asn"),
        ("p.ASP7ASN", "write Asp7Asn"),
        ("X7G", "unknown letter 'X'; use ACDEFG"),
        ("D7B", "unknown letter 'B'"),
        ("p.Xaa7Gly", "unknown letter 'Xaa'"),
        ("D0N", "position 0; count residues from 1"),
        ("D-3N", "position -3; count residues from 1"),
        ("p.Asp0Asn", "count residues from 1"),
        ("D7N:D7G", "same position 7"),
        ("p.[Asp7Asn;Asp7Gly]", "same position 7"),
        ("D7N:", "empty part"),
        (":D7N", "empty part"),
        ("D7N::F12L", "empty part"),
        ("D7N:F12F", "write D7N"),
        ("D7", "as in A24G"),
        ("7N", "as in A24G"),
        ("DN", "as in A24G"),
        ("DD7N", "as in A24G"),
        ("D7NG", "as in A24G"),
        ("D7->N", "as in A24G"),
        ("D٧N", "as in A24G"),
        ("D7N:F12", "'F12' in 'D7N:F12' is not a substitution"),
        ("MKTAYIAK", "looks like a sequence"),
        ("mutant", "'mutant' is not a substitution"),
        ("p.(Asp7Asn)", "write p.Asp7Asn"),
        ("c.71C>G", "nucleotide"),
        ("target:n.1A>T", "nucleotide"),
        ("NP_000001.1:p.Asp7Asn", "leave 'NP_000001.1:' out"),
    ],
)
def test_other_texts_say_how_to_mend_them(text, says):
    with pytest.raises(DataError, match=says) as caught:
        parse_variant(text)
    assert caught.value.drop == ""


@given(st.text(max_size=12))
@example("A24G:F30L")
@example("_-_")
@example("Δ1")
def test_any_text_is_parsed_back_or_refused_with_a_mend(text):
    try:
        variant = parse_variant(text)
    except DataError as error:
        told = all([error.problem, error.mend])
    else:
        told = parse_variant(format_variant(variant)) == variant
    assert told


@st.composite
def hgvs_events(draw):
    """A protein change as mavehgvs writes it, and what it is."""
    one, two = (draw(st.sampled_from(sorted(AA_CODES.values()))) for _ in range(2))
    at, length = draw(st.integers(1, 900)), draw(st.integers(1, 9))
    first, last = f"{one}{at}", f"{two}{at + length}"
    return draw(
        st.sampled_from(
            [
                (f"{first}{two}", "sub"), (f"{first}=", "equal"), (f"{first}fs", "fs"),
                (f"{first}del", "del"), (f"{first}_{last}del", "del"), (f"{first}dup", "dup"),
                (f"{one}{at}_{two}{at + 1}ins{one}{two}", "ins"), (f"{first}delins{two}", "delins"),
            ]
        )
    )  # fmt: skip


@given(hgvs_events())
def test_hgvs_is_understood_as_by_mavehgvs(event):
    text, kind = f"p.{event[0]}", event[1]
    try:
        theirs = HgvsVariant(text)
    except MaveHgvsParseError:
        reject()  # not HGVS by their rules, as a residue replaced by itself
    ((found, place, letters),) = theirs.variant_tuples()
    assert found == kind
    if kind == "sub" and "Ter" not in letters and letters[0] != letters[1]:
        (ours,) = parse_variant(text)
        assert ours.position == int(place.position)
        assert (AA_CODES[ours.wild_type], AA_CODES[ours.mutant]) == tuple(letters)
        return
    with pytest.raises(DataError) as caught:
        parse_variant(text)
    if kind != "sub":
        assert caught.value.drop == ("synonymous" if kind == "equal" else "indels")


@given(variants_of(), st.integers(-30, 30))
def test_sites_are_found_whatever_the_numbering(case, offset):
    _, variant = case
    moved = [(s.position + offset, s.wild_type, s.mutant) for s in variant]
    text = ":".join(f"{wild_type}{at}{new}" for at, wild_type, new in moved)
    assert written_sites(text or "WT") == [(at, wild_type) for at, wild_type, _ in moved]


def test_sites_of_what_is_no_substitution():
    assert written_sites("p.[Asp7=;Phe12Ter]") == [(7, "D"), (12, "F")]
    assert written_sites("D7fs") == [(7, "D")]
    for text in ("", "WT", "_sy", "del7", "MKTAYIAK", "c.1A>G"):
        assert written_sites(text) == []


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
        ("MKB", "wild type", "'B' at position 3; write D, N or X"),
        ("MUK", "wild type", "'U' at position 2; write C or X"),
        ("MZK", "wild type", "'Z' at position 2; write E, Q or X"),
        ("ATGGCGAAATTTCCCGGGATT", "wild type", "DNA"),
        ("augggcuuaagcauggcuaau", "wild type", "DNA or RNA"),
        ("MKX", "mutated sequence", "mutated sequence has 'X' at position 3"),
        ("MK T", "wild type", "' ' at position 3"),
    ],
)
def test_bad_sequences(sequence, what, says):
    with pytest.raises(DataError, match=says):
        check_sequence(sequence, what)


def test_unresolved_residues_are_allowed_in_a_wild_type():
    check_sequence("MKXT")


def test_a_short_or_simple_protein_is_no_dna():
    for sequence in ("GATTACA", "A" * 40, "GA" * 20, "MATGGCGAAATTTCCCGGGATT"):
        check_sequence(sequence)
