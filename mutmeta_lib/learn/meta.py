r"""The meta-gradient: how the start must move so that *adapted* predictors do better.

.. math:: \nabla_\theta \frac{1}{T} \sum_{t=1}^{T}
   L_{\text{query},t}\bigl(\theta'_t(\theta)\bigr)

with :math:`\theta'_t` from the inner loop on task t's support set (Finn et al. 2017, eq. 1).
Tasks are taken one after the other and their gradients summed, or side by side in groups of bounded
size (``batched``), so memory does not grow with the number of tasks.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.func import grad_and_value

from mutmeta_lib.learn.autograd import autograd_task_gradient
from mutmeta_lib.learn.inner import Batch, InnerLoop, Loss, Params, Update, inner_update
from mutmeta_lib.learn.learn2learn import gbml_task_gradient
from mutmeta_lib.learn.learn2learn import task_gradient as learn2learn_task_gradient
from mutmeta_lib.learn.recursion import recursive_task_gradient

TaskGradient = Callable[..., tuple[Tensor, Params]]
"""``(loss, params, support, query, loop)`` to a task's query loss and its gradient."""
BatchedGradient = Callable[[Params, Sequence, InnerLoop], tuple[Tensor, Params]]
"""``(params, tasks, loop)`` to all query losses ``(n_tasks,)`` and the gradient of their mean."""


def differentiate(update: Update) -> TaskGradient:
    """The gradient *through* an inner loop: query loss after adaptation, by the start."""

    def task_gradient(
        loss: Loss, params: Params, support: Batch, query: Batch, loop: InnerLoop
    ) -> tuple[Tensor, Params]:
        """Query loss after adaptation, and its gradient with respect to the start."""

        def adapted_loss(start: Params) -> Tensor:
            return loss(update(loss, start, support, loop), query)

        gradient, value = grad_and_value(adapted_loss)(params)
        return value, gradient

    return task_gradient


task_gradient = differentiate(inner_update)
"""MAML's, by torch.func."""

BACKENDS: dict[str, TaskGradient] = {
    "torch.func": task_gradient,
    "autograd": autograd_task_gradient,
    "recursion": recursive_task_gradient,
    "learn2learn": learn2learn_task_gradient,
    "learn2learn-gbml": gbml_task_gradient,
}
"""Independent implementations of the same gradient; tests hold them together."""


def meta_gradient(
    loss: Loss,
    params: Params,
    tasks: Sequence[tuple[Batch, Batch]],
    loop: InnerLoop,
    *,
    backend: str = "torch.func",
    backends: Mapping[str, TaskGradient] = BACKENDS,
    batched: Mapping[str, BatchedGradient] | None = None,
    skip_nonfinite: bool = False,
) -> tuple[Tensor, Params, Tensor]:
    """Mean query loss over tasks after adaptation, and its gradient.

    With ``loop.steps == 0`` this is joint (multi-task) training on the query sets.

    Args:
        loss: scalar loss of ``(params, batch)``.
        params: the shared start.
        tasks: ``(support, query)`` pairs.
        loop: the inner loop.
        backend: a name in ``backends`` (``torch.func``, ``autograd``, ``recursion``,
            ``learn2learn``, ``learn2learn-gbml``) or in ``batched``.
        backends: name -> gradient of one task; MAML's, unless another algorithm brings its own.
        batched: name -> gradient of all tasks at once (see ``batched``). If a loss or the gradient
            is not finite, the tasks are taken one by one with ``torch.func`` to find out which.
        skip_nonfinite: leave tasks out of both means whose loss or gradient is not finite. With
            none left, the loss is NaN and the gradient zero.

    Returns:
        ``(mean loss, gradient, losses)``; gradient is a dictionary like ``params``, losses has
        shape ``(n_tasks,)`` and is NaN for a task whose loss or gradient is not finite.

    Raises:
        ValueError: no task, or an unknown backend.

    """
    if not tasks:
        raise ValueError("meta_gradient needs at least one task")
    batched = batched or {}
    if backend not in {*backends, *batched}:
        known = sorted({*backends, *batched})
        raise ValueError(f"unknown MAML backend {backend!r}; choose from {known}")
    if backend in batched:
        values, gradient = batched[backend](params, tasks, loop)
        sums = torch.stack([values.sum(), *(part.sum() for part in gradient.values())])
        if sums.sum().isfinite():
            return values.mean(), gradient, values
        backend = "torch.func"
    total = {name: torch.zeros_like(value) for name, value in params.items()}
    losses = []
    for support, query in tasks:
        value, gradient = backends[backend](loss, params, support, query, loop)
        # A sum carries every NaN and infinity of what it adds.
        sums = torch.stack([value.detach(), *(part.detach().sum() for part in gradient.values())])
        finite = sums.sum().isfinite()
        losses.append(torch.where(finite, value.detach(), torch.nan))
        if skip_nonfinite and not finite:
            continue
        for name, part in gradient.items():
            total[name] += part.detach() / len(tasks)
    stacked = torch.stack(losses)
    if not skip_nonfinite:
        return stacked.mean(), total, stacked
    kept = stacked[stacked.isfinite()]
    if 0 < len(kept) < len(tasks):
        total = {name: value * (len(tasks) / len(kept)) for name, value in total.items()}
    return kept.mean(), total, stacked
