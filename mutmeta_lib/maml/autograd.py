"""The meta-gradient of one task by ``torch.autograd`` alone, the fastest on a whole encoder.

The mathematics is that of ``inner.inner_update`` differentiated by ``torch.func``. But torch.func
keeps nearly twice as much in memory for the second derivative, which costs time as well. It cannot
be nested or vmapped, and needs no more than a loss.
"""

import torch
from torch import Tensor

from mutmeta_lib.maml.inner import Batch, InnerLoop, Loss, Params
from mutmeta_lib.maml.scope import adapted_names


def autograd_task_gradient(
    loss: Loss, params: Params, support: Batch, query: Batch, loop: InnerLoop
) -> tuple[Tensor, Params]:
    """Query loss after adaptation and its gradient by the start, as ``meta.task_gradient``."""
    start = {name: value.detach().requires_grad_(True) for name, value in params.items()}
    adapted = {name: start[name] for name in adapted_names(params, loop.scope)}
    unused = {"allow_unused": True, "materialize_grads": True}
    with torch.enable_grad():
        for _ in range(loop.steps):
            value = loss({**start, **adapted}, support)
            slopes = torch.autograd.grad(
                value, list(adapted.values()), create_graph=not loop.first_order, **unused
            )
            moved = zip(adapted.items(), slopes, strict=True)
            adapted = {name: value - loop.lr * slope for (name, value), slope in moved}
        value = loss({**start, **adapted}, query)
    gradient = torch.autograd.grad(value, list(start.values()), **unused)
    return value.detach(), dict(zip(start, gradient, strict=True))
