"""Lists of assays: what is listed is what is read, and the cap is one draw for good."""

import numpy as np
import pytest

from mutmeta_lib.data.assays import demo_dir, read_demo
from mutmeta_lib.data.selections import SELECTIONS, cap_assay, load_selection, read_selection
from mutmeta_lib.errors import DataError

SCAN = "GB1_OLSON2014_on_A23P"


def write(path, rows, header="id,property,role,variants,length,cap"):
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def scan():
    return read_demo(ids=[SCAN])[0]


@pytest.fixture
def listed(tmp_path, scan):
    row = f"{SCAN},fitness,a role,{len(scan)},{len(scan.wild_type)},30"
    return write(tmp_path / "mine.csv", [row])


def test_the_bundled_list_holds_ids_and_counts_alone():
    header = (SELECTIONS / "sound.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header == "id,property,role,variants,length,cap"
    table = read_selection("sound")
    assert table["id"].is_unique
    assert (table["length"] <= 500).all()
    assert (table["variants"] >= 20).all()
    assert table.groupby("role")["property"].nunique().eq(1).all()


def test_the_cap_is_the_same_draw_every_time_and_caps_are_nested(scan):
    small, large = cap_assay(scan, 20), cap_assay(scan, 50)
    assert cap_assay(scan, 20).variants == small.variants
    assert len(small) == 20
    assert set(small.variants) < set(large.variants) < set(scan.variants)
    assert small.variants != cap_assay(scan, 20, seed=1).variants
    assert cap_assay(scan, 10**6) is scan


def test_capped_variants_keep_their_scores_and_order(scan):
    capped = cap_assay(scan, 40)
    place = {variant: row for row, variant in enumerate(scan.variants)}
    rows = [place[variant] for variant in capped.variants]
    assert rows == sorted(rows)
    np.testing.assert_array_equal(capped.scores, scan.scores[rows])


def test_a_cap_below_one_is_refused(scan):
    with pytest.raises(DataError, match="leaves no variant"):
        cap_assay(scan, 0)


def test_the_lower_cap_counts(listed):
    assert [len(assay) for assay in load_selection(demo_dir(), listed)] == [30]
    assert [len(assay) for assay in load_selection(demo_dir(), listed, cap=12)] == [12]
    assert [len(assay) for assay in load_selection(demo_dir(), listed, cap=99)] == [30]


def test_a_flipped_assay_has_the_other_sign(listed):
    (plain,) = load_selection(demo_dir(), listed)
    (flipped,) = load_selection(demo_dir(), listed, flip=[SCAN])
    assert flipped.variants == plain.variants
    np.testing.assert_array_equal(flipped.scores, -plain.scores)
    assert "flipped" in flipped.sign
    with pytest.raises(DataError, match="is to be flipped, but is not listed"):
        load_selection(demo_dir(), listed, flip=["elsewhere"])


def test_roles_select(listed):
    assert len(load_selection(demo_dir(), listed, roles=["a role"])) == 1
    with pytest.raises(DataError, match="no listed assay has the role 'another'"):
        load_selection(demo_dir(), listed, roles=["another"])


def test_data_that_the_list_was_not_made_for_are_refused(tmp_path, scan):
    length = len(scan.wild_type)
    for row in (
        f"{SCAN},fitness,a role,7,{length},30",
        f"{SCAN},stability,a role,{len(scan)},{length},30",
        f"{SCAN},fitness,a role,{len(scan)},9,30",
    ):
        with pytest.raises(DataError, match="the list says"):
            load_selection(demo_dir(), write(tmp_path / "other.csv", [row]))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a,charm,r,20,50,10", "'charm' is not a property"),
        ("a,fitness,r,20,50,0", "the cap leaves no variant"),
        ("a,fitness,r,many,50,10", "row 2"),
    ],
)
def test_a_list_that_is_not_valid_is_refused(tmp_path, row, message):
    with pytest.raises(DataError, match=message):
        read_selection(write(tmp_path / "bad.csv", [row]))


def test_an_assay_listed_twice_is_refused(tmp_path):
    row = "a,fitness,r,20,50,10"
    with pytest.raises(DataError, match="row 3, column 'id': 'a' is listed twice"):
        read_selection(write(tmp_path / "twice.csv", [row, row]))


def test_an_unknown_list_is_refused():
    with pytest.raises(DataError, match="there is no list of assays 'loud'"):
        read_selection("loud")
