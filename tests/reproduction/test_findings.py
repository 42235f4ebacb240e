import pytest
from release_copy import WILD, backwards, write_table

from mutmeta_lib.reproduction.findings import (
    concentration,
    directions,
    one_sequence_many_sources,
    overview,
    shared,
    text_fates,
    wild_types,
)
from mutmeta_lib.reproduction.release import read_release

OTHER = "GGGGGCCCCC"


@pytest.fixture
def files(tmp_path):
    domain = [(*backwards(p, "W"), 0.1 * p, "domain", "deltag_t") for p in range(1, 8)]
    literature = [
        (WILD, ["K2R"], 1.0, "fireprot", "ddG"),
        (OTHER, ["G1A"], -1.0, "fireprot", "ddG"),
        (OTHER, ["G1C", "G2C"], 3.0, "fireprot", "ddG"),
    ]
    write_table(tmp_path, "combined_ddG_train", [*domain[:4], *literature[:2]], "ddG")
    write_table(tmp_path, "combined_ddG_test", [*domain[4:], literature[2]], "ddG")
    clash = [(OTHER, ["G1A"], 0.5, source, "score") for source in ("one", "two")]
    write_table(tmp_path, "stability_proxy_raw", clash, "stability_proxy")
    return read_release(tmp_path)


def test_overview_counts(files):
    table = overview(files).set_index("table")
    assert table.loc["combined_ddG_train", ["rows", "sources", "sequences"]].tolist() == [6, 2, 6]
    assert table.loc["combined_ddG_test", "several_mutations"] == 1
    assert table.loc["combined_ddG_test", "max"] == 3


def test_backwards_rows_are_told_from_rows_that_state_the_wild_type(files):
    table = directions(files).set_index(["table", "source"])
    domain = table.loc[("combined_ddG_train", "domain")]
    assert domain[["rows", "agree", "stated", "undone"]].tolist() == [4, 4, 4, 1]
    assert domain["backwards"]
    assert not table.loc[("combined_ddG_train", "fireprot"), "backwards"]
    assert not table.loc[("stability_proxy_raw", "one"), "backwards"]


def test_wild_types_are_restored_for_backwards_rows_only(files):
    found = directions(files)
    assert wild_types(files["combined_ddG_train"], found) == [WILD] * 5 + [OTHER]
    assert wild_types(files["combined_ddG_test"], found) == [WILD] * 3 + [OTHER]


def test_shared_counts_wild_types_sites_and_rows(files):
    (row,) = shared(files, directions(files)).to_dict("records")
    assert row == {
        "data set": "combined_ddG",
        "test_rows": 4,
        "sources": 2,
        "sources_in_train": 2,
        "wild_types": 2,
        "wild_types_in_train": 2,
        "wild_type_rows": 4,
        "site_rows": 0,
        "same_rows": 0,
    }


def test_a_repeated_row_is_the_same_row(tmp_path):
    row = (WILD, ["K2R"], 1.0, "s", "f")
    write_table(tmp_path, "fireprot_dTm_train", [row], "dTm")
    write_table(tmp_path, "fireprot_dTm_test", [row, (WILD, ["K2L"], 2.0, "s", "f")], "dTm")
    files = read_release(tmp_path)
    (found,) = shared(files, directions(files)).to_dict("records")
    assert (found["same_rows"], found["site_rows"]) == (1, 2)


def test_a_sequence_of_two_sources_is_found_and_collections_left_aside(files):
    table = one_sequence_many_sources(files, directions(files))
    assert table["source"].tolist() == ["one", "two"]
    assert set(table["starts"]) == {OTHER}
    assert set(table["length"]) == {len(OTHER)}


def test_concentration_sorts_sequences_by_rows(files):
    table = concentration(files["combined_ddG_test"])
    assert table["rows"].sum() == 4
    assert table["share"].sum() == pytest.approx(1)
    assert table["rows"].is_monotonic_decreasing
    assert table["max"].max() == 3


def test_text_fates_count_every_mutation_once(files):
    table = text_fates(files)
    assert len(table) == 2 * len(files)
    mutations = {id: sum(map(len, file.mutations)) for id, file in files.items()}
    fates = ["in place", "astray", "skipped", "as words", "not read"]
    assert (table[fates].sum(axis=1) == table["table"].map(mutations)).all()
    spaced = table[table["form"] == "spaced"].set_index("table")
    assert spaced.loc["combined_ddG_test", ["in place", "skipped"]].tolist() == [4, 1]
