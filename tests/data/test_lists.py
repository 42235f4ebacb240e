"""Lists of assays: what is listed is what is read, and the cap is one draw for good."""

import numpy as np
import pytest

from mutmeta_lib.data.folders import LISTS, cap_assay, read_data_dir, read_list, read_listed
from mutmeta_lib.errors import DataError

SCAN = "GB1_OLSON2014_on_A23P"
HEADER = "id,property,role,variants,length,cap"


def write(path, *rows):
    path.write_text("\n".join([HEADER, *rows]) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def scan():
    return read_data_dir(ids=[SCAN])[0]


def row(assay, **changes):
    cells = {"property": "fitness", "role": "a role", "variants": len(assay)}
    cells |= {"length": len(assay.wild_type), "cap": 30}
    return ",".join(map(str, [assay.id, *(cells | changes).values()]))


def test_the_bundled_list_holds_ids_and_counts_alone():
    text = (LISTS / "sound.csv").read_text(encoding="utf-8")
    assert text.splitlines()[0] == HEADER
    table = read_list("sound")
    assert table["id"].is_unique
    assert (table["length"] <= 500).all()
    assert (table["variants"] >= 20).all()
    assert table.groupby("role")["property"].nunique().eq(1).all()


def test_the_cap_is_one_draw_for_good_and_caps_are_nested(scan):
    small, large = cap_assay(scan, 20), cap_assay(scan, 50)
    assert [str(v[0]) for v in cap_assay(scan, 3).variants] == ["Q32H", "T44L", "K50M"]
    assert len(small) == 20
    assert set(small.variants) < set(large.variants) < set(scan.variants)
    assert cap_assay(scan, 10**6) is scan
    place = {variant: i for i, variant in enumerate(scan.variants)}
    rows = [place[variant] for variant in large.variants]
    assert rows == sorted(rows)
    np.testing.assert_array_equal(large.scores, scan.scores[rows])
    with pytest.raises(DataError, match="leaves no variant"):
        cap_assay(scan, 0)


def test_listed_assays_are_read_with_the_lower_cap_and_by_role(tmp_path, scan):
    other = read_data_dir(ids=["GB1_OLSON2014_on_D36G"])[0]
    path = write(tmp_path / "mine.csv", row(other, role="b role"), row(scan))
    for cap, lengths in ((None, [30, 30]), (12, [12, 12]), (99, [30, 30])):
        assert [len(assay) for assay in read_listed("demo", path, cap=cap)] == lengths
    assert [assay.id for assay in read_listed("demo", path)] == [scan.id, other.id]
    assert [assay.id for assay in read_listed("demo", path, roles=["b role"])] == [other.id]
    with pytest.raises(DataError, match="no listed assay has the role 'c role'; use one of"):
        read_listed("demo", path, roles=["c role"])


@pytest.mark.parametrize("change", [{"variants": 7}, {"property": "stability"}, {"length": 9}])
def test_data_that_the_list_was_not_made_for_are_refused(tmp_path, scan, change):
    path = write(tmp_path / "other.csv", row(scan, **change))
    with pytest.raises(DataError, match=f"{SCAN} has .*the list says"):
        read_listed("demo", path)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (["a,charm,r,20,50,10"], "row 2, column 'property': 'charm' is not a property"),
        (["a,fitness,r,20,50,0"], "row 2, column 'cap': the cap leaves no variant"),
        (["a,fitness,r,many,50,10"], "row 2, column 'variants'"),
        (["a,fitness,r,20,50,10"] * 2, "row 3, column 'id': 'a' is listed twice"),
    ],
)
def test_a_list_that_is_not_valid_is_refused(tmp_path, rows, says):
    with pytest.raises(DataError, match=says):
        read_list(write(tmp_path / "bad.csv", *rows))


def test_an_unknown_list_is_refused():
    with pytest.raises(DataError, match="no list of assays 'loud'; name pairs, sound, or a csv"):
        read_list("loud")
