"""Rows of a table: what is read, left out, refused and remarked on."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mutmeta_lib.data.measurements import check_variants, numbering_offsets, parse_cell, read_rows
from mutmeta_lib.data.variants import AMINO_ACIDS, DROP, format_variant, parse_variant
from mutmeta_lib.errors import DataError

WILD_TYPE = "MKTAYIAKQR"
NAMES = {"mutant_column": "mutant", "score_column": "score"}


def read(texts, scores=None, mutated=None, wild_type=WILD_TYPE, **options):
    columns = {"mutant": texts, "score": scores or ["1"] * len(texts)}
    columns |= {} if mutated is None else {"mutated_sequence": mutated}
    return read_rows(columns, range(len(texts)), wild_type, **NAMES, **options)


def told(rows):
    return [(p.row, p.column) for p in rows.problems]


def test_every_notation_may_stand_in_one_column():
    texts = ["K2R", "p.Thr3Ser", "p.=", "T3A K2R", "MKTAYIAKQE", "p.A4G"]
    rows = read(texts, [str(i) for i in range(6)])
    assert [format_variant(v) for v in rows.variants] == [
        "K2R", "T3S", "WT", "K2R:T3A", "R10E", "A4G",
    ]  # fmt: skip
    assert rows.scores.tolist() == [0, 1, 2, 3, 4, 5]
    assert (rows.problems, rows.left_out) == ([], {})


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
        (["WT", "T3A", "_wt"], 4, r"WT occurs twice \(first in row 2\)"),
        (["K2R:T3A", "T3A:K2R"], 3, "occurs twice"),
        (["K2R", "MRTAYIAKQR"], 3, "occurs twice"),
        (["K2K"], 2, "synonymous change"),
        (["p.Lys2="], 2, "synonymous change"),
    ],
)
def test_bad_mutations_are_located(texts, row, says):
    (problem,) = read(texts).problems
    with pytest.raises(DataError, match=says):
        raise problem
    assert (problem.row, problem.column) == (row, "mutant")


@pytest.mark.parametrize(
    ("sequence", "says", "drop"),
    [
        ("MKTAYIAKQ", "9 residues and the wild type 10", "indels"),
        ("MKTAYIAKQRR", "11 residues", "indels"),
        ("MKTA-IAKQR", "a deletion at position 5", "indels"),
        ("MKTAYI*KQR", "a stop codon at position 7", "nonsense"),
        ("MKTAXIAKQR", "'X' at position 5", ""),
    ],
)
def test_a_sequence_in_place_of_a_mutation_is_judged_as_one(sequence, says, drop):
    with pytest.raises(DataError, match=says.replace("*", r"\*")) as caught:
        parse_cell(sequence, WILD_TYPE)
    assert caught.value.drop == drop


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
    for sequence_read in ("MRTAYIAKQR", "MRTAYIAKQR*"):
        assert read(["K2R"], mutated=[sequence_read]).problems == []
    (problem,) = read(["K2R"], mutated=[sequence]).problems
    assert says in str(problem)
    assert (problem.row, problem.column) == (2, "mutated_sequence")


def test_every_row_is_judged():
    texts = ["K2R", "A2G", "K2R", "T3G", "K20R", "k2r", "T3G:T3A", "A4G"]
    rows = read(texts, ["0.5", "1", "0.7", "", "nan", "1", "2", "1"])
    assert told(rows) == [
        (3, "mutant"), (4, "mutant"), (5, "score"), (6, "mutant"), (6, "score"), (7, "mutant"),
        (8, "mutant"),
    ]  # fmt: skip


ODD = {
    "nonsense": ["K2*", "p.Thr3Ter", "MKTA*IAKQR"],
    "synonymous": ["A4A", "p.Tyr5=", "_sy"],
    "indels": ["p.Ile6fs", "A7del", "p.Lys8_Gln9insAla", "MKTAYIAKQ"],
    "missing": ["", "NA", "p.?"],
}


@pytest.mark.parametrize("word", DROP)
def test_rows_are_left_out_on_request_only_and_counted(word):
    texts = ["K2R", *ODD[word], "T3A"]
    refused = read(texts)
    assert told(refused) == [(3 + i, "mutant") for i in range(len(ODD[word]))]
    assert {p.drop for p in refused.problems} == {word}
    rows = read(texts, drop=[word])
    assert (rows.problems, rows.left_out) == ([], {word: len(ODD[word])})
    assert [format_variant(v) for v in rows.variants] == ["K2R", "T3A"]
    others = [other for other in DROP if other != word]
    assert told(read(texts, drop=others)) == told(refused)


def test_a_row_without_a_score_is_missing_whatever_its_mutation():
    rows = read(["K2R", "T3A", "K2*", "nonsense"], ["NA", "2", "", ""], drop=["missing"])
    assert [format_variant(v) for v in rows.variants] == ["T3A"]
    assert (rows.scores.tolist(), rows.left_out) == ([2], {"missing": 3})


def test_an_unknown_kind_of_row_cannot_be_left_out():
    with pytest.raises(DataError, match="'stops' to drop; use nonsense, synonymous"):
        read(["K2R"], drop=["stops"])


PROTEIN = "MDSLVVLGRCPKHTEWNAFYQIDMKVE"


def numbered(offset, rows=range(1, 15)):
    return [f"{PROTEIN[i - 1]}{i + offset}{'A' if PROTEIN[i - 1] != 'A' else 'G'}" for i in rows]


@pytest.mark.parametrize(
    ("offset", "also", "scores", "counted"),
    [
        (100, [], {}, "all fit"),
        (-1, [], {}, "all fit"),
        (-24, [], {}, "all fit"),
        (7, ["p.Trp23="], {}, "all fit"),
        (7, ["p.Trp23Ter", "WT", "_sy"], {}, "all fit"),
        (7, [], {3: "NA"}, "all fit"),
        (7, ["C3A"], {}, "14 of 15 rows fit"),
    ],
)
def test_an_offset_of_the_numbering_is_proposed(offset, also, scores, counted):
    texts = [*numbered(offset), *also]
    cells = [scores.get(i, "1") for i in range(len(texts))]
    rows = read(texts, cells, wild_type=PROTEIN)
    proposals = [p for p in rows.problems if f"add {-offset} to every position" in p.mend]
    # Rows that fit by chance as they are have no problem of their own.
    by_chance = {i + 2 for i, t in enumerate(numbered(offset)) if _fits(t)}
    assert {p.row for p in proposals} == set(range(2, 16)) - by_chance
    assert all(counted in p.mend for p in proposals)
    if "C3A" in also:
        assert "correct this row; 14 of 15 rows fit with -7 added" in rows.problems[-1].mend


def _fits(text):
    return not read([text], wild_type=PROTEIN).problems


def test_no_offset_is_proposed_without_reason():
    for texts in (
        numbered(7, range(1, 5)),
        [*numbered(7, range(1, 8)), *numbered(9, range(8, 15))],
    ):
        mends = [p.mend for p in read(texts, wild_type=PROTEIN).problems]
        assert mends
        assert not any("add" in mend for mend in mends)
    # One wrong row among many right ones is a wrong row.
    (problem,) = read([*numbered(0), "W2A"], wild_type=PROTEIN).problems
    assert "check the numbering" in problem.mend


@given(st.text(AMINO_ACIDS, min_size=30, max_size=60), st.integers(-200, 200))
def test_the_right_offset_is_among_the_best(protein, offset):
    sites = {(i + offset, letter) for i, letter in enumerate(protein[5:20], start=6)}
    assert -offset in numbering_offsets(sites, protein)


def test_what_is_read_and_still_odd_is_remarked_on():
    assert read(["K2R", "T3A", "WT", "p.="][:3], ["1", "2", "3"]).notes == []
    assert read(["K2R", "T3A"], ["0", "0"]).notes == [
        "all scores are equal, so that nothing can be ranked"
    ]
    assert read(["K2R", "_wt"], ["0", "1"]).notes == ["row 3: '_wt' is read as the wild type"]
    texts = [f"A{i}G" for i in range(2, 9)]
    (note,) = read(texts, [str(i) for i in range(7)], wild_type="MAAAAAAAAAG").notes
    assert "would also fit with 1 or 2 added" in note
    rows = read(texts, [str(i) for i in range(7)], wild_type="MAAAAAAAAAG")
    assert [format_variant(v) for v in rows.variants] == texts


def test_the_time_grows_with_the_rows_not_with_their_square():
    protein = "ACDEFGHIKLMNPQRSTVWY" * 20
    scan = [
        f"{letter}{i}{new}"
        for i, letter in enumerate(protein, start=1)
        for new in AMINO_ACIDS
        if new != letter
    ]
    texts = (scan * 3)[:20_000]
    for wild_type in (protein, "W" + protein):
        began = time.process_time()
        rows = read(texts, wild_type=wild_type)
        # Every repeat is told; with the shifted wild type, nearly every row.
        assert len(rows.problems) >= len(texts) - len(scan)
        assert time.process_time() - began < 2


def test_check_variants():
    check_variants([parse_variant("K2R"), ()], WILD_TYPE)
    for texts, says in ((["K2R", "K2R"], "K2R occurs twice"), (["A2R"], "expects A at position 2")):
        with pytest.raises(DataError, match=says):
            check_variants([parse_variant(text) for text in texts], WILD_TYPE)
