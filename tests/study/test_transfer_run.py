"""One case of the third arm: what tuning sees, what is shared, what is kept."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from toy import toy_assay, toy_predictor

from mutmeta_lib.data.splits import Split
from mutmeta_lib.learn import InnerLoop
from mutmeta_lib.learn.training import MetaTraining
from mutmeta_lib.study.transfer_cases import Case
from mutmeta_lib.study.transfer_methods import GRID, RECIPES, TUNED, train_starts
from mutmeta_lib.study.transfer_run import (
    Plan,
    average_seeds,
    best_rate,
    run_case,
    support_pool,
)
from mutmeta_lib.study.vectors import embed_assays, standardise

ASSAYS = [toy_assay(seed, length=15, n=40) for seed in range(5)]
NAMES = [assay.id for assay in ASSAYS]
SPLIT = Split(tuple(NAMES[:3]), (NAMES[3],), (NAMES[4],))
CASE = Case("proteins", "fold 1", 0, SPLIT)
SETTINGS = MetaTraining(
    steps=2,
    tasks_per_step=2,
    support=5,
    query=6,
    inner=InnerLoop(0.03, 2),
    validate_every=1,
    validation_tasks=3,
)


def plan(assays=ASSAYS, methods=("maml", "multitask", "finetune", "ridge"), **changed):
    vectors = embed_assays(toy_predictor(), assays, "mutant", "standardised", "normal_scores")
    given = {
        "vectors": vectors,
        "methods": methods,
        "shots": [0, 5],
        "pool": 10,
        "pools": [5, 10],
        "settings": SETTINGS,
        "closed_steps": 2,
        "adapt_steps": 3,
        "decided_at": 5,
        "folder": None,
        "question": {"encoding": "mutant", "pooling": "sites"},
    }
    return Plan(**given | changed)


@pytest.fixture(scope="module")
def outcome():
    return run_case(plan(), CASE)


def rows(outcome):
    return pd.DataFrame(outcome["results"])


def test_all_methods_are_tested_on_the_test_assay_alone(outcome):
    found = rows(outcome)
    assert set(found["assay"]) == {NAMES[4]}
    assert {"maml", "multitask", "finetune", "ridge"} <= set(found["method"])
    assert {"maml_1", "maml_mse", "finetune_mse", "multitask_mse"} <= set(found["method"])
    assert set(found.loc[found["method"] == "maml_1", "shots"]) == {5}
    assert (found["n_query"] == 30).all()


def test_no_test_label_reaches_training_or_tuning(outcome):
    scores = np.random.default_rng(0).normal(size=len(ASSAYS[4]))
    other = run_case(plan([*ASSAYS[:4], replace(ASSAYS[4], scores=scores)]), CASE)
    assert other["choices"] == outcome["choices"]
    assert other["rates"] == outcome["rates"]
    assert other["history"] == outcome["history"]
    assert not rows(other)["spearman"].equals(rows(outcome)["spearman"])


def test_every_tuned_method_has_the_same_grid(outcome):
    choices = pd.DataFrame(outcome["choices"])
    for _, own in choices.groupby("method"):
        assert list(zip(own["optimiser"], own["lr"], strict=True)) == list(GRID)


def test_rates_may_be_chosen_on_some_validation_assays_by_all_methods_alike():
    many = replace(CASE, split=Split((NAMES[0],), tuple(NAMES[1:4]), (NAMES[4],)))
    methods = ("finetune", "maml")
    all_of_them = run_case(plan(methods=methods), many)
    some = run_case(plan(methods=methods, tuning_assays=1), many)
    alone = run_case(plan(methods=("finetune",), tuning_assays=1), many)
    enough = run_case(plan(methods=methods, tuning_assays=3), many)
    assert some["choices"] != all_of_them["choices"] == enough["choices"]
    assert [row for row in some["choices"] if row["method"] == "finetune"] == alone["choices"]


def test_methods_tested_by_error_are_asked_for():
    found = rows(run_case(plan(methods=("fomaml", "finetune"), by_error=["fomaml"]), CASE))
    assert "fomaml_mse" in set(found["method"])
    assert "finetune_mse" not in set(found["method"])


def test_rates_are_chosen_by_their_own_criterion():
    scores = [
        {"optimiser": "sgd", "lr": 0.1, "spearman": 0.5, "error": 3.0},
        {"optimiser": "adam", "lr": 0.2, "spearman": 0.4, "error": 1.0},
        {"optimiser": "adam", "lr": 0.3, "spearman": 0.5, "error": 1.0},
    ]
    assert best_rate(scores, "spearman") == ("sgd", 0.1)
    assert best_rate(scores, "error") == ("adam", 0.2)


def test_every_start_begins_at_the_same_head_and_sees_training_assays_alone():
    own = plan()
    hidden = {name: own.vectors.training[name] for name in NAMES[:4]}
    without_test = replace(own.vectors, training=hidden)
    names = [*RECIPES]
    starts, runs = train_starts(without_test, SPLIT, names, SETTINGS, 1, 0, lambda *_: None)
    assert set(starts) == set(RECIPES)
    assert set(runs) == set(RECIPES) - {"finetune"}
    assert len(runs["r2d2"].history) == 1
    assert len(runs["maml"].history) == SETTINGS.steps
    for name in TUNED:
        assert starts[name].keys() == starts["finetune"].keys()


def test_training_labels_are_normal_scores_and_test_labels_as_measured():
    vectors = plan().vectors
    for assay in ASSAYS:
        np.testing.assert_array_equal(vectors.assays[assay.id].assay.scores, assay.scores)
        assert vectors.training[assay.id].assay.units == "normal score"


def test_vectors_are_standardised_per_assay():
    made = standardise(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    assert made.tolist() == [[-1.0, 0.0], [1.0, 0.0]]
    for item in plan().vectors.assays.values():
        torch.testing.assert_close(
            item.tokens.states.mean(dim=0), torch.zeros(16), atol=1e-5, rtol=0
        )


@pytest.mark.parametrize(("size", "expected"), [(50, 40), (49, 10), (20, 10), (19, 0)])
def test_small_assays_have_smaller_pools(size, expected):
    assert support_pool(size, (0, 10, 40), 40) == expected


def test_plans_of_one_experiment_predict_the_same_rows():
    """A plan of fewer shots must not give small assays a larger query set."""
    many = run_case(plan(methods=("ridge",), shots=[0, 5, 30], pool=30, pools=[0, 5, 30]), CASE)
    few = run_case(plan(methods=("ridge",), shots=[0, 5], pool=30, pools=[0, 5, 30]), CASE)
    shared = rows(many).query("shots < 30")
    assert shared["spearman"].tolist() == rows(few)["spearman"].tolist()
    assert set(shared["n_query"]) == set(rows(few)["n_query"]) == {10}


def test_a_finished_case_is_read_not_run(tmp_path, outcome):
    own = plan(folder=str(tmp_path))
    first = run_case(own, CASE)
    (file,) = tmp_path.iterdir()
    before = file.stat().st_mtime_ns
    assert run_case(own, CASE) == first
    assert file.stat().st_mtime_ns == before
    assert first["choices"] == outcome["choices"]


def test_seeds_are_averaged_per_assay(outcome):
    twice = pd.concat([rows(outcome), rows(outcome).assign(seed=1)]).assign(regime="proteins")
    made = average_seeds(twice)
    assert (made["n_seeds"] == 2).all()
    assert not made.duplicated(["method", "assay", "shots"]).any()
