"""The audit's counts, which stand in chapter 7, on a miniature whose findings are known; and errors
over a few rows."""

import ast
from dataclasses import replace

import jupytext
import numpy as np
import pandas as pd
import pytest
from release_copy import ROOT, WILD, backwards, write_table
from toy import toy_assay

from mutmeta_lib.data.variants import parse_variant
from mutmeta_lib.records.record import read_record
from mutmeta_lib.reproduction import query_draws
from mutmeta_lib.reproduction.released import described, read_release

CLASH, LETTERS = "GGGGGCCCCC", "ACDEFGHI"
TRAIN, DTM = {"table": "combined_ddG_train"}, {"table": "fireprot_dTm_test"}
FIRE, TRYPSIN = "ΔΔG (FireProtDB)", "trypsin ΔG (Tsuboyama 2023)"
RAW, SOLUBILITY = "stability_proxy_raw", "soluprotmut_solubility_test"
COUNTERS = ("texts", "directions", "agreement", "clashes", "reference", "shared", "proline",
            "scaling", "labels", "errors", "queries")  # fmt: skip


@pytest.fixture(scope="module")
def page():
    """The imports, functions and constants of chapter 7's cells, none of which was run."""
    cells = jupytext.read(ROOT / "notebooks/07_audit.md").cells
    code = ast.parse("\n".join(cell.source for cell in cells if cell.cell_type == "code"))
    kept = (ast.Import, ast.ImportFrom, ast.FunctionDef)
    constants = [n for n in code.body if isinstance(n, ast.Assign)
                 and ast.unparse(n.targets[0]) in ("fitted", "row", "kinds")]  # fmt: skip
    code.body = [node for node in code.body if isinstance(node, kept) or node in constants]
    exec(compile(code, "07_audit", "exec"), names := {"draws": 3, "seed": 0})
    return names


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Two sources of the initial fit: `domain` backwards, `fireprot` a collection; and others."""
    folder = tmp_path_factory.mktemp("copy")
    domain = [(*backwards(p, "P" if p < 3 else "W"), -2.0 + p, "domain", "deltag_t")
              for p in range(1, 9)]  # fmt: skip
    literature = [(WILD, [f"K2{a}"], i - 3.5, "fireprot", "ddG") for i, a in enumerate(LETTERS)]
    literature += [(CLASH, ["G1P"], 9.0, "fireprot", "ddG"), (CLASH, ["G2G"], 50.0, "s", "ddG")]
    write_table(folder, "combined_ddG_train", [*domain[:6], *literature[:7]])
    write_table(folder, "combined_ddG_test", [*domain[6:], *literature[6:]])
    clash = [(CLASH, ["G1A"], 0.5, source, "score") for source in ("one", "two", "two")]
    write_table(folder, RAW, [*clash, (domain[2][0], ["M1A"], 0.5, "three", "score")])
    melting = [(WILD, [f"K2{a}"], 3.5 - i, "fireprot", "dTm") for i, a in enumerate(LETTERS)]
    write_table(folder, "fireprot_dTm_test", [*melting, (WILD, ["K2Y"], 9.0, "fireprot", "dTm")])
    several = (WILD, ["M1L", "A4G"], 24.0, "soluprotmut", "s")
    tail = [(WILD, [f"T3{a}"], 0.1 * i, "soluprotmut", "s") for i, a in enumerate(LETTERS)]
    write_table(folder, SOLUBILITY, [*tail, several])
    return described(read_release(folder)[0])


@pytest.fixture(scope="module")
def counted(page, rows):
    """The miniature's counts by name, beside a sound assay whose scores fall as labels rise."""
    variants = tuple(parse_variant(f"{WILD[p - 1]}{p}W") for p in range(3, 9))
    sound = replace(toy_assay(0, name="domain", n=6), wild_type=WILD, variants=variants)
    labels = np.random.default_rng(0).standard_normal(128)
    page |= {"sound": [replace(sound, scores=-np.arange(3.0, 9))], "targets": ["t"]}
    page["rows"] = pd.DataFrame({"table": "t", "label": labels})
    return {name: page[name](rows) for name in COUNTERS}


@pytest.mark.parametrize("name", COUNTERS)
def test_a_count_has_the_columns_of_the_record_that_pages_quote(counted, name):
    committed = read_record(ROOT / "book/records/full/audit.json").table(name)
    assert len(counted[name])
    assert set(counted[name]) <= set(committed)


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
        ("texts", {"table": SOLUBILITY}, {"rows": 9, "in place": 9, "skipped": 1, "astray": 0}),
        ("reference", TRAIN | {"source": "domain"},
         {"rows": 6, "assay_variants": 6, "forwards": 0, "backwards": 4, "wild_type": True,
          "spearman": -1}),
        # A new residue is the first letter of a row that is written backwards.
        ("proline", {"kind": TRYPSIN, "group": "to proline"}, {"rows": 2, "mean": -0.5}),
        ("proline", {"kind": TRYPSIN, "group": "to another residue"}, {"rows": 6, "mean": 3.5}),
        ("proline", {"kind": FIRE, "group": "to proline"}, {"rows": 1, "mean": 9}),
        ("proline", {"kind": FIRE, "group": "to another residue"}, {"rows": 9, "mean": 2.5 / 9}),
    ],
)  # fmt: skip
def test_what_the_files_hold(counted, table, where, told):
    found = counted[table]
    for column, value in where.items():
        found = found[found[column] == value]
    (row,) = found.to_dict("records")
    assert {name: row[name] for name in told} == pytest.approx(told)


def test_a_sequence_of_two_sources_is_found_and_collections_left_aside(counted):
    found = counted["clashes"].set_index(["source", "table"])
    fitted = {("s", "combined_ddG_test"): 1, ("domain", "combined_ddG_train"): 1}
    assert found["rows"].to_dict() == fitted | {("one", RAW): 1, ("two", RAW): 2, ("three", RAW): 1}
    assert set(found["starts"]) == {CLASH, backwards(3, "W")[0]}


@pytest.mark.parametrize("together", [True, False])
def test_scaling_tells_labels_scaled_together_per_source_from_others(page, tmp_path, together):
    raw = pd.Series([1.0, 4.0, 2.0, 9.0, 5.0, 7.0, 1.0])
    source = pd.Series(list("aaaabba"))
    # The last row is in neither part and must not enter the standardisation.
    kept = raw[:6].groupby(source[:6] if together else [0] * 6)
    labels = kept.transform(lambda own: (own - own.mean()) / own.std(ddof=0))
    rows = [(WILD, [f"K2{x}"], y, s, "f") for x, y, s in zip("ACDEFGH", raw, source, strict=True)]
    parts = [(*r[:2], y, *r[3:]) for r, y in zip(rows, labels, strict=False)]
    write_table(tmp_path, "fireprot_dTm_train", parts[::2])
    write_table(tmp_path, "fireprot_dTm_test", parts[1::2])
    assert np.isnan(page["scaling"](described(read_release(tmp_path)[0]))["from_raw"].item())
    write_table(tmp_path, "fireprot_dTm_raw", rows)
    found = page["scaling"](described(read_release(tmp_path)[0])).iloc[0]
    assert found["dropped"] == 1
    assert ((found[["mean", "sd_off", "from_raw"]] < 1e-12) == together).all()


def test_draws_are_without_replacement_and_shared_and_skill_is_as_asked():
    squared = np.stack([np.arange(10.0), 2 * np.arange(10.0)])
    (a, b), rows = query_draws.draw_errors(squared, 4, 50, np.random.default_rng(0))
    assert all(len(set(drawn)) == 4 for drawn in rows.tolist())
    assert a == pytest.approx(squared[0][rows].mean(axis=1))
    assert b == pytest.approx(2 * a)
    labels = np.random.default_rng(1).standard_normal(20_000)
    predicted = query_draws.skilled(labels, 0.6, np.random.default_rng(2))
    found = np.corrcoef(labels, predicted)[0, 1], np.mean((labels - predicted) ** 2) / labels.var()
    assert found == pytest.approx((0.6, 1 - 0.36), abs=0.02)


def test_a_tail_makes_few_rows_look_too_good_and_even_labels_do_not():
    even = np.random.default_rng(0).standard_normal(400)
    tail = np.where(np.arange(400) == 7, 20.0, 0.2 * even)
    how = {"sizes": (16, 400), "draws": 4000, "correlation": 0.5, "seed": 0}
    (few, every), (tailed, _) = (
        query_draws.query_error_table(labels, **how).to_dict("records") for labels in (even, tail)
    )
    assert (every["q50"], every["worse_same"]) == (pytest.approx(1), 0), "all rows are the truth"
    assert (tailed["q50"] < 0.1, tailed["over_50"] > 0.9) == (True, True)
    assert (few["q50"], few["over_94"]) == (pytest.approx(1, abs=0.1), 0)
    assert few["worse_whole"] < 0.5 < tailed["worse_whole"]
    assert few["worse_same"] < few["worse_apart"]
    assert tailed["has_largest"] == pytest.approx(16 / 400, abs=0.01)
    errors = query_draws.error_histogram(tail, size=16, draws=300, seed=0)
    assert errors["share"].sum() == pytest.approx(1)
    assert errors.loc[errors["high"] <= 1, "share"].sum() > 0.9
    counted = query_draws.label_histogram(tail)
    assert (counted["rows"].sum(), *counted[["low", "high"]].iloc[-1]) == (400, 20.0, 20.5)
