"""Which parameters adapt, by their names; where gradients flow; Adam, and its batches."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from toy import toy_encoded, toy_predictor

from mutmeta_lib.errors import DataError
from mutmeta_lib.learn.inner import InnerLoop, adapted_names, finetune, inner_update, shuffled
from mutmeta_lib.tasks.tasks import draw_task, task_generator

PREDICTOR = toy_predictor()
START = PREDICTOR.init(torch.Generator().manual_seed(0))
SUPPORT = draw_task(toy_encoded(1)[0], 20, task_generator(0, "f"), pool=20).support
NAMES = ["encoder.x.w", "encoder.layer.0.w", "encoder.layer.0.b", "head.0.w"]


def test_scopes_take_parameters_by_their_names():
    assert adapted_names(NAMES, "all") == tuple(NAMES)
    assert [*adapted_names(NAMES, "encoder"), *adapted_names(NAMES, "head")] == NAMES
    assert adapted_names(NAMES, "head") == ("head.0.w",)


@pytest.mark.parametrize(
    ("names", "scope", "told"),
    [
        *((NAMES, scope, "unknown inner-loop scope") for scope in ("", "body", "last-1", "Head")),
        (["w"], "head", "'head' holds no parameter; use a model whose parameters are named head"),
        (["head.w"], "encoder", "'encoder' holds no parameter"),
        (NAMES, "lora", r"'lora' holds no parameter; .*with_lora"),
    ],
)
def test_scopes_that_do_not_fit_are_refused(names, scope, told):
    with pytest.raises(DataError, match=told):
        adapted_names(names, scope)


def test_gradients_flow_where_they_are_asked_for_and_nowhere_else():
    """Plain tensors in, plain tensors out; leaves in, a graph out, unless gradients are off."""
    loop = InnerLoop(0.1, 2)
    adapted = inner_update(PREDICTOR.loss, START, SUPPORT, loop)
    leaves = {name: value.clone().requires_grad_() for name, value in START.items()}
    for start, on, flows in ((START, True, False), (leaves, True, True), (leaves, False, False)):
        with torch.set_grad_enabled(on):
            found = inner_update(PREDICTOR.loss, start, SUPPORT, loop)
        assert {value.requires_grad for value in found.values()} == {flows}
        torch.testing.assert_close(found, adapted, rtol=0, atol=0)
    half = {name: value.requires_grad_("head" in name) for name, value in leaves.items()}
    torch.testing.assert_close(inner_update(PREDICTOR.loss, half, SUPPORT, loop), adapted)


def test_adam_matches_its_first_step_in_closed_form_and_leaves_the_start():
    """Adam's first step moves each parameter by lr against its gradient's sign."""
    start = {"w": torch.tensor([0.0, 5.0])}
    loss = lambda params, target: ((params["w"] - target) ** 2).sum()  # noqa: E731
    tuned = finetune(loss, start, [torch.tensor([3.0, 3.0])], lr=0.1)
    torch.testing.assert_close(tuned["w"], torch.tensor([0.1, 4.9]))
    assert torch.equal(start["w"], torch.tensor([0.0, 5.0]))


@pytest.mark.parametrize(("n", "epochs", "batch", "rest"), [(20, 3, 8, 1), (16, 2, 16, 0)])
def test_epochs_see_every_example_once_each_time_in_another_order(n, epochs, batch, rest):
    support = SUPPORT.take(np.arange(n))
    parts = list(shuffled(support, epochs, batch, torch.Generator().manual_seed(0)))
    assert [len(part) for part in parts] == epochs * ([batch] * (n // batch) + [n % batch] * rest)
    rows = np.concatenate([part.rows for part in parts]).reshape(epochs, n).tolist()
    assert all(sorted(one) == sorted(support.rows) for one in rows)
    assert all(one != other for one, other in pairwise(rows))
