"""Meta-gradients against a closed form, finite differences and learn2learn."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call
from toy import EACH_BACKEND

from mutmeta_lib.learn import InnerLoop, inner_update, meta_gradient

DOUBLE = torch.float64


def parabola(params, batch):
    """0.5 a (w - c)^2 with its gradient a (w - c): everything about it is known in closed form."""
    curvature, centre = batch
    return 0.5 * curvature * (params["w"] - centre) ** 2


def scalar(value):
    return torch.tensor(value, dtype=DOUBLE)


def mlp_problem(seed=0, n_tasks=3):
    """A small network, its MSE loss as a function of parameters, and random tasks."""
    generator = torch.Generator().manual_seed(seed)
    module = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)).to(DOUBLE)
    params = {
        name: torch.randn(value.shape, generator=generator, dtype=DOUBLE) * 0.5
        for name, value in module.named_parameters()
    }

    def loss(params, batch):
        x, y = batch
        return torch.mean((functional_call(module, params, (x,)).squeeze(-1) - y) ** 2)

    def batch(n):
        return (
            torch.randn(n, 4, generator=generator, dtype=DOUBLE),
            torch.randn(n, generator=generator, dtype=DOUBLE),
        )

    return loss, params, [(batch(5), batch(7)) for _ in range(n_tasks)]


rates = st.floats(0.01, 0.5)
numbers = st.floats(-3, 3)


@given(w=numbers, c=numbers, q=numbers, a=st.floats(0.1, 2), lr=rates, steps=st.integers(0, 6))
@settings(max_examples=60, deadline=None)
def test_second_order_gradient_equals_closed_form(w, c, q, a, lr, steps):
    shrink = (1 - lr * a) ** steps
    adapted = c + shrink * (w - c)
    tasks = [((scalar(a), scalar(c)), (scalar(1.0), scalar(q)))]
    loss, gradient, _ = meta_gradient(
        parabola, {"w": scalar(w)}, tasks, InnerLoop(lr, steps, first_order=False)
    )
    assert loss.item() == pytest.approx(0.5 * (adapted - q) ** 2, rel=1e-10, abs=1e-12)
    assert gradient["w"].item() == pytest.approx((adapted - q) * shrink, rel=1e-10, abs=1e-12)


@given(w=numbers, c=numbers, q=numbers, lr=rates, steps=st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_first_order_gradient_is_query_gradient_at_adapted_parameters(w, c, q, lr, steps):
    adapted = c + (1 - lr) ** steps * (w - c)
    tasks = [((scalar(1.0), scalar(c)), (scalar(1.0), scalar(q)))]
    _, gradient, _ = meta_gradient(
        parabola, {"w": scalar(w)}, tasks, InnerLoop(lr, steps, first_order=True)
    )
    assert gradient["w"].item() == pytest.approx(adapted - q, rel=1e-10, abs=1e-12)


def test_second_order_gradient_equals_finite_differences():
    loss, params, tasks = mlp_problem()
    loop = InnerLoop(lr=0.2, steps=3)
    _, gradient, _ = meta_gradient(loss, params, tasks, loop)

    def value(changed):
        return meta_gradient(loss, changed, tasks, loop)[0].item()

    step = 1e-5
    for name, tensor in params.items():
        for index in range(0, tensor.numel(), 5):
            shift = torch.zeros_like(tensor)
            shift.view(-1)[index] = step
            up, down = dict(params), dict(params)
            up[name], down[name] = tensor + shift, tensor - shift
            slope = (value(up) - value(down)) / (2 * step)
            assert gradient[name].view(-1)[index].item() == pytest.approx(slope, rel=1e-5, abs=1e-8)


@pytest.mark.learn2learn
@pytest.mark.parametrize("backend", ["learn2learn", "learn2learn-gbml"])
@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("steps", [0, 1, 4])
def test_learn2learn_gives_the_same_gradient(first_order, steps, backend):
    loss, params, tasks = mlp_problem(seed=1)
    loop = InnerLoop(lr=0.1, steps=steps, first_order=first_order)
    ours = meta_gradient(loss, params, tasks, loop, backend="torch.func")
    theirs = meta_gradient(loss, params, tasks, loop, backend=backend)
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(ours[1], theirs[1], rtol=1e-10, atol=1e-12)


def test_the_orders_differ_when_there_is_curvature():
    loss, params, tasks = mlp_problem()
    _, second, _ = meta_gradient(loss, params, tasks, InnerLoop(0.2, 3, first_order=False))
    _, first, _ = meta_gradient(loss, params, tasks, InnerLoop(0.2, 3, first_order=True))
    assert not torch.allclose(first["0.weight"], second["0.weight"], rtol=1e-2)


def test_zero_inner_steps_is_joint_training():
    loss, params, tasks = mlp_problem()
    leaves = {name: value.clone().requires_grad_(True) for name, value in params.items()}
    joint = sum(loss(leaves, query) for _, query in tasks) / len(tasks)
    expected = torch.autograd.grad(joint, list(leaves.values()))
    _, gradient, _ = meta_gradient(loss, params, tasks, InnerLoop(0.1, 0))
    torch.testing.assert_close(list(gradient.values()), list(expected))


def test_task_order_changes_nothing():
    loss, params, tasks = mlp_problem()
    loop = InnerLoop(0.1, 2)
    torch.testing.assert_close(
        meta_gradient(loss, params, tasks, loop)[1],
        meta_gradient(loss, params, tasks[::-1], loop)[1],
    )


@pytest.mark.parametrize("backend", EACH_BACKEND)
def test_given_parameters_are_left_alone(backend):
    loss, params, tasks = mlp_problem()
    before = {name: value.clone() for name, value in params.items()}
    inner_update(loss, params, tasks[0][0], InnerLoop(0.1, 2))
    meta_gradient(loss, params, tasks, InnerLoop(0.1, 2), backend=backend)
    torch.testing.assert_close(params, before, rtol=0, atol=0)


@pytest.mark.parametrize("backend", EACH_BACKEND)
def test_unused_parameters_get_gradient_zero(backend):
    loss, params, tasks = mlp_problem()
    params["idle"] = torch.ones(3, dtype=DOUBLE)
    _, gradient, _ = meta_gradient(loss, params, tasks, InnerLoop(0.1, 2), backend=backend)
    assert torch.equal(gradient["idle"], torch.zeros(3, dtype=DOUBLE))


def test_bad_calls_say_what_is_wrong():
    loss, params, tasks = mlp_problem()
    with pytest.raises(ValueError, match="at least one task"):
        meta_gradient(loss, params, [], InnerLoop())
    with pytest.raises(ValueError, match=r"unknown MAML backend 'jax'.*learn2learn"):
        meta_gradient(loss, params, tasks, InnerLoop(), backend="jax")


def broken_gradient(params, batch):
    """A finite loss with a gradient that is not: the root of zero."""
    return (0 * params["0.weight"].sum()).sqrt()


@pytest.mark.parametrize("backend", EACH_BACKEND)
@pytest.mark.parametrize("broken", [(), (0,), (1, 2), (0, 1, 2, 3)])
@pytest.mark.parametrize("how", ["loss", "gradient"])
def test_tasks_that_are_not_finite_are_marked_and_left_out_on_request(backend, broken, how):
    loss, params, tasks = mlp_problem(n_tasks=4)
    bad = {id(batch) for place in broken for batch in tasks[place]}

    def partly_broken(params, batch):
        value = loss(params, batch)
        if id(batch) not in bad:
            return value
        return value * torch.inf if how == "loss" else value + broken_gradient(params, batch)

    loop = InnerLoop(0.1, 1)
    found = meta_gradient(partly_broken, params, tasks, loop, backend=backend, skip_nonfinite=True)
    assert found[2].isnan().nonzero().flatten().tolist() == list(broken)
    left = [task for place, task in enumerate(tasks) if place not in broken]
    if left:
        expected = meta_gradient(loss, params, left, loop, backend=backend)
        assert torch.equal(found[2][found[2].isfinite()], expected[2])
        torch.testing.assert_close(found[:2], expected[:2], rtol=1e-12, atol=1e-15)
    else:
        assert found[0].isnan()
        assert not any(value.any() for value in found[1].values())
    stopped = meta_gradient(partly_broken, params, tasks, loop, backend=backend)
    torch.testing.assert_close(stopped[2], found[2], rtol=0, atol=0, equal_nan=True)
    assert bool(stopped[0].isnan()) == bool(broken)
    if not broken:
        torch.testing.assert_close(stopped, found, rtol=0, atol=0)
