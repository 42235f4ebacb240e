"""One contract for all back ends of the meta-gradient, on a small network."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.func import grad, grad_and_value
from toy import EACH_BACKEND

from mutmeta_lib.learn import InnerLoop, inner_update, meta_gradient
from mutmeta_lib.learn.gradients import recursive_task_gradient, task_gradient
from mutmeta_lib.learn.inner import adapted_names
from mutmeta_lib.models.tensor_memory import peak_tensor_bytes

SCOPES = ("all", "head", "encoder", "last-1")
LOOP = InnerLoop(0.2, 3)


def loss(params, batch):
    """A network of two hidden layers; ``encoder.idle`` takes no part."""
    x, y = batch
    for layer in range(2):
        name = f"encoder.blocks.{layer}"
        x = torch.tanh(x @ params[f"{name}.w"].T + params[f"{name}.b"])
    return torch.mean((x @ params["head.0.w"] - y) ** 2)


def problem(seed=0, n_tasks=3):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    shapes = {"blocks.0.w": (5, 4), "blocks.0.b": (5,), "blocks.1.w": (5, 5), "blocks.1.b": (5,)}
    params = {f"encoder.{name}": 0.5 * draw(*shape) for name, shape in shapes.items()}
    params |= {"encoder.idle": draw(3), "head.0.w": draw(5)}
    return params, [((draw(5, 4), draw(5)), (draw(7, 4), draw(7))) for _ in range(n_tasks)]


PARAMS, TASKS = problem()


def defined(params, tasks, loop):
    """The definition once more, by nested derivatives of functions (`torch.func`)."""

    def mean(start):
        total = 0
        for support, query in tasks:
            adapted = {name: start[name] for name in adapted_names(start, loop.scope)}
            for _ in range(loop.steps):
                slope = grad(lambda moved, support=support: loss({**start, **moved}, support))(
                    adapted
                )
                if loop.first_order:
                    slope = {name: value.detach() for name, value in slope.items()}
                adapted = {name: value - loop.lr * slope[name] for name, value in adapted.items()}
            total = total + loss({**start, **adapted}, query) / len(tasks)
        return total

    gradient, value = grad_and_value(mean)(params)
    return value, gradient


@pytest.mark.parametrize("backend", EACH_BACKEND)
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("steps", [0, 1, 4])
def test_every_backend_gives_the_gradient_that_is_defined(backend, scope, first_order, steps):
    before = {name: value.clone() for name, value in PARAMS.items()}
    loop = InnerLoop(0.2, steps, first_order, scope)
    value, gradient, losses = meta_gradient(loss, PARAMS, TASKS, loop, backend=backend)
    expected = defined(PARAMS, TASKS, loop)
    torch.testing.assert_close((value, gradient), expected, rtol=1e-10, atol=1e-12)
    assert list(gradient) == list(PARAMS)
    assert losses.shape == (3,)
    assert not gradient["encoder.idle"].any()
    torch.testing.assert_close(PARAMS, before, rtol=0, atol=0)
    told = [value, losses, *gradient.values(), *PARAMS.values()]
    assert not any(tensor.requires_grad for tensor in told)


@pytest.mark.parametrize("scope", SCOPES)
def test_second_order_is_the_slope_of_the_loss_and_first_order_is_not(scope):
    loop = replace(LOOP, scope=scope)
    _, gradient, _ = meta_gradient(loss, PARAMS, TASKS, loop)
    _, first, _ = meta_gradient(loss, PARAMS, TASKS, replace(loop, first_order=True))
    generator = torch.Generator().manual_seed(1)
    for name in PARAMS:
        direction = torch.randn(PARAMS[name].shape, generator=generator, dtype=torch.float64)
        up, down = (
            meta_gradient(loss, PARAMS | {name: PARAMS[name] + h * direction}, TASKS, loop)[0]
            for h in (1e-5, -1e-5)
        )
        slope, exact = (up - down).item() / 2e-5, (gradient[name] * direction).sum().item()
        assert exact == pytest.approx(slope, rel=1e-6, abs=1e-9), name
        if name != "encoder.idle":
            other = (first[name] * direction).sum().item()
            assert abs(other - slope) > 1e-3 * abs(slope), name


def test_first_order_is_the_query_gradient_at_the_adapted_parameters():
    loop = replace(LOOP, first_order=True)
    for support, query in TASKS:
        _, gradient, _ = meta_gradient(loss, PARAMS, [(support, query)], loop)
        expected = grad(loss)(inner_update(loss, PARAMS, support, loop), query)
        torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-14)


def test_tasks_have_no_order_and_their_sides_are_not_alike():
    ours, turned, swapped = (
        meta_gradient(loss, PARAMS, tasks, LOOP)
        for tasks in (TASKS, TASKS[::-1], [(query, support) for support, query in TASKS])
    )
    torch.testing.assert_close(turned[:2], ours[:2])
    assert abs(swapped[0] - ours[0]) > 1e-2
    assert (swapped[1]["head.0.w"] - ours[1]["head.0.w"]).norm() > 1e-2


numbers = st.floats(-3, 3)


@given(
    w=numbers,
    centre=numbers,
    goal=numbers,
    curvature=st.floats(0.1, 2),
    lr=st.floats(-0.2, 0.5),
    steps=st.integers(0, 6),
    learned=st.booleans(),
)
def test_a_parabola_is_known_in_closed_form(w, centre, goal, curvature, lr, steps, learned):
    """Its gradient is a (w - c): all orders, and the slope of a learned rate, follow by hand."""

    def parabola(params, batch):
        return 0.5 * batch[0] * (params["w"] - batch[1]) ** 2

    params = {"w": torch.tensor(w, dtype=torch.float64)}
    if learned:
        params["rate.w"] = torch.tensor(lr, dtype=torch.float64)
    found = {
        first: meta_gradient(
            parabola, params, [((curvature, centre), (1.0, goal))], InnerLoop(lr, steps, first)
        )
        for first in (False, True)
    }
    shrink = (1 - lr * curvature) ** steps
    off = centre + shrink * (w - centre) - goal
    about = {"rel": 1e-9, "abs": 1e-11}
    assert found[False][0].item() == pytest.approx(0.5 * off**2, **about)
    assert found[False][1]["w"].item() == pytest.approx(off * shrink, **about)
    assert found[True][1]["w"].item() == pytest.approx(off, **about)
    if learned:
        less = (1 - lr * curvature) ** max(steps - 1, 0)
        slope = -steps * curvature * less * (w - centre) * off
        assert found[False][1]["rate.w"].item() == pytest.approx(slope, **about)


@pytest.mark.parametrize("backend", EACH_BACKEND)
@pytest.mark.parametrize("broken", [(), (0,), (1, 2), (0, 1, 2, 3)])
@pytest.mark.parametrize("how", ["loss", "gradient"])
def test_tasks_that_are_not_finite_are_marked_and_left_out_on_request(backend, broken, how):
    params, tasks = problem(n_tasks=4)
    bad = {id(batch) for place in broken for batch in tasks[place]}

    def partly_broken(params, batch):
        value = loss(params, batch)
        if id(batch) not in bad:
            return value
        # The root of zero is finite, its gradient is not.
        return value * torch.inf if how == "loss" else value + (0 * params["head.0.w"].sum()).sqrt()

    def run(loss, tasks, **more):
        return meta_gradient(loss, params, tasks, InnerLoop(0.1, 1), backend=backend, **more)

    found = run(partly_broken, tasks, skip_nonfinite=True)
    assert found[2].isnan().nonzero().flatten().tolist() == list(broken)
    left = [task for place, task in enumerate(tasks) if place not in broken]
    if left:
        torch.testing.assert_close(found[:2], run(loss, left)[:2], rtol=1e-12, atol=1e-15)
    else:
        assert found[0].isnan()
        assert not any(value.any() for value in found[1].values())
    stopped = run(partly_broken, tasks)
    torch.testing.assert_close(stopped[2], found[2], rtol=0, atol=0, equal_nan=True)
    assert bool(stopped[0].isnan()) == bool(broken)


def test_the_recursion_keeps_the_graph_of_one_step():
    wide = {name: value.repeat(*[8] * value.dim()) for name, value in PARAMS.items()}
    batch = TASKS[0][0][0].repeat(50, 8), TASKS[0][0][1].repeat(50)

    def peak(gradient, steps):
        loop = InnerLoop(0.001, steps)
        return peak_tensor_bytes(lambda: gradient(loss, wide, batch, batch, loop))[0]

    one_copy = sum(value.numel() * 8 for value in wide.values())
    # Each further step leaves a copy of the parameters, and nothing of its graph.
    assert (peak(recursive_task_gradient, 10) - peak(recursive_task_gradient, 4)) / 6 <= one_copy
    assert (peak(task_gradient, 10) - peak(task_gradient, 4)) / 6 > 5 * one_copy


def test_bad_calls_say_what_is_wrong():
    with pytest.raises(ValueError, match="at least one task"):
        meta_gradient(loss, PARAMS, [], LOOP)
    with pytest.raises(ValueError, match=r"unknown MAML backend 'jax'.*'learn2learn'"):
        meta_gradient(loss, PARAMS, TASKS, LOOP, backend="jax")
