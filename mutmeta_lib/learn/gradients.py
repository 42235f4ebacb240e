r"""The meta-gradient: how the start must move so that *adapted* predictors do better.

.. math:: \nabla_\theta \frac{1}{T} \sum_{t=1}^{T}
   L_{\text{query},t}\bigl(\theta'_t(\theta)\bigr)

with :math:`\theta'_t` from the inner loop on task t's support set (Finn et al. 2017, eq. 1). All
back ends give it to rounding; ``auto`` is ``lowrank`` where it is offered, else ``autograd``.

=============== ================================================================================
``autograd``    through the loop, one task after the other: the definition
``recursion``   backwards step by step: in second order, the memory of one step
``learn2learn`` by the package learn2learn, which shares no code with the others
``vmap``        tasks together, each on its copy of what adapts: for small encoders on a GPU
``lowrank``     tasks together, an MLP head in closed algebra (`lowrank`): for frozen encoders
=============== ================================================================================
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.func import vmap

from mutmeta_lib.learn import inner, learn2learn
from mutmeta_lib.learn.inner import Batch, InnerLoop, Loss, Params, inner_update
from mutmeta_lib.learn.lowrank import lowrank_losses
from mutmeta_lib.models.predictor import Inputs, Predictor
from mutmeta_lib.tasks.batches import concatenate
from mutmeta_lib.tasks.losses import LOSSES
from mutmeta_lib.tasks.tasks import Examples

TaskGradient = Callable[..., tuple[Tensor, Params]]
"""``(loss, params, support, query, loop)`` to a task's query loss and its gradient."""
Stacked = tuple[Inputs, Tensor]
"""Inputs and labels of one side of many tasks: every tensor has a leading axis of tasks."""


def differentiate(update: inner.Update) -> TaskGradient:
    """The gradient *through* an inner loop: query loss after adaptation, by the start."""

    def task_gradient(loss: Loss, params: Params, support: Batch, query: Batch, loop: InnerLoop):
        start = _leaves(params)
        with torch.enable_grad():
            value = loss(update(loss, start, support, loop), query)
        return value.detach(), _slopes(value, start)

    return task_gradient


task_gradient = differentiate(inner_update)
"""MAML's."""
unadapted = differentiate(lambda loss, params, support, loop: params)
"""That of the query loss at the start itself."""


def recursive_task_gradient(
    loss: Loss, params: Params, support: Batch, query: Batch, loop: InnerLoop
) -> tuple[Tensor, Params]:
    r"""As `task_gradient`, but each step's graph is made when its turn comes, and dropped.

    .. math:: g_S = \nabla L_\text{query}(\theta'_S), \qquad
       g_s = g_{s+1} - \alpha \nabla^2 L_\text{support}(\theta'_s) \, g_{s+1}

    A Hessian-vector product is the gradient of a gradient. Five steps take a quarter of the memory
    and up to 1.6 times the time: on 80 GB, second order through all of ESM-2 650M (16 labels, 250
    residues) fits, where ``autograd`` ends at 35M.
    """
    rates, one = inner.rates_of(params, loop), replace(loop, steps=1)
    path = [params]
    for _ in range(loop.steps):
        path.append(inner_update(loss, path[-1], support, one))
    value, gradient = unadapted(loss, path.pop(), support, query, loop)
    for point in [] if loop.first_order else reversed(path):
        at = _leaves(point)
        with torch.enable_grad():
            slopes = _slopes(loss(at, support), {name: at[name] for name in rates}, graph=True)
        onward = [rates[name] * gradient[name] for name in rates]
        turned = torch.autograd.grad([*slopes.values()], [*at.values()], onward, **inner.UNUSED)
        moved = zip(gradient.items(), turned, strict=True)
        gradient = {name: value - turn for (name, value), turn in moved}
    return value, gradient


def _leaves(params: Params) -> Params:
    return {name: value.detach().requires_grad_() for name, value in params.items()}


def _slopes(value: Tensor, at: Params, graph: bool = False) -> Params:
    found = torch.autograd.grad(value, [*at.values()], create_graph=graph, **inner.UNUSED)
    return dict(zip(at, found, strict=True))


def vmapped_losses(predictor: Predictor, params: Params, *tasks: Stacked, loop: InnerLoop):
    """Query losses ``(n_tasks,)``: the inner loops of all tasks in the same operations.

    Tasks do not meet, so the gradient of the sum of their losses is that of each. On an H100, four
    tasks take a third of ``autograd``'s time and up to four times the memory; a CPU gains little.
    """
    objective, moving = LOSSES[predictor.objective], inner.rates_of(params, loop)

    def loss(params: Params, given: Inputs, labels: Tensor) -> Tensor:
        return objective(predictor.head(params, predictor.pooled_inputs(params, given)), labels)

    def each(params: Params, side: Stacked) -> Tensor:
        stacked = {name: 0 if name in moving else None for name in params}
        there = Inputs(*(None if tensor is None else 0 for tensor in side[0]))
        return vmap(loss, in_dims=(stacked, there, 0))(params, *side)

    (support, query), count = tasks, len(tasks[0][1])
    copies = {name: params[name].expand(count, *params[name].shape) for name in moving}
    adapted = inner_update(lambda *given: each(*given).sum(), params | copies, support, loop)
    return each(adapted, query)


def lowrank_head_losses(predictor: Predictor, params: Params, *tasks: Stacked, loop: InnerLoop):
    """Query losses ``(n_tasks,)`` of a predictor on pooled vectors, see `lowrank`."""
    support, query = ((given.states, labels) for given, labels in tasks)
    return lowrank_losses(params, support, query, loop, predictor.objective)


@dataclass(frozen=True, eq=False)
class Together:
    """A back end that takes the tasks of a meta-step together, ``group`` of them at a time."""

    way: Callable[..., Tensor]
    predictor: Predictor
    group: int = 64

    def losses(self, params: Params, tasks: Sequence, loop: InnerLoop) -> Tensor:
        """Query losses ``(n_tasks,)`` of one group of equal tasks, padded to the longest."""
        device, stacked = next(iter(params.values())).device, []
        for sets in zip(*tasks, strict=True):
            if len(sizes := {len(examples) for examples in sets}) != 1:
                raise ValueError(f"these tasks need equally many examples, not {sorted(sizes)}")
            tokens = concatenate([examples.tokens for examples in sets]).to(device)
            shape = (len(sets), *sizes)
            flat = self.predictor.inputs(tokens)
            given = Inputs(*(part if part is None else part.unflatten(0, shape) for part in flat))
            stacked.append((given, torch.stack([examples.labels for examples in sets]).to(device)))
        return self.way(self.predictor, params, *stacked, loop=loop)

    def __call__(
        self, params: Params, tasks: Sequence[tuple[Examples, Examples]], loop: InnerLoop
    ) -> tuple[Tensor, Params]:
        """Query losses ``(n_tasks,)``, and the gradient of their mean."""
        leaves, found = _leaves(params), []
        total = {name: torch.zeros_like(value) for name, value in params.items()}
        for first in range(0, len(tasks), self.group):
            with torch.enable_grad():
                own = self.losses(leaves, tasks[first : first + self.group], loop)
            for name, value in _slopes(own.sum() / len(tasks), leaves).items():
                total[name] += value
            found.append(own.detach())
        return torch.cat(found), total


BACKENDS: dict[str, TaskGradient | Together] = {
    "autograd": task_gradient,
    "recursion": recursive_task_gradient,
    "learn2learn": learn2learn.task_gradient,
}
"""Those of any loss; `algorithms.Algorithm.backends` has those of a predictor as well."""


def meta_gradient(
    loss: Loss,
    params: Params,
    tasks: Sequence[tuple[Batch, Batch]],
    loop: InnerLoop,
    *,
    backend: str = "autograd",
    backends: Mapping[str, TaskGradient | Together] = BACKENDS,
    skip_nonfinite: bool = False,
) -> tuple[Tensor, Params, Tensor]:
    """Mean query loss over ``(support, query)`` tasks after adaptation, and its gradient.

    Without inner steps this is joint (multi-task) training on the query sets. Returns ``(mean loss,
    gradient, losses)``: losses ``(n_tasks,)`` are NaN where a task's loss or gradient is not
    finite. ``skip_nonfinite`` leaves such tasks out of both means; with all left out, the mean is
    NaN and the gradient zero. ``autograd`` takes over from those that take tasks together there.
    """
    if not tasks:
        raise ValueError("meta_gradient needs at least one task")
    if backend not in backends:
        raise ValueError(f"unknown MAML backend {backend!r}; choose from {sorted(backends)}")
    way = backends[backend]
    if isinstance(way, Together):
        losses, total = way(params, tasks, loop)
        if _finite(losses, total):
            return losses.mean(), total, losses
        way = backends["autograd"]
    total, found = {name: torch.zeros_like(value) for name, value in params.items()}, []
    for support, query in tasks:
        value, gradient = way(loss, params, support, query, loop)
        finite = _finite(value, gradient)
        found.append(torch.where(finite, value, torch.nan))
        if finite or not skip_nonfinite:
            for name, part in gradient.items():
                total[name] += part / len(tasks)
    losses = torch.stack(found)
    kept = losses[losses.isfinite()] if skip_nonfinite else losses
    if 0 < len(kept) < len(tasks):
        total = {name: value * (len(tasks) / len(kept)) for name, value in total.items()}
    return kept.mean(), total, losses


def _finite(losses: Tensor, gradient: Params) -> Tensor:
    """Whether all are finite: a sum carries every NaN and infinity of what it adds."""
    sums = torch.stack([losses.sum(), *(part.sum() for part in gradient.values())])
    return sums.sum().isfinite()
