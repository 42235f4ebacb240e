"""Other ways to the same derivative: by autograd alone, and backwards in one step's memory."""

import pytest
import torch

from mutmeta_lib.learn.autograd import autograd_task_gradient
from mutmeta_lib.learn.inner import InnerLoop
from mutmeta_lib.learn.meta import task_gradient
from mutmeta_lib.learn.recursion import recursive_task_gradient
from mutmeta_lib.models.tensor_memory import peak_tensor_bytes


def loss(params, batch):
    x, y = batch
    hidden = torch.tanh(x @ params["encoder.blocks.0.w"].T + params["encoder.blocks.0.b"])
    return torch.mean((hidden @ params["head.0.w"] - y) ** 2)


@pytest.fixture
def problem():
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    params = {
        "encoder.blocks.0.w": draw(5, 3),
        "encoder.blocks.0.b": draw(5),
        "head.0.w": draw(5),
    }
    return params, (draw(4, 3), draw(4)), (draw(6, 3), draw(6))


@pytest.mark.parametrize("scope", ["all", "head", "encoder", "last-1"])
@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("steps", [0, 1, 4])
def test_it_is_the_gradient_through_the_whole_loop(problem, scope, first_order, steps):
    params, support, query = problem
    loop = InnerLoop(0.2, steps, first_order, scope)
    expected = task_gradient(loss, params, support, query, loop)
    for gradient in (recursive_task_gradient, autograd_task_gradient):
        found = gradient(loss, params, support, query, loop)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_second_order_differs_from_first(problem):
    params, support, query = problem
    second = recursive_task_gradient(loss, params, support, query, InnerLoop(0.2, 3))[1]
    first = recursive_task_gradient(loss, params, support, query, InnerLoop(0.2, 3, True))[1]
    assert not torch.allclose(first["head.0.w"], second["head.0.w"], rtol=1e-2)


def test_memory_is_that_of_one_step(problem):
    params, support, _ = problem
    wide = {name: value.repeat(*[8] * value.dim()) for name, value in params.items()}
    batch = support[0].repeat(50, 8), support[1].repeat(50)

    def peak(gradient, steps):
        loop = InnerLoop(0.001, steps)
        return peak_tensor_bytes(lambda: gradient(loss, wide, batch, batch, loop))[0]

    one_copy = sum(value.numel() * 8 for value in wide.values())
    # Each further step leaves a copy of the parameters, and nothing of its graph.
    per_step = (peak(recursive_task_gradient, 10) - peak(recursive_task_gradient, 4)) / 6
    assert per_step <= 1.1 * one_copy
    assert (peak(task_gradient, 10) - peak(task_gradient, 4)) / 6 > 5 * one_copy
