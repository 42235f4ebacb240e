"""Adaptation and meta-gradient of one task by ``torch.autograd``, the fastest on a whole encoder.

The mathematics is that of ``inner.inner_update`` differentiated by ``torch.func``. But torch.func
keeps nearly twice as much in memory for the second derivative, which costs time as well. It cannot
be nested or vmapped, and needs no more than a loss.
"""

import torch
from torch import Tensor

from mutmeta_lib.learn.inner import Batch, InnerLoop, Loss, Params
from mutmeta_lib.learn.scope import adapted_names

UNUSED = {"allow_unused": True, "materialize_grads": True}


def adapt_alone(loss: Loss, params: Params, support: Batch, loop: InnerLoop) -> Params:
    """``inner.inner_update``, bit for bit, where no gradient is taken through it."""
    adapted = {name: params[name].detach() for name in adapted_names(params, loop.scope)}
    for _ in range(loop.steps):
        leaves = {name: value.requires_grad_() for name, value in adapted.items()}
        with torch.enable_grad():
            value = loss({**params, **leaves}, support)
        slopes = torch.autograd.grad(value, list(leaves.values()), **UNUSED)
        moved = zip(leaves.items(), slopes, strict=True)
        adapted = {name: value.detach() - loop.lr * slope for (name, value), slope in moved}
    return {**params, **adapted}


def autograd_task_gradient(
    loss: Loss, params: Params, support: Batch, query: Batch, loop: InnerLoop
) -> tuple[Tensor, Params]:
    """Query loss after adaptation and its gradient by the start, as ``meta.task_gradient``."""
    start = {name: value.detach().requires_grad_(True) for name, value in params.items()}
    adapted = {name: start[name] for name in adapted_names(params, loop.scope)}
    with torch.enable_grad():
        for _ in range(loop.steps):
            value = loss({**start, **adapted}, support)
            slopes = torch.autograd.grad(
                value, list(adapted.values()), create_graph=not loop.first_order, **UNUSED
            )
            moved = zip(adapted.items(), slopes, strict=True)
            adapted = {name: value - loop.lr * slope for (name, value), slope in moved}
        value = loss({**start, **adapted}, query)
    gradient = torch.autograd.grad(value, list(start.values()), **UNUSED)
    return value.detach(), dict(zip(start, gradient, strict=True))
