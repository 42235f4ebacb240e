import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from toy import toy_encoded, toy_predictor

from mutmeta_lib.errors import DataError
from mutmeta_lib.learn import InnerLoop
from mutmeta_lib.learn.algorithms import ALGORITHMS
from mutmeta_lib.learn.meta_step import take_step, validate, validation_loss
from mutmeta_lib.learn.run_state import begin
from mutmeta_lib.learn.training_settings import MetaTraining
from mutmeta_lib.models.frozen import freeze
from mutmeta_lib.tasks.tasks import sample_tasks

PREDICTOR = toy_predictor()
ALGORITHM = ALGORITHMS["maml"](PREDICTOR)
SETTINGS = MetaTraining(steps=5, inner=InnerLoop(0.05, 1), clip=1e9, validate_every=2)
ASSAYS = toy_encoded(2)


def fresh(settings=SETTINGS):
    start = PREDICTOR.init(torch.Generator().manual_seed(0))
    return begin(start, settings, np.random.default_rng(0))


def tasks(n=2, seed=0):
    return sample_tasks(ASSAYS, n, support=4, query=4, rng=np.random.default_rng(seed))


def step(state, drawn, settings=SETTINGS):
    return take_step(state, ALGORITHM, settings.inner, drawn, settings)


def test_the_loss_told_is_that_before_the_step_and_the_step_lowers_it():
    state, drawn = fresh(), tasks()
    before = validation_loss(PREDICTOR, state.params(), drawn, SETTINGS.inner)
    taken = step(state, drawn)
    assert taken.loss == pytest.approx(before, rel=1e-5)
    assert step(state, drawn).loss < taken.loss
    assert taken.skipped == 0


def test_the_norm_told_is_that_before_clipping():
    free, bound = fresh(), fresh()
    norm = step(free, tasks()).gradient_norm
    clipped = replace(SETTINGS, clip=norm / 7)
    assert step(bound, tasks(), clipped).gradient_norm == pytest.approx(norm)
    gradients = [value.grad.norm() for value in bound.current.values()]
    assert float(torch.stack(gradients).norm()) == pytest.approx(norm / 7, rel=1e-4)


def test_a_step_that_is_not_finite_moves_nothing():
    settings = replace(SETTINGS, inner=InnerLoop(1e30, 3))
    state = fresh(settings)
    before = {name: value.clone() for name, value in state.params().items()}
    with pytest.raises(DataError, match=r"not finite at meta-step 1 \(assays TOY"):
        step(state, tasks(), settings)
    skipping = replace(settings, on_nonfinite="skip")
    with pytest.warns(UserWarning, match="meta-step 1: 2 of 2 tasks skipped"):
        taken = step(state, tasks(), skipping)
    assert taken.skipped == 2
    assert math.isnan(taken.loss)
    torch.testing.assert_close(state.params(), before, rtol=0, atol=0)


def test_validation_is_taken_when_it_is_due_and_keeps_the_best():
    state, checks = fresh(), tasks(3, seed=1)
    taken = []
    for number in range(1, SETTINGS.steps + 1):
        step(state, tasks(seed=number))
        taken.append(validate(state, ALGORITHM, SETTINGS.inner, checks, SETTINGS))
        state.history.append({"step": number})
    assert [not math.isnan(loss) for loss in taken] == [False, True, False, True, True]
    assert state.best_loss == np.nanmin(taken)
    assert state.best_step == 1 + int(np.nanargmin(taken))
    again = validation_loss(PREDICTOR, state.best, checks, SETTINGS.inner)
    assert again == state.best_loss


def test_without_validation_tasks_none_is_taken():
    state = fresh()
    state.history = [{}] * (SETTINGS.steps - 1)
    assert math.isnan(validate(state, ALGORITHM, SETTINGS.inner, [], SETTINGS))
    assert state.best is state.current


def test_validation_side_by_side_is_that_of_one_task_after_the_other():
    predictor = toy_predictor()
    frozen, assays = freeze(predictor, toy_encoded(4, predictor=predictor), None)
    params = frozen.init(torch.Generator().manual_seed(0))
    settings = MetaTraining(steps=1, support=5, query=6)
    algorithm = ALGORITHMS["maml"](frozen)
    state = begin(params, settings, np.random.default_rng(0))
    tasks = sample_tasks(assays, 7, support=5, query=6, rng=np.random.default_rng(1))
    together = validate(state, algorithm, settings.inner, tasks, settings)
    assert together == pytest.approx(validation_loss(frozen, params, tasks, settings.inner), 1e-5)
