"""Notations, sequences and variants: what is read, what is named for what it is, what fits."""

import re

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
    difference,
    format_hgvs,
    format_variant,
    mutation_types,
    parse_variant,
    single_variants,
    written_sites,
)
from mutmeta_lib.errors import DataError

sequences = st.text(alphabet=AMINO_ACIDS, min_size=1, max_size=60)


@st.composite
def variants_of(draw, wild_types=sequences):
    """A wild type and a variant of it; the encodings' tests read it, too."""
    wild_type = draw(wild_types)
    singles = st.sampled_from(single_variants(wild_type))
    chosen = draw(st.lists(singles, unique_by=lambda variant: variant[0].position, max_size=6))
    return wild_type, tuple(sorted(substitution for (substitution,) in chosen))


@given(variants_of(), st.randoms(use_true_random=False), st.data())
def test_writing_and_reading_undo_each_other_and_so_do_applying_and_differing(case, random, data):
    wild_type, variant = case
    assert parse_variant(format_variant(variant)) == parse_variant(format_hgvs(variant)) == variant
    parts = [str(s) for s in variant]
    random.shuffle(parts)
    assert parse_variant(":".join(parts) or "WT") == variant
    assert difference(wild_type, apply_variant(variant, wild_type)) == variant
    n = len(wild_type)
    other = data.draw(st.text(alphabet=AMINO_ACIDS, min_size=n, max_size=n))
    assert apply_variant(difference(wild_type, other), wild_type) == other


# How tables write variants. Below stand, in pairs with these, texts that are something else.
READ = {
    "D7N": ["D7N", "D007N", "  D7N ", "D7Asn", "Asp7Asn", "p.Asp7Asn", "p.D7N"],
    "WT": ["WT", "wt", "_wt", "wildtype", "Wild type", "p.=", "p.(=)", " WT"],
    "D7N:F12L": [
        *(f"F12L{j}D7N" for j in (*":;, /|+&-_", ", ", " ; ", "  ")),
        "p.[Asp7Asn;Phe12Leu]", "p.[Phe12Leu;Asp7Asn]", "p.[D7N;F12L]", "p.Asp7Asn;p.Phe12Leu",
        "p.D7N p.F12L", "p.Asp7Asn:p.Phe12Leu", "F12L:p.D7N",
    ],
}  # fmt: skip


@pytest.mark.parametrize("expected", READ)
def test_what_is_a_substitution_is_read(expected):
    for text in READ[expected]:
        assert format_variant(parse_variant(text)) == expected, text


NAMED = {
    ("a stop codon", "nonsense"): ["D7*", "D7Ter", "D7Stop", "p.Asp7Ter", "p.Asp7*", "D7STOP"],
    ("a synonymous change", "synonymous"): ["D7D", "D7=", "p.Asp7=", "p.Asp7Asp", "p.D7=", "_sy"],
    ("a frame shift", "indels"): ["D7fs", "p.Asp7LysfsTer12", "p.D7Kfs*12", "p.Asp7fs(12)"],
    ("a deletion", "indels"): [
        "D7-", "p.Asp7del", "p.Asp7_Phe12del", "D7_F12del", "ΔD7", "del7", "D7Del", "DEL7", "d7del",
    ],
    ("an insertion", "indels"): ["D7_G8insW", "p.Asp7_Gly8insTrp", "p.D7_G8INSWW"],
    ("a deletion and insertion", "indels"): ["D7delinsWW", "p.Asp7_Phe12delinsTrp", "D7DELINSW"],
    ("a duplication", "indels"): ["D7dup", "p.Asp7dup", "p.Asp7_Phe12dup"],
    ("a repeat", "indels"): ["D7[3]"],
    ("a lost stop codon", "indels"): ["*57D", "p.Ter57Asp"],
    ("an extension", "indels"): ["p.Ter57Aspext*9", "p.Met1ext-5"],
    ("empty", "missing"): ["", "   "],
    ("missing", "missing"): ["NA", "nan", "-", "p.?"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "what", "drop"), [(text, *kind) for kind, texts in NAMED.items() for text in texts]
)
def test_what_is_no_substitution_is_named_for_what_it_is(text, what, drop):
    with pytest.raises(DataError, match=f" {what}\\b|{what};") as caught:
        parse_variant(text)
    assert caught.value.drop == drop
    for more in ("F12L;{}", "A4=;F12L;{};G3=") if drop != "missing" else ():
        with pytest.raises(DataError) as caught:
            parse_variant(more.format(text))
        # A stop or an indel makes the row one; a synonymous part is for the reader to take out.
        assert caught.value.drop == ("" if drop == "synonymous" else drop)


OTHERS = [
    ("d7n", "write D7N"), ("asp7asn", "write Asp7Asn"), ("p.ASP7ASN", "write Asp7Asn"),
    ("X7G", "X7G has what is not an amino acid; use ACDEFG"), ("D7B", "not an amino acid"),
    ("p.Xaa7Gly", "not an amino acid"), ("D0N", "D0N has position 0; count residues from 1"),
    ("p.Asp-3Asn", "position -3; count residues from 1"), ("D7N:D7G", "same position 7"),
    ("D7N:", "empty part"), (":D7N", "empty part"), ("D7N:F12F", "write D7N"),
    *((text, "as in A24G") for text in ("D7", "7N", "DN", "DD7N", "D7NG", "D7->N", "D٧N", "TOTAL")),
    ("D7N:F12", "'F12' in 'D7N:F12' is not a substitution"),
    ("p.(Asp7Asn)", "write p.Asp7Asn if"), ("p.[(D7N);(F12L)]", r"write p.\[D7N;F12L\] if"),
    ("target:n.1A>T", "nucleotide"), ("NP_000001.1:p.Asp7Asn", "leave 'NP_000001.1:' out"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "says"), OTHERS)
def test_other_texts_say_how_to_mend_them(text, says):
    with pytest.raises(DataError, match=says) as caught:
        parse_variant(text)
    assert caught.value.drop == ""
    if written := re.fullmatch(r"write (\S+)(?: if .*)?", caught.value.mend):
        parse_variant(written[1])


@given(st.text(max_size=12))
@example("_-_")
@example("Δ1")
def test_any_text_is_parsed_back_or_refused_with_a_mend(text):
    try:
        variant = parse_variant(text)
    except DataError as error:
        assert error.mend  # noqa: PT017
    else:
        assert parse_variant(format_variant(variant)) == variant


EVENTS = {
    "sub": "{a}{i}{b}", "equal": "{a}{i}=", "fs": "{a}{i}fs", "del": "{a}{i}del",
    "dup": "{a}{i}_{b}{k}dup", "ins": "{a}{i}_{b}{j}ins{a}{b}", "delins": "{a}{i}_{b}{k}delins{b}",
}  # fmt: skip
residues = st.sampled_from(sorted(AA_CODES.values()))


@pytest.mark.parametrize("kind", EVENTS)
@given(a=residues, b=residues, i=st.integers(1, 900), length=st.integers(1, 9))
def test_hgvs_is_understood_as_by_mavehgvs(kind, a, b, i, length):
    text = "p." + EVENTS[kind].format(a=a, b=b, i=i, j=i + 1, k=i + length)
    try:
        ((found, _, _),) = HgvsVariant(text).variant_tuples()
    except MaveHgvsParseError:
        reject()  # not HGVS by their rules, as a residue replaced by itself
    assert found == kind
    if kind == "sub" and "Ter" not in (a, b) and a != b:
        (ours,) = parse_variant(text)
        assert (AA_CODES[ours.wild_type], ours.position, AA_CODES[ours.mutant]) == (a, i, b)
        return
    with pytest.raises(DataError) as caught:
        parse_variant(text)
    assert kind == "sub" or caught.value.drop == ("synonymous" if kind == "equal" else "indels")


@given(variants_of(), st.integers(-30, 30))
def test_sites_are_found_whatever_the_numbering(case, offset):
    text = ":".join(f"{s.wild_type}{s.position + offset}{s.mutant}" for s in case[1])
    assert written_sites(text) == [(s.position + offset, s.wild_type) for s in case[1]]
    assert written_sites("p.[Asp7=;Phe12Ter;G13fs]") == [(7, "D"), (12, "F"), (13, "G")]
    assert written_sites("_sy") == written_sites("MKTAYIAK") == []


@pytest.mark.parametrize(
    ("change", "says"),
    [((0, "A", "G"), "position 0; count residues"), ((1, "A", "A"), "by itself")]
    + [((1, *pair), "not an amino acid") for pair in ("XG", "Ag", ("A", ""), ("A", "CD"))],
)
def test_a_substitution_is_valid_however_it_is_made(change, says):
    with pytest.raises(DataError, match=says):
        Substitution(*change)


@pytest.mark.parametrize(
    ("variant", "says"),
    [
        (parse_variant("K4R"), "position 4 lies outside the wild type .3 residues."),
        (parse_variant("M1A:R2K"), "R2K expects R at position 2, but the wild type has K"),
        (parse_variant("M1A:K2R")[::-1], "unsorted"), (parse_variant("M1A") * 2, "or twice"),
    ],
)  # fmt: skip
def test_a_variant_must_fit_the_wild_type_sorted_and_without_repeats(variant, says):
    assert apply_variant(parse_variant("M1A:K2R"), "MKT") == "ART"
    with pytest.raises(DataError, match=says):
        apply_variant(variant, "MKT")


def test_difference_needs_equal_lengths_and_known_residues():
    for pair, says in {("MKT", "MK"): "2 residues", ("MXT", "MAT"): "not an amino acid"}.items():
        with pytest.raises(DataError, match=says):
            difference(*pair)
    assert format_variant(difference("MXT", "MXA")) == "T3A"


@given(sequences)
def test_single_variants_are_all_nineteen_of_each_site(wild_type):
    singles = single_variants(f"{wild_type}X")
    assert singles == sorted(singles)
    mutated = {apply_variant(variant, wild_type) for variant in singles}
    assert len(mutated - {wild_type}) == len(singles) == 19 * len(wild_type)


@pytest.mark.parametrize(
    ("sequence", "what", "says"),
    [
        ("", "wild type", "wild type is empty"), ("mkt", "wild type", "capitals"),
        ("M*K", "wild type", "'[*]' at position 2; write it without gaps, blanks and stops"),
        ("MKB", "wild type", "'B' at position 3; write D or N; use ACDEFGHIKLMNPQRSTVWYX$"),
        ("MKX", "mutated sequence", "has 'X' at position 3; .*; use ACDEFGHIKLMNPQRSTVWY$"),
        ("ATGGCGAAATTTCCCGGGAT", "wild type", "DNA"), ("augggcuuaagcauggcuaa", "wild type", "RNA"),
    ],
)  # fmt: skip
def test_bad_sequences(sequence, what, says):
    with pytest.raises(DataError, match=says):
        check_sequence(sequence, what)


@pytest.mark.parametrize("sequence", ["MKXT", "GATTACA", "A" * 40, "GA" * 20, "MATGGCGAAATTTCCC"])
def test_unresolved_residues_and_proteins_that_look_like_dna_are_read(sequence):
    check_sequence(sequence)


@pytest.mark.parametrize(
    ("change", "types"),
    [
        ("A1P", ["to proline", "hydrophobic to polar"]), ("D1E", ["polar to polar"]),
        ("F1L", ["aromatic", "hydrophobic to hydrophobic"]),
        ("G1A", ["from proline or glycine", "polar to hydrophobic"]),
        ("D1K", ["charge changed", "polar to polar"]), ("S1G", ["to glycine", "polar to polar"]),
    ],
)  # fmt: skip
def test_types_of_substitutions(change, types):
    assert mutation_types(*parse_variant(change)) == types
