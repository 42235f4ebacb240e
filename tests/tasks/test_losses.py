"""One contract for all losses: sums written out, derivatives, limits; and what uses them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.func import grad, vmap
from toy import toy_encoded, toy_predictor

from mutmeta_lib.errors import DataError
from mutmeta_lib.models.predictor import Predictor
from mutmeta_lib.tasks.losses import LOSSES, RANKING
from mutmeta_lib.tasks.tasks import sample_tasks

values = st.floats(-5, 5).map(lambda value: round(value, 3))
pairs = st.integers(1, 7).flatmap(
    lambda n: st.tuples(
        st.lists(values, min_size=n, max_size=n),
        # Small whole numbers, so that ties occur.
        st.lists(st.integers(-2, 3), min_size=n, max_size=n),
    )
)
each_loss = pytest.mark.parametrize("name", LOSSES)


def double(numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def plackett_luce(s, y):
    rests = [sum(math.exp(b) for b, v in zip(s, y, strict=True) if v <= u) for u in y]
    return np.mean([math.log(rest) - a for a, rest in zip(s, rests, strict=True)])


WRITTEN_OUT = {"mse": lambda s, y: np.mean(np.subtract(s, y) ** 2), "list_mle": plackett_luce}


@each_loss
@given(pairs)
def test_sums_written_out(name, pair):
    found = LOSSES[name](*map(double, pair)).item()
    assert found == pytest.approx(WRITTEN_OUT[name](*pair), rel=1e-10, abs=1e-12)


@each_loss
def test_derivatives_equal_finite_differences_and_those_under_vmap(name):
    loss = LOSSES[name]
    rng = np.random.default_rng(1)
    y = double([2, 0, 1, 1, -3, 2])
    point = double(rng.normal(size=6)).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: loss(x, y), point)
    assert torch.autograd.gradgradcheck(lambda x: loss(x, y), point)

    s, y = double(rng.normal(size=(5, 8))), double(rng.integers(0, 4, size=(5, 8)))
    for function in (loss, grad(loss)):
        looped = torch.stack([function(a, b) for a, b in zip(s, y, strict=True)])
        torch.testing.assert_close(vmap(function)(s, y), looped)


@each_loss
@pytest.mark.parametrize("size", [1e3, 1e-6])
def test_extreme_predictions_stay_finite_and_one_example_has_no_order(name, size):
    s, loss = torch.linspace(-size, size, 12), LOSSES[name]
    for y in (s, -s, torch.zeros(12)):
        assert torch.isfinite(loss(s, y))
        assert torch.isfinite(grad(loss)(s, y)).all()
    for n in (0, 1) if name in RANKING else ():
        assert loss(s[:n], s[:n]) == 0
        assert not grad(loss)(s[:n], s[:n]).any()


BASE = toy_predictor()


@each_loss
def test_a_predictor_uses_the_loss_it_names(name):
    predictor = Predictor(BASE.encoder, hidden=(8,), objective=name)
    params = predictor.init(torch.Generator().manual_seed(0))
    (task,) = sample_tasks(toy_encoded(2), 1, support=6, query=8, rng=np.random.default_rng(0))
    predicted = predictor(params, task.query.tokens)
    assert predictor.loss(params, task.query) == LOSSES[name](predicted, task.query.labels)
    with pytest.raises(DataError, match=r"unknown loss 'huber'.*mse, list_mle"):
        Predictor(BASE.encoder, objective="huber")
