"""Reptile against what it must equal after no step, one step, and many."""

import pytest
import torch
from test_maml import mlp_problem
from torch.func import grad

from mutmeta_lib.learn import InnerLoop, inner_update, meta_gradient
from mutmeta_lib.learn.reptile import reptile_task_gradient

BACKENDS = {"torch.func": reptile_task_gradient}


def reptile(loss, params, tasks, loop):
    return meta_gradient(loss, params, tasks, loop, backends=BACKENDS)


@pytest.mark.parametrize("lr", [0.05, 0.3])
def test_one_step_is_lr_times_the_support_gradient(lr):
    loss, params, tasks = mlp_problem(n_tasks=1)
    _, found, _ = reptile(loss, params, tasks, InnerLoop(lr, 1))
    expected = {name: lr * part for name, part in grad(loss)(params, tasks[0][0]).items()}
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_no_step_moves_nothing():
    loss, params, tasks = mlp_problem()
    _, found, _ = reptile(loss, params, tasks, InnerLoop(0.1, 0))
    assert not any(part.any() for part in found.values())


@pytest.mark.parametrize("first_order", [False, True])
def test_a_full_outer_step_lands_on_the_mean_of_the_adapted_parameters(first_order):
    loss, params, tasks = mlp_problem()
    loop = InnerLoop(0.1, 4, first_order)
    value, found, losses = reptile(loss, params, tasks, loop)
    adapted = [inner_update(loss, params, support, loop) for support, _ in tasks]
    moved = {name: params[name] - found[name] for name in params}
    mean = {name: sum(a[name] for a in adapted) / len(tasks) for name in params}
    torch.testing.assert_close(moved, mean, rtol=1e-12, atol=1e-14)
    queries = [loss(a, query) for a, (_, query) in zip(adapted, tasks, strict=True)]
    torch.testing.assert_close(losses, torch.stack(queries))
    assert value == losses.mean()


def test_the_query_set_does_not_matter_for_the_direction():
    loss, params, tasks = mlp_problem()
    others = [(support, tasks[0][0]) for support, _ in tasks]
    loop = InnerLoop(0.1, 2)
    one, other = reptile(loss, params, tasks, loop), reptile(loss, params, others, loop)
    torch.testing.assert_close(one[1], other[1], rtol=0, atol=0)
    assert one[0] != other[0]


def test_it_knows_one_backend():
    loss, params, tasks = mlp_problem()
    with pytest.raises(ValueError, match=r"unknown MAML backend 'learn2learn'.*\['torch.func'\]"):
        meta_gradient(loss, params, tasks, InnerLoop(), backend="learn2learn", backends=BACKENDS)
