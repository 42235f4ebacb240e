"""The head's closed algebra is MAML's inner loop, to rounding, for any shape."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import linear

from mutmeta_lib.learn.gradients import task_gradient
from mutmeta_lib.learn.inner import InnerLoop
from mutmeta_lib.learn.lowrank import lowrank_losses
from mutmeta_lib.tasks.losses import LOSSES


def make_head(widths, generator):
    head = {}
    for i, (fan_in, fan_out) in enumerate(pairwise(widths)):
        draw = torch.randn(fan_out, fan_in, generator=generator, dtype=torch.float64)
        head[f"head.{i}.weight"] = draw / fan_in**0.5
        head[f"head.{i}.bias"] = torch.randn(fan_out, generator=generator, dtype=torch.float64)
    return head


def plain_loss(objective):
    def loss(params, batch):
        x, labels = batch
        for i in range(len(params) // 2):
            x = linear(x.relu() if i else x, params[f"head.{i}.weight"], params[f"head.{i}.bias"])
        return LOSSES[objective](x.squeeze(-1), labels)

    return loss


@settings(max_examples=25, deadline=None)
@given(
    hidden=st.lists(st.integers(1, 7), max_size=3),
    k=st.integers(1, 6),
    q=st.integers(1, 5),
    steps=st.integers(0, 4),
    first_order=st.booleans(),
    objective=st.sampled_from(sorted(LOSSES)),
    seed=st.integers(0, 10**6),
)
def test_losses_and_gradients_are_those_of_the_definition(
    hidden, k, q, steps, first_order, objective, seed
):
    generator = torch.Generator().manual_seed(seed)
    head = make_head([4, *hidden, 1], generator)
    loop = InnerLoop(0.1, steps, first_order)
    support, query = (
        (
            torch.randn(3, n, 4, generator=generator, dtype=torch.float64),
            torch.randn(3, n, generator=generator, dtype=torch.float64),
        )
        for n in (k, q)
    )
    leaves = {name: value.clone().requires_grad_() for name, value in head.items()}
    losses = lowrank_losses(leaves, support, query, loop, objective)
    found = torch.autograd.grad(losses.sum(), list(leaves.values()), materialize_grads=True)
    expected = {name: torch.zeros_like(value) for name, value in head.items()}
    for task in range(3):
        batches = [tuple(part[task] for part in side) for side in (support, query)]
        value, gradient = task_gradient(plain_loss(objective), head, *batches, loop)
        torch.testing.assert_close(losses[task].detach(), value, rtol=1e-9, atol=1e-12)
        expected = {name: total + gradient[name] for name, total in expected.items()}
    for gradient, name in zip(found, leaves, strict=True):
        torch.testing.assert_close(gradient, expected[name], rtol=1e-8, atol=1e-10)


def test_tasks_do_not_see_each_other():
    generator = torch.Generator().manual_seed(0)
    head = make_head([4, 5, 3, 1], generator)
    x = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    y = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    loop = InnerLoop(0.1, 3)
    together = lowrank_losses(head, (x, y), (x, y), loop)
    x2, y2 = x.clone(), y.clone()
    x2[1], y2[1] = 9.0, -9.0
    other = lowrank_losses(head, (x2, y2), (x2, y2), loop)
    assert together[0] == pytest.approx(other[0].item(), rel=1e-12)
    assert together[1] != pytest.approx(other[1].item(), rel=1e-3)
