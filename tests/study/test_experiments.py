"""Experiments from end to end on a little of the bundled data."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
from golden_studies import IDS

from mutmeta_lib.app.experiments import (
    EXPERIMENTS,
    encoding_experiment,
    few_shot_experiment,
    meta_training_experiment,
    timing_experiment,
)
from mutmeta_lib.data.assays import read_demo
from mutmeta_lib.data.splits import protein_folds
from mutmeta_lib.learn.algorithms import ALGORITHMS
from mutmeta_lib.records.record import read_record, result
from mutmeta_lib.study.encodings import hold_out_task
from mutmeta_lib.study.few_shot import ALL_METHODS
from mutmeta_lib.study.few_shot_run import RATES
from mutmeta_lib.study.setting import encode_fold, load_assays, make_predictor
from mutmeta_lib.study.timing import break_even
from mutmeta_lib.tasks.tasks import encode_assay

SMALL = {"ids": IDS, "meta_steps": 2, "tasks_per_step": 1, "support": 4, "query": 4}
FEW = {
    **SMALL,
    "seeds": 1,
    "shots": (0, 2, 5),
    "max_query": 12,
    "adapt_steps": 2,
    "inner_steps": 2,
    "first_order": True,
    "profile": "quick",
}
ONE_FOLD = {**FEW, "ids": IDS[::2], "folds": (0,)}
TIMES = ("seconds_adapt", "seconds_predict")


@pytest.fixture(scope="module")
def few_shot_record():
    return few_shot_experiment(**FEW)


@pytest.fixture(scope="module")
def one_fold_record():
    return few_shot_experiment(**ONE_FOLD)


def test_every_assay_is_tested_once_by_a_model_that_has_not_seen_its_protein(few_shot_record):
    results = few_shot_record.table("results")
    assert set(results["assay"]) == set(IDS)
    assert (results.groupby("assay")["fold"].nunique() == 1).all()
    assert (results.groupby("protein")["fold"].nunique() == 1).all()
    counts = results.groupby(["method", "assay", "shots"]).size()
    assert (counts == 1).all()


def test_named_numbers_are_the_tables_numbers(few_shot_record):
    results = few_shot_record.table("results")
    for method, shots in (("maml", 5), ("ridge", 2), ("blosum", 0)):
        cell = results[(results["method"] == method) & (results["shots"] == shots)]
        named = few_shot_record.numbers[f"{method}_{shots}_spearman"]
        assert named["value"] == pytest.approx(cell["spearman"].mean(), abs=2e-5)
        assert named["n"] == len(IDS)
        assert named["low"] <= named["value"] <= named["high"]
    pivot = results.pivot(index=["assay", "shots"], columns="method", values="spearman")
    difference = (pivot["maml"] - pivot["multitask"]).xs(5, level="shots").mean()
    named = few_shot_record.numbers["maml_minus_multitask_5_spearman"]
    assert named["value"] == pytest.approx(difference, abs=2e-5)


def test_errors_are_not_defined_without_a_scale(few_shot_record):
    results = few_shot_record.table("results")
    assert results.loc[results["shots"] == 0, "relative_mse"].isna().all()
    assert results.loc[results["shots"] == 5, "relative_mse"].notna().all()


def test_a_seeded_run_gives_the_same_bits_twice(one_fold_record):
    again = few_shot_experiment(**ONE_FOLD)
    assert again.hash == one_fold_record.hash
    for name in one_fold_record.tables:
        first, second = one_fold_record.table(name), again.table(name)
        drop = [column for column in (*TIMES, "seconds") if column in first]
        pd.testing.assert_frame_equal(
            first.drop(columns=drop), second.drop(columns=drop), check_exact=True
        )


def test_checkpoints_and_processes_change_nothing(one_fold_record, tmp_path):
    options = {**ONE_FOLD, "checkpoint_dir": str(tmp_path), "workers": 2}
    few_shot_experiment(**options)
    assert sorted(path.name for path in tmp_path.rglob("*.safetensors")) == [
        "maml.safetensors",
        "multitask.safetensors",
    ]
    again = few_shot_experiment(**options)  # from the finished checkpoints
    first, second = one_fold_record.table("results"), again.table("results")
    np.testing.assert_allclose(first["spearman"], second["spearman"], atol=1e-4)


def test_rates_are_chosen_on_validation_proteins_only(few_shot_record):
    choices = few_shot_record.table("choices")
    assert set(choices["method"]) == {"maml", "multitask", "finetune"}
    sizes = choices.groupby(["method", "fold"]).size()
    assert sizes.nunique() == 1, "every method is given a grid of the same size"


def test_a_record_is_loaded_only_for_the_same_question(few_shot_record, tmp_path):
    path = tmp_path / "few_shot.json"
    asked = {name: value for name, value in FEW.items() if name != "profile"}
    experiment = partial(few_shot_experiment, profile="quick")
    calls = []

    def counted(**given):
        calls.append(given)
        return few_shot_record

    counted.__signature__ = __import__("inspect").signature(experiment)
    result(counted, asked, path, recompute=False)
    _, loaded = result(counted, asked, path, recompute=False)
    assert (loaded, len(calls)) == (True, 1)
    result(counted, asked, path, recompute=True)
    assert len(calls) == 2
    _, loaded = result(counted, {**asked, "seeds": 7}, path, recompute=False)
    assert (loaded, len(calls)) == (False, 3)
    assert read_record(path).experiment == "few_shot"


def test_encodings_are_compared_on_the_same_held_out_rows():
    record = encoding_experiment(
        ids=IDS[:3],
        encodings=("separator", "mutant"),
        poolings=("sites",),
        seeds=1,
        steps=2,
        batch_size=4,
        max_test=15,
        profile="quick",
    )
    results = record.table("results")
    sizes = results.pivot(index=["assay", "hold_out"], columns="encoding", values="n_test")
    assert (sizes["separator"] == sizes["mutant"]).all()
    assert set(record.numbers) >= {
        "separator_sites_variants",
        "separator_minus_mutant_sites_sites",
    }


@pytest.mark.parametrize("hold_out", ["variants", "sites"])
def test_held_out_rows_are_held_out(hold_out):
    encoder = make_predictor("tiny", "sites", seed=0, device="cpu").encoder
    assay = encode_assay(
        read_demo(ids=[IDS[0]])[0], "mutant", encoder.vocabulary, encoder.max_tokens
    )
    task = hold_out_task(assay, hold_out, 0.2, seed=0)
    train, test = set(task.support.rows), set(task.query.rows)
    assert not train & test
    assert len(train | test) == len(assay)
    if hold_out == "sites":
        sites = [
            {s.position for variant in part.variants for s in variant}
            for part in (task.support, task.query)
        ]
        assert not sites[0] & sites[1]


def test_meta_training_reports_three_arms():
    record = meta_training_experiment(**SMALL, inner_steps=1, profile="quick")
    history = record.table("history")
    assert set(history["method"]) == {"maml", "fomaml", "multitask"}
    assert (history.groupby("method").size() == 2).all()
    assert record.numbers["maml_seconds_per_step"]["value"] > 0


def test_timing_counts_every_phase():
    record = timing_experiment(
        **SMALL, sizes=(5, 10), seeds=1, adapt_steps=2, epochs=1, max_query=12, profile="quick"
    )
    results = record.table("results")
    assert set(results["method"]) == {
        "maml",
        "multitask",
        "finetune",
        "maml_fixed",
        "finetune_epochs",
    }
    assert (results["seconds_adapt"] > 0).all()
    assert record.numbers["meta_training_seconds"]["value"] > 0


def test_fixed_labels_use_no_more_labels():
    """With as many labels as it may see, the fixed arm is MAML itself."""
    record = timing_experiment(
        **SMALL, sizes=(4, 8), seeds=1, adapt_steps=2, epochs=1, max_query=12, profile="quick"
    )
    table = record.table("results").pivot(
        index=["assay", "shots"], columns="method", values="spearman"
    )
    same = table.xs(4, level="shots")
    assert (same["maml"] == same["maml_fixed"]).all()


def test_break_even():
    assert break_even(10.0, 1.0, 1.5) == 20
    assert np.isnan(break_even(10.0, 1.0, 1.0))


def test_cuts_keep_every_protein():
    assays, whole = load_assays("demo", per_protein=2), load_assays("demo")
    assert {a.protein for a in assays} == {a.protein for a in whole}
    assert max(pd.Series([(a.protein, a.property) for a in assays]).value_counts()) == 2
    table = pd.DataFrame([(a.protein, a.property, a.id) for a in whole])
    assert [a.id for a in assays] == sorted(table.sort_values(2).groupby([0, 1]).head(2)[2])
    predictor = make_predictor("tiny", "sites", seed=0, device="cpu")
    fold = encode_fold(protein_folds(assays, 3)[0], assays, "separator", predictor)
    proteins = [{a.assay.protein for a in side} for side in vars(fold).values()]
    assert not proteins[0] & proteins[1]
    assert not proteins[0] & proteins[2]
    assert not proteins[1] & proteins[2]


def test_the_registry_names_experiments_as_records_do(few_shot_record):
    assert few_shot_record.experiment in EXPERIMENTS


def test_the_whole_family_can_be_asked_for():
    methods = [name for name in ALL_METHODS if name in ALGORITHMS]
    record = few_shot_experiment(**{**ONE_FOLD, "methods": methods, "shots": (0, 4)})
    assert set(record.table("results")["method"]) == set(methods) == set(ALGORITHMS)
    # Learned rates and closed forms leave nothing to choose.
    assert set(record.table("choices")["method"]) == {*RATES} - {"finetune"}
    assert len({len(grid) for grid in RATES.values()}) == 1
