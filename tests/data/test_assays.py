"""Assays, and the rows that they are read from: one contract for all readers, and own tables."""

import re
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from on_disk import refused, write

from mutmeta_lib.data.assays import Assay, check_table, read_table
from mutmeta_lib.data.folders import read_data_dir
from mutmeta_lib.data.measurements import numbering_offsets
from mutmeta_lib.data.variants import AMINO_ACIDS, DROP, parse_variant
from mutmeta_lib.errors import DataError

WT = "MKTAYIAKQR"


def variants(*texts):
    return tuple(map(parse_variant, texts))


ASSAY = Assay("a", "p", "fitness", WT, variants("K2R", "WT"), [1, 2])


def test_an_assay_owns_its_scores_and_its_hash_is_of_the_content():
    scores = np.array([1.0, 2.0])
    assay = replace(ASSAY, scores=scores)
    scores[0] = 9
    assert (assay.scores.tolist(), assay.scores.dtype, len(assay)) == ([1, 2], np.float64, 2)
    with pytest.raises(ValueError, match="read-only"):
        assay.scores[0] = 9
    named = {"id": "b", "protein": "q", "units": "x", "sign": "y", "source": "z"}
    assert assay.sha256 == replace(assay, **named).sha256
    changed = [
        {"wild_type": "MKTAYIAKQK"}, {"variants": variants("K2E", "WT")},
        {"variants": variants("WT", "K2R")}, {"scores": [1, 2 + 1e-12]}, {},
    ]  # fmt: skip
    assert len({replace(assay, **change).sha256 for change in changed}) == 5


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"property": "speed"}, "not a property; use one of fitness, stability, solubility, expr"),
        ({"wild_type": "mkt"}, "capitals"), ({"wild_type": "MRTAYIAKQR"}, "K2R expects K"),
        ({"scores": [1]}, "one score per variant"), ({"scores": [1, np.nan]}, "not finite"),
        ({"variants": variants("K2R", "K2R")}, "occurs twice"),
    ],
)  # fmt: skip
def test_an_invalid_assay_cannot_be_made(changes, says):
    with pytest.raises(DataError, match=says):
        replace(ASSAY, **changes)


READERS = {  # every way to read rows as one assay of WT, and where the rows lie
    "own table": "A.csv", "data directory": "fitness/A.csv.gz", "collection": "fitness/A.csv",
    "ProteinGym": "x/A.csv",
}  # fmt: skip


@pytest.fixture(params=READERS)
def reader(request, tmp_path):
    """Read rows of mutant and score (and others) in one of the ways."""
    kind, path = request.param, tmp_path / READERS[request.param]
    if kind == "ProteinGym":
        text = f"DMS_id,UniProt_ID,target_seq,coarse_selection_type\nA,A,{WT},Activity\n"
        write(tmp_path / "DMS_substitutions.csv", text)
    else:
        header = "id,property,protein,target_seq,score_units,sign\n"
        target = "" if kind == "collection" else WT
        write(tmp_path / "MANIFEST.csv", f"{header}A,fitness,A,{target},au,higher = better\n")

    def read(header, body):
        if kind == "collection":
            header = f"protein,wild_type_sequence,{header}"
            body = "".join(f"A,{WT},{row}\n" if row else "\n" for row in body.splitlines())
        write(path, f"{header.replace('score', read.score)}\n{body}")
        if kind == "own table":
            return read_table(path, WT, property="fitness")
        return read_data_dir(tmp_path)[0]

    read.path = path
    read.score = "DMS_score" if kind == "ProteinGym" else "score"
    return read


def test_every_reader_reads_every_notation(reader):
    cells = ["K2R", "p.Thr3Ser", "p.=", "T3A K2R", "MKTAYIAKQE", "p.A4G"]
    body = "".join(f"{cell},{i}\n" for i, cell in enumerate(cells))
    assay = reader("mutant,score", body)
    assert assay.variants == variants("K2R", "T3S", "WT", "K2R:T3A", "R10E", "A4G")
    assert assay.scores.tolist() == [0, 1, 2, 3, 4, 5]
    about = assay.protein, assay.property, assay.wild_type, assay.sign, assay.left_out
    assert about == ("A", "fitness", WT, "higher = better", {})


@pytest.mark.parametrize(
    ("body", "row", "column", "says"),
    [
        ("K2R,1\nT3A,\n", 3, "score", "empty; fill it in or leave the row out"),
        ("K2R,1\nT300A,2\n", 3, "mutant", "outside the wild type .10 residues.; check the number"),
        ("K2R,1\nMKTAYI*KQR,2\n", 3, "mutant", "the sequence has a stop codon at position 7"),
        ("K2R,1\nMKTAXIAKQR,2\n", 3, "mutant", "'X' at position 5"),
        ("K2R,1\np.Lys2Arg,2\n", 3, "mutant", "'p.Lys2Arg' occurs twice .first in row 2."),
        ("K2R:T3A,1\nT3A:K2R,2\n", 3, "mutant", "occurs twice"),
        ("K2R,1\n\nT3A,2\n", 3, None, "row is empty"),
        ("", None, None, "no rows"),
    ],
)
def test_every_reader_locates_bad_rows(reader, body, row, column, says):
    column = reader.score if column == "score" else column
    with refused(says, reader.path, row, column):
        reader("mutant,score", body)


ODD = {
    "nonsense": ["K2*", "p.Thr3Ter", "MKTA*IAKQR"],
    "synonymous": ["A4A", "p.Tyr5=", "_sy"],
    "indels": ["p.Ile6fs", "A7del", "p.Lys8_Gln9insAla", "MKTAYIAKQ", "MKTA-IAKQR", "K2DEL"],
    "missing": ["", "NA", "p.?"],
}


@pytest.mark.parametrize("word", DROP)
def test_rows_are_left_out_on_request_only_and_counted(tmp_path, word):
    body = "".join(f"{text},{i}\n" for i, text in enumerate(("K2R", *ODD[word], "T3A")))
    path = write(tmp_path / "A.csv", f"mutant,score\n{body}")
    for drop in ([], [other for other in DROP if other != word]):
        with refused("leave it out", path, 3, "mutant") as caught:
            read_table(path, WT, property="fitness", drop=drop)
        assert caught.value.drop == word
    assay = read_table(path, WT, property="fitness", drop=[word])
    assert (assay.variants, assay.left_out) == (variants("K2R", "T3A"), {word: len(ODD[word])})


@pytest.mark.parametrize(
    ("sequence", "at"),
    [("MRTAYIAKQR", 0), ("MRTAYIAKQR*", 0), ("MRTAYIAKQK", 10), (WT, 2), ("MRTAYIAK", 9), ("", 1)],
)
def test_a_mutated_sequence_must_agree_in_every_reader(reader, sequence, at):
    header, body = "mutant,mutated_sequence,score", f"K2R,{sequence},1\n"
    told = refused(f"with K2R .position {at}.;", reader.path, 2, "mutated_sequence")
    with told if at else nullcontext():
        assert len(reader(header, body)) == 1


def test_columns_of_a_table_of_ones_own_may_have_other_names(tmp_path):
    path = write(tmp_path / "mine.csv", "variant,note,ddG\nK2R,x,-1.5\nWT,z,0\n")
    names = {"mutant_column": "variant", "score_column": "ddG"}
    assay = read_table(path, WT, property="stability", **names)
    assert (assay.id, assay.protein, assay.property) == ("mine", "mine", "stability")
    assert (assay.variants, assay.scores.tolist()) == (variants("K2R", "WT"), [-1.5, 0])
    with refused("--mutant-column.*mutant_column=", path, 1, "mutant"):
        read_table(path, WT, property="fitness")


@pytest.mark.parametrize("name", ["sequence", "mutated_sequence", "variant_aa"])
def test_a_table_of_sequences(tmp_path, name):
    path = write(tmp_path / "a.csv", f"{name},score\nMRTAYIAKQR,1\n{WT},2\nMRTAYIAKQE*,3\n")
    options = {"mutant_column": name} if name == "variant_aa" else {}
    assay = read_table(path, WT, property="fitness", **options)
    assert assay.variants == variants("K2R", "WT", "K2R:R10E")
    # A name that was given, and may be mistyped, is not replaced by sequences.
    with pytest.raises(DataError, match="no column 'hgvs_pro'"):
        read_table(path, WT, property="fitness", mutant_column="hgvs_pro")


def check(tmp_path, texts, scores=None, wild_type=WT, **options):
    cells = zip(texts, scores or range(len(texts)), strict=True)
    text = "".join(f"{mutation},{score}\n" for mutation, score in cells)
    return check_table(write(tmp_path / "t.csv", f"mutant,score\n{text}"), wild_type, **options)


def test_checking_finds_every_problem_and_reading_stops_at_the_first(tmp_path):
    rows = check(tmp_path, ["K2R", "A2G", "K2R", "T3G", "K20R", "A4G"], [1, 1, 1, "", "nan", 1])
    assert [(p.row, p.column) for p in rows.problems] == [
        (3, "mutant"), (4, "mutant"), (5, "score"), (6, "mutant"), (6, "score"),
    ]  # fmt: skip
    with refused(re.escape(str(rows.problems[0])), tmp_path / "t.csv", 3, "mutant"):
        read_table(tmp_path / "t.csv", WT, property="stability")
    assert check(tmp_path, ["T3*"]).problems[0].mend == "leave it out (--drop nonsense)"


def test_a_row_without_a_score_is_missing_whatever_its_mutation(tmp_path):
    rows = check(tmp_path, ["K2R", "T3A", "K2*", "TOTAL"], ["NA", 2, "", ""], drop=["missing"])
    assert (rows.variants, rows.left_out) == (variants("T3A"), {"missing": 3})
    assert "1 left out" in str(check(tmp_path, ["K2R"], ["NA"], drop=["missing"]).problems[0])


PROTEIN = "MDSLVVLGRCPKHTEWNAFYQIDMKVE"


def numbered(offset, first=1, last=14):
    sites = enumerate(PROTEIN[first - 1 : last], start=first + offset)
    return [f"{letter}{i}{'A' if letter != 'A' else 'G'}" for i, letter in sites]


@pytest.mark.parametrize(
    ("texts", "mend"),
    [
        (numbered(100), "add -100 to every position"), (numbered(-24), "add 24 to every position"),
        ([*numbered(7), "p.Trp23=", "p.Trp23Ter", "WT", "_sy"], "add -7 to every position"),
        ([*numbered(7), "C3A"], "add -7 to every position"),
        # Without reason none is proposed: few fit, two fit, one is wrong, and too many are.
        (numbered(7, last=4), "check"), ([*numbered(7, last=7), *numbered(9, first=8)], "check"),
        ([*numbered(0), "W2A"], "check"), ([*numbered(7, last=12), "W2A", "W3A"], "check"),
    ],
)  # fmt: skip
def test_an_offset_of_the_numbering_is_proposed(tmp_path, texts, mend):
    problems = check(tmp_path, texts, wild_type=PROTEIN).problems
    assert {p.mend.startswith(mend) for p in problems if not p.drop} == {True}


@given(st.text(AMINO_ACIDS, min_size=30, max_size=60), st.integers(-200, 200))
def test_the_right_offset_is_among_the_best(protein, offset):
    sites = {(i + offset, letter) for i, letter in enumerate(protein[5:20], start=6)}
    assert -offset in numbering_offsets(sites, protein)


@pytest.mark.parametrize(
    ("texts", "scores", "note"),
    [
        (["K2R", "T3A", "WT", "A4G"], None, ""),
        (["K2R", "T3A"], [0, 0], "all scores are equal, so that nothing can be ranked"),
        (["K2R", "_wt"], None, "row 3: '_wt' is read as the wild type"),
        ([f"A{i}G" for i in range(2, 9)], None, "would also fit with 1 or 2 added"),
    ],
)
def test_what_is_read_and_still_odd_is_remarked_on(tmp_path, recwarn, texts, scores, note):
    wild_type = WT if "K2R" in texts else "MAAAAAAAAAG"
    rows = check(tmp_path, texts, scores, wild_type)
    assert (rows.problems, len(rows.variants), len(rows.notes)) == ([], len(texts), bool(note))
    assert note in "".join(rows.notes)
    read_table(tmp_path / "t.csv", wild_type, property="fitness")
    assert [str(w.message) for w in recwarn] == [f"{tmp_path / 't.csv'}: {n}" for n in rows.notes]
