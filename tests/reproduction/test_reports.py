"""Tables of the chapters: every study's report, from small runs, against sums by hand."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mutmeta_lib.data.splits import Split
from mutmeta_lib.reproduction import reports
from mutmeta_lib.study.case import Where
from mutmeta_lib.study.estimates import named
from mutmeta_lib.study.run import average_seeds, run
from mutmeta_lib.study.study import Case, Study, grid

WHERE = ("regime", "group", "method", "shots")
SMALL = Study(
    per_protein=1, cap=60, n_folds=3, seeds=2, shots=(0, 10), meta_steps=1, tasks_per_step=1,
    support=4, query=4, inner_steps=1, adapt_steps=2,
    methods=("maml", "maml_1", "finetune", "ridge", "blosum"), by_error=("maml", "finetune"),
)  # fmt: skip


@pytest.fixture(scope="module")
def found():
    related = replace(SMALL, regime="related", methods=("maml",), by_error=("maml",))
    return run(SMALL, related)


@pytest.fixture(scope="module")
def tables(found):
    return reports.transfer(found)


def at(rows, **where):
    for column, value in where.items():
        rows = rows[rows[column] == value]
    return rows


def test_means_and_differences_are_those_of_the_rows(found, tables):
    rows = at(found.rows, regime="proteins", shots=10)
    means = rows.groupby(["method", "assay"])["spearman"].mean()
    row = at(tables["summary"], regime="proteins", group="all", method="maml", shots=10,
             metric="spearman").iloc[0]  # fmt: skip
    assert row["mean"] == pytest.approx(means["maml"].mean())
    row = at(tables["differences"], regime="proteins", group="all", baseline="ridge", shots=10)
    assert row["mean"].item() == pytest.approx((means["maml"] - means["ridge"]).mean())
    assert not tables["summary"]["method"].str.endswith("_mse").any()


@pytest.mark.parametrize(("rates", "suffix"), [("error", "_mse"), ("ranks", "")])
def test_gains_take_the_rates_that_were_chosen_for_error(found, tables, rates, suffix):
    rows = at(found.rows, regime="proteins", shots=10)
    logs = np.log(rows.groupby(["assay", "method"])["mse"].mean().unstack())
    gains = at(tables["gains"], rates=rates, metric="mse", regime="proteins", group="all")
    for rival, theirs in (("finetune", f"finetune{suffix}"), ("ridge", "ridge")):
        saved = 1 - np.exp((logs[f"maml{suffix}"] - logs[theirs]).mean())
        assert at(gains, baseline=rival)["mean"].item() == pytest.approx(saved)


def test_values_from_the_literature_are_in_no_mean_but_their_own(found):
    named = {"role": {"solubility": reports.LITERATURE[0]}}
    rows, assays = (table.replace(named) for table in (found.rows, found.assays))
    made = reports.transfer(replace(found, rows=rows, assays=assays))
    kept = at(found.rows, regime="proteins").query("role != 'solubility'")["assay"].nunique()
    assert 0 < kept < found.rows["assay"].nunique()
    assert made["rapid"]["n_assays"].max() == kept
    assert at(made["summary"], group="all")["n_assays"].max() == kept
    assert reports.LITERATURE[0] in set(made["differences"]["group"])


def test_a_record_keeps_chosen_rates_and_what_rows_are_called(found, tables):
    assert (tables["choices"]["chosen"] != "").all()
    assert len(tables["choices"]) < len(found.choices)
    assert len(tables["results"]) == len(average_seeds(found.rows))
    path = ("proteins", "all", "maml", 10)
    row = at(tables["summary"], metric="spearman", **dict(zip(WHERE, path, strict=True)))
    assert reports.NAMES["transfer"]["summary"].format(**row.iloc[0]) == "proteins_all_maml_10"
    for name, template in reports.NAMES["transfer"].items():
        rows = tables[name]
        if "metric" in rows and "{metric}" not in template:
            rows = at(rows, metric="spearman")
        assert len(named(rows, template)) == len(rows), "no two rows have one name"


def test_related_assays_are_compared_on_the_draws_that_both_have(found, tables):
    ten = at(found.rows, method="maml", shots=10).set_index(["assay", "seed"])
    seen, apart = (at(ten, regime=name)["spearman"] for name in ("related", "proteins"))
    lead = (seen - apart.reindex(seen.index)).groupby("assay").mean().mean()
    assert at(tables["related"], method="maml")["mean"].item() == pytest.approx(lead)


def test_one_step_is_set_against_all_and_none(found, tables):
    rows = at(found.rows, regime="proteins")
    ten = at(rows, shots=10).groupby(["method", "assay"])["spearman"].mean()
    none = at(rows, shots=0, method="maml").groupby("assay")["spearman"].mean()
    rapid = tables["rapid"].set_index("what")["mean"]
    assert rapid["maml_1 minus no label"] == pytest.approx((ten["maml_1"] - none).mean())
    assert rapid["share"] == pytest.approx(ten["maml_1"].sum() / ten["maml"].sum())


def test_failures_name_the_best_rival_and_signatures_are_rank_correlations(found, tables):
    table = tables["failures"]
    best = table[["ridge", "blosum", "maml_0"]].max(axis=1)
    assert (table["behind"] == best - table["maml"]).all()
    assert table["identity"].between(0, 1).all()
    sign = at(tables["signatures"], rival="ridge", sign="length").iloc[0]
    lead = (table["maml"] - table["ridge"]).rank()
    assert sign["mean"] == pytest.approx(np.corrcoef(lead, table["length"].rank())[0, 1])


BASE = replace(SMALL, methods=("fomaml", "finetune"), by_error=("fomaml", "finetune"), seeds=1)
RIDGE = replace(BASE, methods=("ridge",), by_error=())


def test_the_first_encoding_is_set_against_the_other():
    found = run(replace(BASE, reads=grid(encoding=["separator", "mutant"])))
    ten = at(found.rows, shots=10, method="finetune").groupby("encoding")["spearman"].mean()
    row = at(reports.by_encoding(found)["differences"], group="all", method="finetune")
    assert row["mean"].item() == pytest.approx(ten["separator"] - ten["mutant"])
    assert reports.by_encoding(found)["leads"].empty, "there is no maml"
    rows = found.rows.replace({"method": {"fomaml": "maml"}})
    made = reports.by_encoding(replace(found, rows=rows))["leads"]
    ten = at(rows, shots=10, encoding="mutant").groupby("method")["spearman"].mean()
    row = at(made, group="all", encoding="mutant", baseline="finetune")
    assert row["mean"].item() == pytest.approx(ten["maml"] - ten["finetune"])


def test_meta_training_is_counted_over_the_splits(found, tables):
    (row,) = at(tables["trained_on"], regime="proteins").to_dict("records")
    sizes = [len(case.split.train) for case in found.cases if case.regime == "proteins"]
    assert (row["low"], row["high"], row["splits"]) == (min(sizes), max(sizes), len(sizes))
    cases = [Case("properties", "fitness", s, Split(("a",) * s, (), ("b",))) for s in (3, 5, 9)]
    (row,) = reports.trained_on(replace(found, cases=cases)).to_dict("records")
    assert (row["tested"], row["mean"], row["low"], row["high"]) == ("fitness", 5, 3, 9)


def test_controls_stand_beside_every_depth():
    made = reports.by_depth(run(replace(BASE, reads=grid(depth=["head", "raw head"])), RIDGE))
    assert set(at(made["summary"], method="ridge")["depth"]) == {"head", "raw head"}
    assert {"fomaml", "raw head"} <= set(made["differences"]["a"])
    assert set(made["gains"]["baseline"]) == {"finetune"}


def test_a_swap_loses_against_the_same_encoder():
    around = replace(RIDGE, regime="around", test_ids=("GB1_NISTHAL2019_on_WT",),
                     reads=grid(swap=["same", "noise 0.3"]))  # fmt: skip
    made = reports.swapped(around, Where(), run(around))
    wide = at(made["summary"], what="spearman", shots=10).set_index("swap")["mean"]
    lost = at(made["summary"], what="lost", shots=10)["mean"].item()
    assert lost == pytest.approx(wide["same"] - wide["noise 0.3"])
    assert made["moved"]["moved"].between(0.01, 3).all()


def test_held_out_differences_and_errors_favour_the_separator_where_positive():
    reads = grid(encoding=["mutant", "separator"])
    first = Study(per_protein=1, cap=80, seeds=1, regime="variants", reads=reads)
    first = replace(first, methods=("ridge",))
    held = run(first, replace(first, regime="sites"))
    made = reports.held_out(first, Where(), held)
    means = held.rows.groupby(["regime", "encoding"])["spearman"].mean()["sites"]
    (row,) = at(made["differences"], hold_out="sites", property="all").to_dict("records")
    lead = means["separator"] - means["mutant"]
    assert (row["encoding"], row["mean"]) == ("mutant", pytest.approx(lead))
    errors = at(reports.typed_errors(first, Where(), held.assays), type="all", hold_out="sites")
    errors = errors.groupby("encoding")["error"].mean()
    saved = at(made["types"], type="all", hold_out="sites")["mean"].item()
    assert saved == pytest.approx(errors["mutant"] - errors["separator"])


def test_scans_are_the_unit_where_a_chapter_says_so(found):
    own = replace(found, rows=at(found.rows, regime="proteins"))
    made = reports.by_scan(own)["differences"]
    assert (made["n_units"] == made["n_assays"]).all()
    assert pd.unique(made["method"]).tolist() == ["maml"]
