"""The meta-gradient of many tasks at once: their inner loops side by side in the same operations.

A loop over tasks spends its time on small operations. Tasks with equally many labels have equal
shapes, so their tensors are stacked and ``torch.func.vmap`` runs one inner loop for all of them
(``vmap``), or the head's closed algebra does (``lowrank``). Memory stays bounded because tasks are
taken in groups.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import vmap

from mutmeta_lib.learn.inner import InnerLoop, Params, Update, inner_update
from mutmeta_lib.learn.lowrank import lowrank_losses
from mutmeta_lib.models.pooling import Inputs
from mutmeta_lib.models.predictor import Predictor
from mutmeta_lib.tasks.batches import TokenBatch, concatenate
from mutmeta_lib.tasks.losses import LOSSES
from mutmeta_lib.tasks.tasks import Examples

GROUP = 64
"""Tasks whose inner loops are held in memory at the same time."""

Pairs = Sequence[tuple[Examples, Examples]]
TaskLosses = Callable[[Params, "Collated", InnerLoop], Tensor]
"""Parameters, tasks and inner loop to query losses ``(n_tasks,)``."""


class Collated(NamedTuple):
    """Tasks as tensors: every tensor of the inputs and labels with a leading axis of tasks."""

    support: Inputs
    support_labels: Tensor
    query: Inputs
    query_labels: Tensor


def collate(predictor: Predictor, tasks: Pairs, device: torch.device | str = "cpu") -> Collated:
    """Stack the support and query sets of tasks, padded to the longest sequence among them.

    Raises:
        ValueError: the tasks differ in their numbers of examples.

    """
    parts = []
    for place in range(2):
        sets = [task[place] for task in tasks]
        sizes = {len(examples) for examples in sets}
        if len(sizes) != 1:
            raise ValueError(f"tasks of one batch need equally many examples, not {sorted(sizes)}")
        tokens: TokenBatch = concatenate([examples.tokens for examples in sets]).to(device)
        flat = predictor.inputs(tokens)
        shape = (len(sets), sizes.pop())
        parts.append(Inputs(*(t if t is None else t.unflatten(0, shape) for t in flat)))
        parts.append(torch.stack([examples.labels for examples in sets]).to(device))
    return Collated(*parts)


def vmapped_losses(predictor: Predictor, update: Update = inner_update) -> TaskLosses:
    """Query losses by ``torch.func.vmap`` over the inner loop of any predictor without branches."""
    objective = LOSSES[predictor.objective]

    def loss(params: Params, batch: tuple[Inputs, Tensor]) -> Tensor:
        given, labels = batch
        return objective(predictor.head(params, predictor.pooled_inputs(params, given)), labels)

    def losses(params: Params, tasks: Collated, loop: InnerLoop) -> Tensor:
        # vmap takes tensors only: what is None is put back inside.
        flat = [*tasks.support, tasks.support_labels, *tasks.query, tasks.query_labels]
        there = [index for index, tensor in enumerate(flat) if tensor is not None]

        def one(*tensors: Tensor) -> Tensor:
            whole: list[Tensor | None] = [None] * len(flat)
            for index, tensor in zip(there, tensors, strict=True):
                whole[index] = tensor
            n = len(Inputs._fields)
            support, query = (Inputs(*whole[:n]), whole[n]), (Inputs(*whole[n + 1 : -1]), whole[-1])
            return loss(update(loss, params, support, loop), query)

        return vmap(one)(*(flat[index] for index in there))

    return losses


def lowrank_head_losses(predictor: Predictor) -> TaskLosses:
    """Query losses of a predictor on pooled vectors, see ``lowrank``."""

    def losses(params: Params, tasks: Collated, loop: InnerLoop) -> Tensor:
        return lowrank_losses(
            params,
            (tasks.support.states, tasks.support_labels),
            (tasks.query.states, tasks.query_labels),
            loop,
            predictor.objective,
        )

    return losses


def batched_gradient(
    losses: TaskLosses,
    predictor: Predictor,
    params: Params,
    tasks: Pairs,
    loop: InnerLoop,
    group: int = GROUP,
) -> tuple[Tensor, Params]:
    """Query losses of all tasks, and the gradient of their mean.

    Args:
        losses: how a group of tasks is run.
        predictor: the model.
        params: the shared start.
        tasks: ``(support, query)`` pairs with equally many examples.
        loop: the inner loop.
        group: tasks held in memory at the same time.

    Returns:
        Losses ``(n_tasks,)`` and a gradient like ``params``.

    """
    leaves = {name: value.detach().requires_grad_(True) for name, value in params.items()}
    device = next(iter(params.values())).device
    total = {name: torch.zeros_like(value) for name, value in params.items()}
    found = []
    for first in range(0, len(tasks), group):
        part = collate(predictor, tasks[first : first + group], device)
        own = losses(leaves, part, loop)
        gradient = torch.autograd.grad(
            own.sum() / len(tasks), list(leaves.values()), materialize_grads=True, allow_unused=True
        )
        for name, value in zip(leaves, gradient, strict=True):
            total[name] += value
        found.append(own.detach())
    return torch.cat(found), total
