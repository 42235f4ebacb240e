"""Meta-SGD: what follows when rates are constant, and its gradient by learn2learn."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_maml import DOUBLE, mlp_problem, parabola, scalar

from mutmeta_lib.errors import DataError
from mutmeta_lib.learn import InnerLoop, inner_update, meta_gradient
from mutmeta_lib.learn.learn2learn import metasgd_gbml_task_gradient, metasgd_task_gradient
from mutmeta_lib.learn.meta import differentiate
from mutmeta_lib.learn.metasgd import RATE, metasgd_update, with_rates

BACKENDS = {
    "torch.func": differentiate(metasgd_update),
    "learn2learn": metasgd_task_gradient,
    "learn2learn-gbml": metasgd_gbml_task_gradient,
}
THEIRS = ("learn2learn", "learn2learn-gbml")


def problem_with_rates(seed=0):
    """Rates that differ from one another, some of them negative."""
    loss, params, tasks = mlp_problem(seed)
    generator = torch.Generator().manual_seed(seed)
    rates = {
        RATE + name: 0.1 + 0.1 * torch.randn(value.shape, generator=generator, dtype=DOUBLE)
        for name, value in params.items()
    }
    return loss, params | rates, tasks


def gradients(loss, params, tasks, loop, backend="torch.func"):
    return meta_gradient(loss, params, tasks, loop, backend=backend, backends=BACKENDS)


@pytest.mark.parametrize("first_order", [False, True])
def test_constant_rates_are_maml(first_order):
    loss, params, tasks = mlp_problem()
    loop = InnerLoop(0.1, 3, first_order)
    value, gradient, losses = gradients(loss, with_rates(params, loop), tasks, loop)
    maml = meta_gradient(loss, params, tasks, loop)
    without_rates = {name: gradient[name] for name in params}
    torch.testing.assert_close((value, without_rates, losses), maml, rtol=1e-12, atol=1e-14)
    adapted = metasgd_update(loss, with_rates(params, loop), tasks[0][0], loop)
    expected = inner_update(loss, params, tasks[0][0], loop)
    torch.testing.assert_close(adapted, expected, rtol=1e-12, atol=1e-14)


@given(w=st.floats(-3, 3), c=st.floats(-3, 3), q=st.floats(-3, 3), lr=st.floats(-0.2, 0.6))
@settings(max_examples=40)
def test_the_gradient_of_a_rate_equals_the_closed_form(w, c, q, lr):
    """One step on a parabola: w' = w - r (w - c), so dL/dr = -(w' - q) (w - c)."""
    tasks = [((scalar(1.0), scalar(c)), (scalar(1.0), scalar(q)))]
    params = {"w": scalar(w), "rate.w": scalar(lr)}
    _, gradient, _ = gradients(parabola, params, tasks, InnerLoop(steps=1))
    residual = w - lr * (w - c) - q
    assert gradient["rate.w"].item() == pytest.approx(-residual * (w - c), rel=1e-10, abs=1e-12)
    assert gradient["w"].item() == pytest.approx(residual * (1 - lr), rel=1e-10, abs=1e-12)


@pytest.mark.learn2learn
@pytest.mark.parametrize("backend", THEIRS)
@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("steps", [0, 1, 3])
def test_learn2learn_gives_the_same_gradients_rates_included(first_order, steps, backend):
    loss, params, tasks = problem_with_rates(seed=2)
    loop = InnerLoop(steps=steps, first_order=first_order)
    ours = gradients(loss, params, tasks, loop)
    theirs = gradients(loss, params, tasks, loop, backend)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-12)
    moving = [name for name, part in ours[1].items() if part.abs().sum() > 0]
    assert moving == [name for name in params if steps or not name.startswith(RATE)]


@pytest.mark.learn2learn
@pytest.mark.parametrize("backend", THEIRS)
def test_learn2learn_agrees_where_some_parameters_have_no_rate(backend):
    loss, params, tasks = problem_with_rates(seed=3)
    del params["rate.0.weight"], params["rate.2.bias"]
    loop = InnerLoop(steps=2)
    ours = gradients(loss, params, tasks, loop)
    torch.testing.assert_close(
        ours, gradients(loss, params, tasks, loop, backend), rtol=1e-6, atol=1e-12
    )
    adapted = metasgd_update(loss, params, tasks[0][0], loop)
    assert {name for name in adapted if torch.equal(adapted[name], params[name])} == {
        "0.weight",
        "2.bias",
    }


def test_rate_gradients_equal_finite_differences():
    loss, params, tasks = problem_with_rates()
    loop = InnerLoop(steps=2)
    _, gradient, _ = gradients(loss, params, tasks, loop)
    rng = np.random.default_rng(0)
    for name in (name for name in params if name.startswith(RATE)):
        direction = torch.tensor(rng.normal(size=params[name].shape))
        up, down = (
            gradients(loss, params | {name: params[name] + step * direction}, tasks, loop)[0]
            for step in (1e-5, -1e-5)
        )
        slope = (up - down).item() / 2e-5
        assert (gradient[name] * direction).sum().item() == pytest.approx(slope, rel=1e-6)


def test_only_parameters_in_the_scope_get_rates():
    params = {"encoder.w": torch.ones(2), "head.w": torch.ones(3)}
    rates = with_rates(params, InnerLoop(0.5, scope="head"))
    assert list(rates) == ["encoder.w", "head.w", "rate.head.w"]
    assert torch.equal(rates["rate.head.w"], torch.full((3,), 0.5))


def test_without_rates_it_says_what_to_do():
    loss, params, tasks = mlp_problem()
    with pytest.raises(DataError, match="given no rates; add them with with_rates"):
        metasgd_update(loss, params, tasks[0][0], InnerLoop())
