"""Starts, splits, rates and steps on pooled vectors."""

import numpy as np
import pytest
import torch
from toy import toy_assay, toy_predictor

from mutmeta_lib.data.splits import Split
from mutmeta_lib.errors import DataError
from mutmeta_lib.learn import InnerLoop
from mutmeta_lib.learn.finetune import finetune
from mutmeta_lib.learn.training import MetaTraining
from mutmeta_lib.study.frozen_heads import (
    GRID,
    STARTS,
    choose_rate,
    descend,
    freeze_assays,
    learn_start,
    query_error,
    read_assays,
    split_around,
    validation_tasks,
)
from mutmeta_lib.tasks.tasks import draw_task, task_generator

SETTINGS = MetaTraining(steps=2, tasks_per_step=2, support=4, query=4, inner=InnerLoop(0.05, 2))


@pytest.fixture(scope="module")
def frozen():
    assays = [toy_assay(seed) for seed in range(5)]
    return freeze_assays(toy_predictor().encoder, assays, encoding="separator", pooling="sites")


def a_task(frozen, shots=8):
    assay = frozen.assays["TOY0"]
    return draw_task(assay, shots, task_generator(0, "TOY0"), pool=shots)


def test_a_split_keeps_away_from_every_cluster_that_is_tested():
    assays = [toy_assay(seed) for seed in range(6)]
    twin = toy_assay(0, name="TWIN")
    split, clusters = split_around(assays, [twin], seed=0)
    assert split.test == ("TWIN",)
    assert "TOY0" not in {*split.train, *split.validation}
    assert {*split.train, *split.validation} == {f"TOY{seed}" for seed in range(1, 6)}
    wild_types = {assay.id: assay.wild_type for assay in assays}
    sides = [
        {clusters[wild_types[name]] for name in side} for side in (split.train, split.validation)
    ]
    assert not sides[0] & sides[1]
    with pytest.raises(DataError, match="clusters are left"):
        split_around(assays[:2], [assays[0]], seed=0)


def test_descending_is_the_library_s_fine_tuning_followed_step_by_step(frozen):
    task, predictor = a_task(frozen), frozen.predictor
    start, _ = learn_start(frozen, Split((), (), ()), SETTINGS, "finetune", 0)
    seen = []
    ours = descend(
        predictor, start, task.support, ("adam", 1e-2), 5, lambda s, t, p: seen.append((s, t))
    )
    theirs = finetune(predictor.loss, start, task.support, lr=1e-2, steps=5)
    for name in start:
        torch.testing.assert_close(ours[name], theirs[name])
    assert [step for step, _ in seen] == list(range(6))
    spent = [seconds for _, seconds in seen]
    assert spent[0] == 0
    assert spent == sorted(spent)
    assert query_error(predictor, ours, task.support) < query_error(predictor, start, task.support)


def test_every_start_has_the_same_shapes_and_only_learned_ones_cost(frozen):
    split = Split(("TOY0", "TOY1", "TOY2"), ("TOY3",), ("TOY4",))
    made = {name: learn_start(frozen, split, SETTINGS, name, 0) for name in STARTS}
    fresh = made["finetune"][0]
    for name, (params, seconds) in made.items():
        assert params.keys() == fresh.keys()
        assert (seconds == 0) == (name == "finetune")
        moved = any(not torch.equal(params[key], fresh[key]) for key in fresh)
        assert moved == (name != "finetune")


def test_the_chosen_rate_has_the_lowest_error_and_a_diverging_one_is_not_chosen(frozen):
    split = Split(("TOY0",), ("TOY3", "TOY4"), ())
    tasks = validation_tasks(frozen, split, support=5, query=5, n_tasks=3, seed=0)
    assert {task.support.assay.assay.id for task in tasks} <= {"TOY3", "TOY4"}
    start, _ = learn_start(frozen, split, SETTINGS, "finetune", 0)
    rate, rows = choose_rate(frozen.predictor, start, tasks, 3)
    best = min(rows, key=lambda row: row["log_error"])
    assert rate == (best["optimiser"], best["lr"])
    assert len(rows) == len(GRID)
    huge = {name: value * 1e20 for name, value in start.items()}
    _, rows = choose_rate(frozen.predictor, huge, tasks, 3)
    assert np.isinf([row["log_error"] for row in rows]).any()


def test_features_are_standardised_within_each_assay(frozen):
    features = frozen.features
    task = a_task(frozen)
    everything = np.concatenate([features(task.support), features(task.query)])
    np.testing.assert_allclose(everything.mean(axis=0), 0, atol=1e-6)


def test_bundled_data_need_no_selection():
    assays = read_assays("demo", "none", None, 1)
    assert len({(a.protein, a.property) for a in assays}) == len(assays)
