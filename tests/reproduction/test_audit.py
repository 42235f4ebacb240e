"""The counts of the audit on a miniature whose findings are known, and errors over a few rows."""

import numpy as np
import pandas as pd
import pytest
from release_copy import WILD, backwards, named_on_pages, write_table

from mutmeta_lib.records.record import read_record, write_record
from mutmeta_lib.reproduction import counts
from mutmeta_lib.reproduction.audit import audit_experiment
from mutmeta_lib.reproduction.query_draws import (
    draw_errors,
    error_histogram,
    label_histogram,
    query_error_table,
    skilled,
)
from mutmeta_lib.reproduction.released import LISTED, read_release

CLASH, LETTERS = "GGGGGCCCCC", "ACDEFGHI"
TARGETS = ("fireprot_dTm_test", "soluprotmut_solubility_test")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two sources of the initial fit: `domain` backwards, `fireprot` a collection; and others."""
    folder = tmp_path_factory.mktemp("given") / "copy"
    domain = [(*backwards(p, "P" if p < 3 else "W"), -2.0 + p, "domain", "deltag_t")
              for p in range(1, 9)]  # fmt: skip
    literature = [(WILD, [f"K2{a}"], i - 3.5, "fireprot", "ddG") for i, a in enumerate(LETTERS)]
    literature += [(CLASH, ["G1P"], 9.0, "fireprot", "ddG"), (CLASH, ["G2G"], 50.0, "s", "ddG")]
    write_table(folder, "combined_ddG_train", [*domain[:6], *literature[:7]])
    write_table(folder, "combined_ddG_test", [*domain[6:], *literature[6:]])
    clash = [(CLASH, ["G1A"], 0.5, source, "score") for source in ("one", "two", "two")]
    clash.append((domain[2][0], ["M1A"], 0.5, "three", "score"))
    write_table(folder, "stability_proxy_raw", clash)
    melting = [(WILD, [f"K2{a}"], 3.5 - i, "fireprot", "dTm") for i, a in enumerate(LETTERS)]
    write_table(folder, "fireprot_dTm_test", [*melting, (WILD, ["K2Y"], 9.0, "fireprot", "dTm")])
    tail = [(WILD, [f"T3{a}"], 0.1 * i, "soluprotmut", "s") for i, a in enumerate(LETTERS)]
    tail.append((WILD, ["M1L", "A4G"], 24.0, "soluprotmut", "s"))
    write_table(folder, "soluprotmut_solubility_test", tail)
    return folder


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """A sound assay of the domain, whose scores fall where the copy's labels rise."""
    sound = tmp_path_factory.mktemp("sound")
    (sound / "stability").mkdir()
    (sound / "MANIFEST.csv").write_text(
        "id,property,protein,target_seq,n_proteins,score_units,sign,doi\n"
        f"domain,stability,D,{WILD},1,kcal/mol,higher = better,\n"
    )
    rows = "".join(f"{WILD[p - 1]}{p}W,{-p}\n" for p in range(3, 9))
    (sound / "stability" / "domain.csv").write_text("mutant,score\n" + rows)
    return sound


@pytest.fixture(scope="module")
def record(folder, reference):
    asked = {"release_dir": str(folder), "reference_dir": str(reference)}
    return audit_experiment(**asked, targets=TARGETS, sizes=[2, 4], draws=200)


def test_a_record_says_what_was_read_and_what_was_missing(folder, record, tmp_path):
    _, hashes = read_release(folder)
    assert set(record.data) == {*hashes, "domain"}
    assert set(record.table("missing")["table"]) == set(LISTED) - set(hashes)
    assert record.parameters["release_dir"] == "copy"
    write_record(record, tmp_path / "audit.json")
    assert read_record(tmp_path / "audit.json") == record


TRAIN, DTM = {"table": "combined_ddG_train"}, {"table": "fireprot_dTm_test"}
RAW = "stability_proxy_raw"


@pytest.mark.parametrize(
    ("table", "where", "told"),
    [
        ("directions", TRAIN | {"source": "domain"},
         {"rows": 6, "agree": 6, "stated": 6, "undone": 1, "backwards": True}),
        ("directions", TRAIN | {"source": "fireprot"},
         {"rows": 7, "agree": 7, "stated": 1, "undone": 7, "backwards": False}),
        ("directions", {"table": RAW, "source": "two"}, {"backwards": False}),
        # Of six test rows two are of CLASH, no training protein; one repeats a row of training.
        ("shared", {"data set": "combined_ddG"},
         {"test_rows": 6, "wild_type_rows": 4, "site_rows": 2, "same_rows": 1}),
        ("agreement", DTM | {"source": "fireprot"}, {"rows": 8, "spearman": -1}),
        ("texts", {"table": TARGETS[1], "form": "spaced"}, {"in place": 9, "skipped": 1}),
        ("reference", TRAIN | {"source": "domain"},
         {"rows": 6, "assay_variants": 6, "forwards": 0, "backwards": 4, "wild_type": True,
          "spearman": -1}),
        # A new residue is the first letter of a row that is written backwards.
        ("proline", {"kind": counts.KINDS["deltag_t"], "group": "to proline"},
         {"rows": 2, "mean": -0.5}),
        ("proline", {"kind": counts.KINDS["deltag_t"], "group": "to another residue"},
         {"rows": 6, "mean": 3.5}),
        ("proline", {"kind": counts.KINDS["ddG"], "group": "to proline"}, {"rows": 1, "mean": 9}),
        ("proline", {"kind": counts.KINDS["ddG"], "group": "to another residue"},
         {"rows": 9, "mean": pytest.approx(2.5 / 9, abs=1e-4)}),
    ],
)  # fmt: skip
def test_what_the_files_hold(record, table, where, told):
    rows = record.table(table)
    for column, value in where.items():
        rows = rows[rows[column] == value]
    (row,) = rows.to_dict("records")
    assert {name: row[name] for name in told} == told


def test_a_sequence_of_two_sources_is_found_and_collections_left_aside(record):
    found = record.table("clashes").set_index(["source", "table"])
    fitted = {("s", "combined_ddG_test"): 1, ("domain", "combined_ddG_train"): 1}
    assert found["rows"].to_dict() == fitted | {("one", RAW): 1, ("two", RAW): 2, ("three", RAW): 1}
    assert set(found["starts"]) == {CLASH, backwards(3, "W")[0]}


def test_the_numbers_that_pages_name(record):
    labels = np.array([*(0.1 * i for i in range(8)), 24.0])
    off = (labels - labels.mean()) ** 2
    found = record.table("queries").set_index(["table", "query_rows"])["over_50"]
    assert set(found.index) == {(table, size) for table in TARGETS for size in (2, 4)}
    expected = {
        "combined_ddG_train_backwards": 6,
        "combined_ddG_wild_type_rows": 100 * 4 / 6,
        "clash_rows": 2,  # raw tables do not count
        "clash_sources": 2,
        "clash_length": 10,
        "fireprot_dTm_test_in_initial": 100 * 8 / 9,
        "fireprot_dTm_test_agreement": -1,
        "fireprot_dTm_test_as_words": 0,
        "reference_backwards_rows": 6,
        "domain_reference": -1,
        "soluprotmut_solubility_test_4_over_50": 100 * found[TARGETS[1], 4],
        "solubility_largest": 24,
        "solubility_far_rows": 1,
        "solubility_several": 1,
        "solubility_far_share": 100 * off[-1] / off.sum(),
        "solubility_largest_in_16": off.max() / 16,
        "solubility_top_three": 100,
        "solubility_variance": labels.var(),
        "solubility_middle_half": 0.4,
        "skilled_correlation": 0.5,
    }
    values = {name: record.numbers[name]["value"] for name in expected}
    assert values == pytest.approx(expected, abs=1e-3)
    assert f"{RAW}_backwards" not in record.numbers
    # The miniature has other data sets and sources than the pages.
    absent = ("binding_affinity", "fireprot_dTm_wild", "BLAT", "soluprotmut_solubility_test_16")
    named = {name for name in named_on_pages("audit") if not name.startswith(absent)}
    assert named - set(record.numbers) == set()


@pytest.mark.parametrize("together", [True, False])
def test_scaling_tells_labels_scaled_together_per_source_from_others(tmp_path, together):
    def scaled(values):
        return (np.array(values) - np.mean(values)) / np.std(values)

    raw, source = [1.0, 4.0, 2.0, 9.0, 5.0, 7.0, 1.0], list("aaaabba")
    # The last row is in neither part and must not enter the standardisation.
    labels = [*scaled(raw[:4]), *scaled(raw[4:6])] if together else scaled(raw[:6])
    rows = [(WILD, [f"K2{x}"], y, s, "f") for x, y, s in zip("ACDEFGH", raw, source, strict=True)]
    parts = [(*r[:2], y, *r[3:]) for r, y in zip(rows, labels, strict=False)]
    write_table(tmp_path, "fireprot_dTm_train", parts[::2])
    write_table(tmp_path, "fireprot_dTm_test", parts[1::2])
    unknown = counts.scaling(counts.described(read_release(tmp_path)[0])).iloc[0]
    write_table(tmp_path, "fireprot_dTm_raw", rows)
    found = counts.scaling(counts.described(read_release(tmp_path)[0])).iloc[0]
    assert found["dropped"] == 1
    for what in ("mean", "sd_off", "from_raw"):
        assert (found[what] < 1e-12) == together
    assert pd.isna(unknown["from_raw"])


def test_every_mutation_has_one_fate(folder, record):
    rows, _ = read_release(folder)
    mutations = rows["mutations"].map(len).groupby(rows["table"]).sum()
    texts = record.table("texts")
    fates = texts[["in place", "astray", "skipped", "as words", "not read"]].sum(axis=1)
    assert (fates == texts["table"].map(mutations)).all()


def test_the_same_seed_draws_the_same_rows(folder, record):
    asked = {"release_dir": str(folder), "targets": TARGETS, "sizes": [2, 4], "draws": 200}
    again, other = (audit_experiment(**asked, seed=seed) for seed in (0, 1))
    assert again.tables["queries"] == record.tables["queries"] != other.tables["queries"]


def tailed(n=400):
    labels = 0.2 * np.random.default_rng(0).standard_normal(n)
    labels[7] = 20.0
    return labels


def test_draws_are_without_replacement_and_shared_and_skill_is_as_asked():
    squared = np.stack([np.arange(10.0), 2 * np.arange(10.0)])
    (a, b), rows = draw_errors(squared, 4, 50, np.random.default_rng(0))
    assert all(len(set(drawn)) == 4 for drawn in rows.tolist())
    assert a == pytest.approx(squared[0][rows].mean(axis=1))
    assert b == pytest.approx(2 * a)
    with pytest.raises(ValueError, match="larger sample"):
        draw_errors(squared, 11, 1, np.random.default_rng(0))
    labels = np.random.default_rng(1).standard_normal(20_000)
    predicted = skilled(labels, 0.6, np.random.default_rng(2))
    assert np.corrcoef(labels, predicted)[0, 1] == pytest.approx(0.6, abs=0.02)
    assert np.mean((labels - predicted) ** 2) / labels.var() == pytest.approx(1 - 0.36, abs=0.02)


def test_a_tail_makes_few_rows_look_too_good_and_even_labels_do_not():
    def first(labels):
        how = {"draws": 4000, "correlation": 0.5, "seed": 0}
        table = query_error_table(labels, sizes=(16, len(labels)), **how)
        assert table["q50"][1] == pytest.approx(1), "all rows are the truth"
        assert table["worse_same"][1] == 0
        return table.iloc[0]

    with_tail, without = first(tailed()), first(np.random.default_rng(0).standard_normal(400))
    assert with_tail["q50"] < 0.1
    assert with_tail["over_50"] > 0.9
    assert without["q50"] == pytest.approx(1, abs=0.1)
    assert without["over_94"] == 0
    assert without["worse_whole"] < 0.5 < with_tail["worse_whole"]
    assert without["worse_same"] < without["worse_apart"]
    assert with_tail["has_largest"] == pytest.approx(16 / 400, abs=0.01)


def test_histograms_hold_every_draw_and_every_label():
    errors = error_histogram(tailed(), size=16, draws=300, seed=0)
    assert errors["share"].sum() == pytest.approx(1)
    assert (errors["low"][1:].to_numpy() == errors["high"][:-1].to_numpy()).all()
    assert errors.loc[errors["high"] <= 1, "share"].sum() > 0.9
    counted = label_histogram(tailed())
    assert counted["rows"].sum() == 400
    assert (counted["low"].iloc[-1], counted["high"].iloc[-1]) == (20.0, 20.5)
    assert (counted["rows"] > 0).all()
