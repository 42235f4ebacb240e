"""Many tasks at once give the gradient of one task after the other."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from toy import toy_encoded, toy_predictor

from mutmeta_lib.errors import DataError
from mutmeta_lib.learn import InnerLoop, meta_gradient
from mutmeta_lib.learn.algorithms import ALGORITHMS
from mutmeta_lib.learn.batched import batched_gradient, collate, vmapped_losses
from mutmeta_lib.learn.training import MetaTraining, meta_train
from mutmeta_lib.models.frozen import freeze
from mutmeta_lib.tasks.tasks import Task, sample_tasks

PREDICTOR = toy_predictor()
START = PREDICTOR.init(torch.Generator().manual_seed(0))
# Different lengths, so that tasks are padded to each other.
ASSAYS = [*toy_encoded(2, n=80), *toy_encoded(2, n=80, length=9)]
FEATURES, FROZEN = freeze(PREDICTOR, ASSAYS, None)
WHOLE = [name for name in ALGORITHMS if ALGORITHMS[name](PREDICTOR).through]


def draw(assays, n=5, support=4, query=6):
    rng = np.random.default_rng(0)
    return sample_tasks(assays, n, support=support, query=query, rng=rng)


def both(predictor, assays, name, backend, loop):
    algorithm = ALGORITHMS[name](predictor)
    loop = algorithm.training_loop(algorithm.loop(loop))
    params = algorithm.prepare(predictor.learning(START), loop)
    tasks = [algorithm.batches(task) for task in draw(assays)]
    more = {"backends": algorithm.backends, "batched": algorithm.batched(loop)}
    one = meta_gradient(algorithm.model.loss, params, tasks, loop, **more)
    return one, meta_gradient(algorithm.model.loss, params, tasks, loop, backend=backend, **more)


def assert_same(found, expected, tolerance=1e-3):
    """Losses one by one; gradients by their norm, as small entries are all rounding."""
    torch.testing.assert_close(found[2], expected[2], rtol=1e-4, atol=1e-6)
    for name, value in expected[1].items():
        assert (found[1][name] - value).norm() <= tolerance * value.norm() + 1e-7, name


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("pooling", ["sites", "mean", "cls"])
@pytest.mark.parametrize("name", WHOLE)
def test_vmapped_tasks_are_looped_tasks(name, pooling, first_order):
    predictor = replace(PREDICTOR, pooling=pooling)
    one, many = both(predictor, ASSAYS, name, "vmap", InnerLoop(0.05, 2, first_order))
    assert_same(many, one)


@pytest.mark.parametrize("objective", ["mse", "list_mle", "bradley_terry"])
@pytest.mark.parametrize("backend", ["vmap", "lowrank"])
@pytest.mark.parametrize("name", ["maml", "anil", "multitask"])
def test_frozen_heads_are_batched_exactly(name, backend, objective):
    predictor = replace(FEATURES, objective=objective)
    one, many = both(predictor, FROZEN, name, backend, InnerLoop(0.05, 3))
    assert_same(many, one)


def test_groups_of_tasks_change_nothing():
    tasks = [(task.support, task.query) for task in draw(ASSAYS)]
    losses = vmapped_losses(PREDICTOR)
    whole = batched_gradient(losses, PREDICTOR, START, tasks, InnerLoop(0.05, 2))
    parts = batched_gradient(losses, PREDICTOR, START, tasks, InnerLoop(0.05, 2), group=2)
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-6)


def test_tasks_of_other_sizes_are_refused():
    tasks = [*draw(ASSAYS, 1, support=4), *draw(ASSAYS, 1, support=5)]
    with pytest.raises(ValueError, match=r"equally many examples, not \[4, 5\]"):
        collate(PREDICTOR, [(task.support, task.query) for task in tasks])


def test_a_broken_task_is_still_named():
    tasks = draw(FROZEN)
    labels = torch.full_like(tasks[2].query.labels, torch.nan)
    tasks[2] = Task(tasks[2].support, replace(tasks[2].query, labels=labels), tasks[2].label_scale)
    algorithm = ALGORITHMS["maml"](FEATURES)
    loop = InnerLoop(0.05, 2)
    loss, gradient, losses = meta_gradient(
        FEATURES.loss,
        FEATURES.learning(START),
        [(task.support, task.query) for task in tasks],
        loop,
        backend="lowrank",
        batched=algorithm.batched(loop),
        skip_nonfinite=True,
    )
    assert losses.isnan().tolist() == [False, False, True, False, False]
    assert loss.isfinite()
    assert all(part.isfinite().all() for part in gradient.values())


@pytest.mark.parametrize("name", ["maml", "multitask", "metasgd"])
def test_auto_trains_a_frozen_head_to_the_start_that_the_loop_reaches(name):
    settings = MetaTraining(name, 6, 3, 4, 5, InnerLoop(0.05, 2), validate_every=3)
    starts = {
        backend: meta_train(
            FEATURES,
            FEATURES.learning(START),
            FROZEN[:3],
            replace(settings, backend=backend),
            seed=0,
            validation=FROZEN[3:],
        ).params
        for backend in ("auto", "torch.func")
    }
    torch.testing.assert_close(starts["auto"], starts["torch.func"], rtol=2e-3, atol=1e-5)


def test_the_fastest_backend_is_offered():
    loop = InnerLoop()
    assert ALGORITHMS["maml"](FEATURES).fastest(loop) == "lowrank"
    assert ALGORITHMS["maml"](PREDICTOR).fastest(loop) == "autograd"
    assert ALGORITHMS["metasgd"](PREDICTOR).fastest(loop) == "torch.func"
    assert ALGORITHMS["reptile"](FEATURES).batched(loop) == {}
    for name, build in ALGORITHMS.items():
        algorithm = build(FEATURES if name not in ("boil",) else PREDICTOR)
        known = {*algorithm.backends, *algorithm.batched(loop)}
        assert algorithm.fastest(loop) in known, name


def test_an_unknown_backend_is_refused():
    tasks = [(task.support, task.query) for task in draw(ASSAYS, 1)]
    with pytest.raises(ValueError, match="unknown MAML backend 'fast'"):
        meta_gradient(PREDICTOR.loss, START, tasks, InnerLoop(), backend="fast")


def test_a_start_beyond_the_encoder_is_refused():
    with pytest.raises(DataError, match="layer 2 is not one that a trunk can end at"):
        freeze(PREDICTOR, ASSAYS, 2)
