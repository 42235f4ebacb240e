"""Depths of the third arm: the same function, the same draws, rates chosen on validation alone."""

import warnings

import pandas as pd
import pytest
import torch
from toy import toy_assay, toy_predictor

from mutmeta_lib.app.experiments import transfer_depth_experiment
from mutmeta_lib.data.splits import Split
from mutmeta_lib.errors import DataError
from mutmeta_lib.learn import InnerLoop
from mutmeta_lib.learn.training import MetaTraining
from mutmeta_lib.models.encoders import tiny_encoder
from mutmeta_lib.models.predictor import Predictor
from mutmeta_lib.study.transfer_cases import Case
from mutmeta_lib.study.transfer_depth import at_depth, run_method
from mutmeta_lib.study.transfer_run import Plan

ASSAYS = [toy_assay(seed, length=15, n=40) for seed in range(5)]
NAMES = [assay.id for assay in ASSAYS]
CASES = [
    Case("proteins", "fold 1", seed, Split(tuple(NAMES[:3]), (NAMES[3],), (NAMES[4],)))
    for seed in (0, 1)
]
PAIRS = [[0.03, 5e-4], [0.01, 1e-4]]


def two_layers():
    return Predictor(tiny_encoder(width=16, layers=2, heads=2), "sites", hidden=(8,))


def plan(depth="last-1", predictor=None, assays=ASSAYS):
    vectors = at_depth(predictor or two_layers(), assays, depth, "mutant", "normal_scores", None)
    settings = MetaTraining(
        steps=2,
        tasks_per_step=2,
        support=5,
        query=6,
        inner=InnerLoop(0.03, 2),
        validate_every=1,
        validation_tasks=3,
    )
    question = {"encoding": "mutant", "pooling": "sites", "depth": depth, "encoder": "0" * 64}
    return Plan(vectors, ["fomaml"], [0, 5], 5, [5], settings, 2, 2, 5, None, question, ["fomaml"])


@pytest.mark.parametrize("depth", ["last-1", "all", "raw head"])
def test_every_depth_is_the_same_function_before_it_learns(depth):
    whole = two_layers()
    params = whole.init(torch.Generator().manual_seed(1))
    made = at_depth(whole, ASSAYS, depth, "mutant", "normal_scores", None)
    reference = at_depth(whole, ASSAYS, "all", "mutant", "normal_scores", None)
    for name in NAMES:
        tokens, same = (
            made.assays[name].tokens.rows([0, 3]),
            reference.assays[name].tokens.rows([0, 3]),
        )
        learning = made.predictor.learning(params)
        torch.testing.assert_close(
            made.predictor(learning, tokens), whole(params, same), rtol=1e-4, atol=1e-5
        )


def test_deeper_means_more_parameters():
    counts = [
        sum(v.numel() for v in plan(depth).vectors.predictor.init(torch.Generator()).values())
        for depth in ("raw head", "last-1", "all")
    ]
    assert counts[0] < counts[1] < counts[2]


def test_training_sees_normal_scores_at_every_depth():
    for depth in ("raw head", "head", "last-1", "all"):
        vectors = plan(depth).vectors
        for assay in ASSAYS:
            assert vectors.assays[assay.id].assay is assay
            assert vectors.training[assay.id].assay.units == "normal score"


@pytest.mark.parametrize("depth", ["last-2", "last-0", "last-x", "first-1", "tail", ""])
def test_a_depth_that_is_none_is_refused(depth):
    with pytest.raises(DataError, match="is no depth of tiny"):
        plan(depth)


def test_a_single_layer_has_no_last_but_all():
    with pytest.raises(DataError, match="is no depth of tiny"):
        plan("last-1", toy_predictor())


def test_outer_rates_are_chosen_once_per_fold_by_validation_loss():
    first, second = run_method(plan(), CASES, "fomaml", PAIRS, 2)
    tried = first["outer_rates"]
    assert [[row["inner_lr"], row["meta_lr"]] for row in tried] == PAIRS
    assert not second["outer_rates"]
    best = min(tried, key=lambda row: row["validation_loss"])
    losses = [row["validation_loss"] for row in first["history"]]
    assert min(losses) == pytest.approx(best["validation_loss"])


def test_test_labels_reach_no_choice():
    other = [*ASSAYS[:4], toy_assay(4, length=15, n=40, noise=9.0)]
    (mine,) = run_method(plan(), CASES[:1], "fomaml", PAIRS, 2)
    (theirs,) = run_method(plan(assays=other), CASES[:1], "fomaml", PAIRS, 2)
    for name in ("outer_rates", "rates", "choices", "history"):
        assert mine[name] == theirs[name]
    assert (
        pd.DataFrame(mine["results"])["spearman"]
        .ne(pd.DataFrame(theirs["results"])["spearman"])
        .any()
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    kept = tmp_path_factory.mktemp("kept")
    return lambda: transfer_depth_experiment(
        per_protein=1,
        cap=30,
        depths=["head", "last-1"],
        tiny_depths=["raw head"],
        max_tokens=32,
        shots=[0, 5],
        decided_at=5,
        pool=5,
        seeds=1,
        n_folds=3,
        meta_steps=1,
        validate_every=1,
        tasks_per_step=1,
        support=5,
        query=5,
        inner_steps=1,
        adapt_steps=1,
        tuning_assays=1,
        checkpoint_dir=str(kept),
    )


@pytest.fixture(scope="module")
def record(run):
    return run()


def test_a_run_started_again_reads_what_is_finished(run, record, monkeypatch):
    monkeypatch.setattr("mutmeta_lib.study.transfer_run._run", None)
    monkeypatch.setattr("mutmeta_lib.study.transfer_depth.meta_train", None)
    with warnings.catch_warnings(action="error", category=UserWarning):
        again = run()
    assert again.numbers == record.numbers


def test_the_record_compares_depths_on_the_same_assays(record):
    results = record.table("results")
    cells = results[results["shots"] == 5].groupby(["encoder", "depth", "method"])["assay"]
    assert cells.apply(frozenset).nunique() == 1
    assert set(results["depth"]) == {"head", "last-1", "raw head"}
    controls = results[results["method"].isin(["ridge", "onehot"])]
    assert set(controls["depth"]) == {"head"}


def test_the_record_names_what_a_page_needs(record):
    for name in (
        "tiny_last_1_all_fomaml_5",
        "tiny_last_1_all_fomaml_minus_finetune_5",
        "tiny_last_1_all_fomaml_minus_ridge_5",
        "tiny_fomaml_all_last_1_minus_head_5",
        "tiny_last_1_all_gain_over_finetune",
    ):
        assert name in record.numbers
    assert record.encoder["provenance"]["beside it"] == "tiny, trained"
    assert set(record.table("outer_rates")["method"]) == {"fomaml", "multitask"}


def test_no_depth_is_refused():
    with pytest.raises(DataError, match="no depth to run"):
        transfer_depth_experiment(per_protein=1, cap=30, depths=[], n_folds=3, seeds=1)
