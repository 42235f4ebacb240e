"""Folders: the manifest, what is chosen of a folder, collections, lists, and the bundled data."""

import numpy as np
import pandas as pd
import pytest
from on_disk import refused, write

from mutmeta_lib.data.assays import PROPERTIES
from mutmeta_lib.data.folders import (
    CANDIDATES,
    LISTS,
    LITERATURE,
    cap_assay,
    demo_dir,
    read_data_dir,
    read_list,
    read_listed,
    read_manifest,
)
from mutmeta_lib.data.variants import apply_variant
from mutmeta_lib.errors import DataError

WT = "MKTAYIAKQR"
HEADER = "id,property,protein,target_seq,score_units,sign,doi\n"
GOOD = "A,fitness,P,MKT,au,higher = better,10.1/x\n"
FLIPPED = "flipped (source: lower = better)"
COLLECTION = "protein,wild_type_sequence,mutant,score\n"


@pytest.mark.parametrize(
    ("old", "new", "row", "column", "says"),
    [
        ("A,", "../A,", 2, "id", "no name of a file"), ("A,", ",", 2, "id", "no name of a file"),
        (GOOD, 2 * GOOD, 3, "id", "'A' is also in row 2"),
        ("property", "kind", 1, "property", "there is no column 'property'"),
        ("fitness", "speed", 2, "property", "use one of fitness"),
        ("MKT", "MK1", 2, "target_seq", "'1' at position 3"),
        *(
            ("higher = better", sign, 2, "sign", "does not say that higher is better; multiply")
            for sign in ("", "ddG: lower = better", "higher = worse", "as in source: Lower")
        ),
    ],
)  # fmt: skip
def test_bad_manifests_are_located(tmp_path, old, new, row, column, says):
    path = write(tmp_path / "MANIFEST.csv", (HEADER + GOOD).replace(old, new, 1))
    with refused(says, path, row, column):
        read_data_dir(tmp_path)


def test_what_is_no_folder_of_data(tmp_path):
    for folder, says in [
        (tmp_path, "MANIFEST.csv: the file does not exist"),
        (write(tmp_path / "scores.csv", ""), "cannot be read .Not a directory."),
    ]:
        with pytest.raises(DataError, match=says):
            read_data_dir(folder)


@pytest.fixture
def data_dir(tmp_path):
    entries = f"A,fitness,P,{WT},au,up,10.1/a\nB,stability,2 proteins,,kcal/mol,up,10.1/b\n"
    write(tmp_path / "MANIFEST.csv", f"{HEADER}{entries}C,solubility,P,{WT},au,{FLIPPED},\n")
    write(tmp_path / "fitness" / "A.csv", "mutant,score\nK2R,1\nT3A,2\n")
    rows = "Q,MKXT,M1A,1\nR,GGW,G2A,2\nQ,MKXT,K2R,3\n"
    write(tmp_path / "stability" / "B.csv.gz", COLLECTION + rows)
    write(tmp_path / "solubility" / "C.csv", "mutant,score\nK2R,5\n")
    return tmp_path


def test_a_data_directory(data_dir):
    write(data_dir / "fitness" / "D.csv.gz", "mutant,score\nK2R,1\n")
    write(data_dir / "fitness" / "B.csv", "mutant,score\nK2R,1\n")
    write(data_dir / "fitness" / "A.csv.gz", "mutant,score\nK2R,9\n")  # A.csv counts
    with pytest.warns(UserWarning, match=r"does not name fitness/B\.csv, fitness/D\.csv\.gz; not"):
        assays = read_data_dir(data_dir)
    assert [(a.id, a.protein, a.wild_type, a.property, a.units) for a in assays] == [
        ("A", "P", WT, "fitness", "au"), ("B/Q", "Q", "MKXT", "stability", "kcal/mol"),
        ("B/R", "R", "GGW", "stability", "kcal/mol"), ("C", "P", WT, "solubility", "au"),
    ]  # fmt: skip
    assert [a.scores.tolist() for a in assays] == [[1, 2], [1, 3], [2], [5]]
    assert (assays[3].sign, assays[0].source, assays[3].source) == (FLIPPED, "10.1/a", "")


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({"ids": ["C", "B"]}, ["B/Q", "B/R", "C"]), ({"ids": ["B/R", "A"]}, ["A", "B/R"]),
        ({"properties": ["stability", "solubility"]}, ["B/Q", "B/R", "C"]),
        ({"ids": ["A", "B"], "properties": ["stability"]}, ["B/Q", "B/R"]), ({"ids": []}, []),
        ({"ids": ["D"]}, "no data set 'D'; see the names in MANIFEST.csv"),
        ({"ids": ["B/Z"]}, "no protein 'B/Z'"), ({"ids": ["A/P"]}, "no protein 'A/P'"),
        ({"properties": ["speed"]}, "'speed' is not a property"),
    ],
)  # fmt: skip
def test_what_is_asked_for_is_chosen_or_told_to_be_missing(data_dir, recwarn, selection, expected):
    if isinstance(expected, list):
        assert [a.id for a in read_data_dir(data_dir, **selection)] == expected
        assert not recwarn.list
        return
    with pytest.raises(DataError, match=expected):
        read_data_dir(data_dir, **selection)


@pytest.mark.parametrize(
    ("rows", "row", "column", "says"),
    [
        ("Q,MKT,K2R,1\nQ,MKA,K2A,1\n", 3, "wild_type_sequence", "another wild type than in the"),
        ("Q,MKT,K2R,1\nR,mk,K2A,1\n", 3, "wild_type_sequence", "capitals"),
        (",MKT,K2R,1\n", 2, "protein", "no name"),
        ("Q,MKT,K2R,1\nR,MKA,K2A,1\nQ,MKT,K2R,2\n", 4, "mutant", r"\(first in row 2\)"),
        ("Q,MKT,K2R,1\nR,MKA,A2K,1\nQ,MKT,A1K,2\n", 3, "mutant", "A2K expects A"),
    ],
)  # fmt: skip
def test_bad_collections(data_dir, rows, row, column, says):
    path = write(data_dir / "stability" / "B.csv.gz", COLLECTION + rows)
    with refused(says, path, row, column):
        read_data_dir(data_dir)


def test_a_wild_type_that_the_manifest_contradicts_is_told(data_dir):
    path = write(data_dir / "fitness" / "A.csv", f"{COLLECTION}P,{WT},K2R,1\n")
    assert read_data_dir(data_dir, ids=["A"])[0].id == "A/P"
    write(path, f"{COLLECTION}P,{WT[:-1]},K2R,1\n")
    with refused("not the manifest's target_seq", path, 2, "wild_type_sequence"):
        read_data_dir(data_dir, ids=["A"])


def test_the_demo_data():
    assays = read_data_dir("demo")
    assert [a.id for a in assays] == read_manifest(demo_dir())["id"].tolist()
    assert len({a.sha256 for a in assays}) == len(assays) == 75
    assert {a.protein for a in assays} == {"GB1", "Abeta42", "TDP-43 290-373"}
    assert all(a.units and a.sign and a.source for a in assays)
    # A double mutant is one molecule: all scans that hold it must give it one score.
    scores = {}
    for assay in assays:
        for variant, score in zip(assay.variants, assay.scores, strict=True):
            key = (assay.source, apply_variant(variant, assay.wild_type))
            assert scores.setdefault(key, score) == score
    assert len(scores) < sum(map(len, assays)) - 500


SCAN = "GB1_OLSON2014_on_A23P"
LISTED = "id,property,role,variants,length,cap"


@pytest.fixture
def scan():
    return read_data_dir(ids=[SCAN])[0]


def listing(path, *rows):
    """Write a list of assays, each with what is to be said otherwise of it."""
    lines = [LISTED]
    for assay, changes in rows:
        cells = {"property": "fitness", "role": "a role", "variants": len(assay)}
        cells |= {"length": len(assay.wild_type), "cap": 30}
        lines.append(",".join(map(str, [assay.id, *(cells | changes).values()])))
    return write(path, "\n".join(lines))


@pytest.mark.parametrize("name", ["arms", "benchmark", "sound"])
def test_the_bundled_lists_hold_ids_and_counts_alone(name):
    assert (LISTS / f"{name}.csv").read_text(encoding="utf-8").splitlines()[0] == LISTED
    table = read_list(name)
    assert table["id"].is_unique
    assert table["property"].isin(PROPERTIES).all()


def test_the_benchmark_is_what_its_rule_gives():
    known = pd.read_csv(CANDIDATES, keep_default_na=False)
    assert known["id"].is_unique
    gym, at_hand = known["collection"] == "ProteinGym", known["at_hand"] == "yes"
    assert gym.sum() == 217, "ProteinGym v1 has as many substitution assays"
    many = known["singles"] >= 150
    refused = ["not of ProteinGym", "no scores at hand", "under 150 singles"]
    why = np.select([~gym, ~at_hand, ~many], refused, "kept")
    assert known["why"].tolist() == why.tolist()
    kept = known[why == "kept"].astype({"length": int})
    kept = kept.assign(cap=kept["variants"])[LISTED.split(",")].reset_index(drop=True)
    pd.testing.assert_frame_equal(read_list("benchmark"), kept, check_dtype=False)
    assert (known.loc[gym & at_hand, "singles"] == known.loc[gym & at_hand, "variants"]).all()


def test_the_arms_are_what_their_rule_gives():
    known = pd.read_csv(CANDIDATES, keep_default_na=False).replace({"length": {"": np.nan}})
    known["length"] = known["length"].astype(float)
    protein = known["id"].str.contains("/")
    gym = (known["why"] == "kept") & (known["length"] <= 250)
    gym &= known["property"].isin(["fitness", "stability"])
    single = (known["proteins"] == 1) & (known["singles"] == known["variants"])
    soluble = known["role"].eq("solubility") | known["property"].eq("solubility")
    soluble &= single & (known["singles"] >= 150) & (known["role"] != "solubility classes")
    whole = known[known["role"].isin(LITERATURE) & ~protein]
    largest = whole.loc[whole.groupby("role")["variants"].idxmax(), "id"]
    collected = protein & (known["variants"] >= 50)
    assert set(known.loc[protein, "id"].str.split("/").str[0]) == set(largest)
    kept = known[gym | soluble | collected].astype({"length": int})
    roles = kept["role"].where(kept["role"].isin(LITERATURE), kept["property"])
    kept = kept.assign(role=roles, cap=200)[LISTED.split(",")].reset_index(drop=True)
    pd.testing.assert_frame_equal(read_list("arms"), kept, check_dtype=False)


def test_the_cap_is_one_draw_for_good_and_caps_are_nested(scan):
    small, large = cap_assay(scan, 20), cap_assay(scan, 50)
    assert [str(v[0]) for v in cap_assay(scan, 3).variants] == ["Q32H", "T44L", "K50M"]
    assert len(small) == 20
    assert set(small.variants) < set(large.variants) < set(scan.variants)
    assert cap_assay(scan, 10**6) is scan
    rows = [scan.variants.index(variant) for variant in large.variants]
    assert rows == sorted(rows)
    np.testing.assert_array_equal(large.scores, scan.scores[rows])
    with pytest.raises(DataError, match="leaves no variant"):
        cap_assay(scan, 0)


def test_listed_assays_are_read_with_the_lower_cap_and_by_role(tmp_path, scan):
    other = read_data_dir(ids=["GB1_OLSON2014_on_D36G"])[0]
    path = listing(tmp_path / "mine.csv", (other, {"role": "b role"}), (scan, {}))
    for cap, lengths in ((None, [30, 30]), (12, [12, 12]), (99, [30, 30])):
        assert [len(assay) for assay in read_listed("demo", path, cap=cap)] == lengths
    assert [assay.id for assay in read_listed("demo", path)] == [scan.id, other.id]
    assert [assay.id for assay in read_listed("demo", path, roles=["b role"])] == [other.id]


def test_bad_lists_and_those_that_were_made_for_other_data_are_refused(tmp_path, scan):
    for change in ({"variants": 7}, {"property": "stability"}, {"length": 9}):
        with pytest.raises(DataError, match=f"{SCAN} has .*the list says"):
            read_listed("demo", listing(tmp_path / "other.csv", (scan, change)))
    path = listing(tmp_path / "bad.csv", (scan, {"variants": "many"}))
    with refused("'many' is not a number", path, 2, "variants"):
        read_list(path)
    with pytest.raises(
        DataError, match="no list of assays 'loud'; name arms, benchmark, sound, or a csv"
    ):
        read_list("loud")
