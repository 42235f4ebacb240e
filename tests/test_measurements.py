import pytest

from mutmeta_lib.errors import DataError
from mutmeta_lib.measurements import (
    check_variants,
    is_synonymous,
    parse_notation,
    read_variants,
    rows_kept,
)
from mutmeta_lib.mutations import format_variant, parse_variant

WILD_TYPE = "MKTAYIAKQR"


def read(texts, mutated=None):
    return read_variants(texts, mutated, WILD_TYPE, range(2, 2 + len(texts)), "mutant")


def test_both_notations_may_stand_in_one_column():
    read_back = [format_variant(v) for v in read(["K2R", "p.Thr3Ser", "p.=", "T3A:K2R"])]
    assert read_back == ["K2R", "T3S", "WT", "K2R:T3A"]


@pytest.mark.parametrize(
    ("texts", "row", "says"),
    [
        (["K2R", "k2r"], 3, "write K2R"),
        (["K2R", "K2*"], 3, "stop codon"),
        (["K2R", "p.Lys2Ter"], 3, "stop codon"),
        (["K2R", "c.4A>G"], 3, "nucleotide"),
        (["K2R", "NP_1:p.Lys2Arg"], 3, "leave 'NP_1:' out"),
        (["K2R", "A2R"], 3, "expects A at position 2, but the wild type has K"),
        (["K2R", "K200R"], 3, "position 200 lies outside the wild type .10 residues."),
        (["K2R", "T3A", "K2R"], 4, r"K2R occurs twice \(first in row 2\)"),
        (["K2R", "p.Lys2Arg"], 3, r"K2R occurs twice \(first in row 2\)"),
        (["K2R:T3A", "T3A:K2R"], 3, "occurs twice"),
        (["K2K"], 2, "by itself"),
        (["p.Lys2="], 2, "unchanged"),
    ],
)
def test_bad_mutations_are_located(texts, row, says):
    with pytest.raises(DataError, match=says) as caught:
        read(texts)
    assert (caught.value.row, caught.value.column) == (row, "mutant")


@pytest.mark.parametrize(
    ("sequence", "says"),
    [
        ("MRTAYIAKQK", "K at position 10, not R"),
        (WILD_TYPE, "K at position 2, not R"),
        ("MRTAYIAKQ", "9 residues, not 10"),
        ("", "0 residues, not 10"),
    ],
)
def test_a_mutated_sequence_must_agree(sequence, says):
    assert len(read(["K2R"], ["MRTAYIAKQR"])) == 1
    with pytest.raises(DataError, match=says) as caught:
        read(["K2R"], [sequence])
    assert (caught.value.row, caught.value.column) == (2, "mutated_sequence")


def test_an_offset_of_the_numbering_is_found():
    shifted = ["K102R", "T103A", "Y105F", "I106V", "Q109E"]
    with pytest.raises(DataError, match="add -100 to every position: then all fit"):
        read(shifted)
    # One row that fits nowhere, or too few sites to be sure: no such advice.
    for texts in ([*shifted, "W101A"], shifted[:4]):
        with pytest.raises(DataError, match="check the numbering"):
            read(texts)


def test_an_offset_that_is_not_the_only_one_is_not_advised():
    with pytest.raises(DataError, match="check the numbering"):
        check_variants([parse_variant(f"A{i}G") for i in range(11, 17)], "A" * 8)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A24A", True),
        ("A024A", True),
        ("p.Ala24=", True),
        ("p.Ala24Ala", True),
        ("A24G", False),
        ("WT", False),
        ("p.=", False),
        ("p.Ala24Gly", False),
        ("A24A:K2R", False),
    ],
)
def test_synonymous_rows(text, expected):
    assert is_synonymous(text) == expected
    assert rows_kept([text, "K2R"], "drop") == ([1] if expected else [0, 1])
    assert rows_kept([text, "K2R"], "refuse") == [0, 1]


def test_an_unknown_policy_is_refused():
    with pytest.raises(DataError, match="use 'refuse' or 'drop'"):
        rows_kept([], "ignore")


def test_hgvs_is_told_by_its_prefix():
    assert parse_notation("p.Ala24Gly") == parse_notation("A24G")
