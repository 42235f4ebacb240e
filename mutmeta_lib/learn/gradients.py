r"""The meta-gradient: how the start must move so that *adapted* predictors do better.

.. math:: \nabla_\theta \frac{1}{T} \sum_{t=1}^{T}
   L_{\text{query},t}\bigl(\theta'_t(\theta)\bigr)

with :math:`\theta'_t` from the inner loop on task t's support set (Finn et al. 2017, eq. 1). All
back ends give it to rounding. ``autograd`` is the definition, through the loop, task after task;
``learn2learn`` is that package's, which shares no code with ours. Two take tasks together:
``lowrank`` for an MLP head on a frozen encoder (`lowrank`), ``batched`` for reads of sites, where
parameters get a dimension of tasks. ``auto`` is one of these where there is one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import vmap

from mutmeta_lib.learn import learn2learn
from mutmeta_lib.learn.inner import UNUSED, Batch, InnerLoop, Loss, Params, Update, inner_update
from mutmeta_lib.learn.lowrank import lowrank_losses
from mutmeta_lib.models.predictor import Predictor
from mutmeta_lib.models.trunk import SUM
from mutmeta_lib.tasks.batches import TokenBatch, concatenate
from mutmeta_lib.tasks.losses import LOSSES
from mutmeta_lib.tasks.tasks import Examples

TaskGradient = Callable[..., tuple[Tensor, Params]]
"""``(loss, params, support, query, loop)`` to a task's query loss and its gradient."""


def value_and_gradient(function: Callable, params: Params, share: int = 1):
    """What a function of parameters gives, and the gradient of its sum over ``share``."""
    leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
    with torch.enable_grad():
        value = function(leaves)
    slopes = torch.autograd.grad(value.sum() / share, [*leaves.values()], **UNUSED)
    return value.detach(), dict(zip(leaves, slopes, strict=True))


def differentiate(update: Update) -> TaskGradient:
    """The gradient *through* an inner loop: query loss after adaptation, by the start."""

    def task_gradient(loss: Loss, params: Params, support: Batch, query: Batch, loop: InnerLoop):
        return value_and_gradient(
            lambda start: loss(update(loss, start, support, loop), query), params
        )

    return task_gradient


task_gradient = differentiate(inner_update)
"""MAML's."""


@dataclass(frozen=True, eq=False)
class Together:
    """``lowrank``: the tasks of a meta-step at once, for a predictor on pooled vectors."""

    predictor: Predictor

    def losses(self, params: Params, tasks: Sequence, loop: InnerLoop) -> Tensor:
        """Query losses ``(n_tasks,)`` of tasks of equal size."""
        device, sides = next(iter(params.values())).device, []
        for sets in zip(*tasks, strict=True):
            vectors = torch.stack([examples.tokens.hidden for examples in sets])
            labels = torch.stack([examples.labels for examples in sets])
            sides.append((vectors.to(device), labels.to(device)))
        return lowrank_losses(params, *sides, loop, self.predictor.objective)

    def __call__(
        self, params: Params, tasks: Sequence[tuple[Examples, Examples]], loop: InnerLoop
    ) -> tuple[Tensor, Params]:
        """Query losses ``(n_tasks,)``, and the gradient of their mean."""
        return value_and_gradient(lambda at: self.losses(at, tasks, loop), params, len(tasks))


@dataclass(frozen=True, eq=False)
class Batched(Together):
    """``batched``: every task has parameters of its own, which the inner loop moves all at once."""

    def losses(self, params: Params, tasks: Sequence, loop: InnerLoop) -> Tensor:
        """Query losses ``(n_tasks,)`` of tasks of equal size."""
        own = {name: value.expand(len(tasks), *value.shape) for name, value in params.items()}
        support, query = ((*blocks(sets), labels_of(sets)) for sets in zip(*tasks, strict=True))
        # The loss of a task depends on its own parameters alone: the sum has all their gradients.
        each = vmap(self.one, randomness="different")
        adapted = inner_update(lambda at, batch: each(at, *batch).sum(), own, support, loop)
        return each(adapted, *query)

    def one(self, params: Params, rows: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
        """The loss of one task, of rows ``(k, m, d)``."""
        predicted = self.predictor(params, TokenBatch(mask, mask, mask, rows))
        return LOSSES[self.predictor.objective](predicted, labels)


def blocks(sets: Sequence[Examples]) -> tuple[Tensor, Tensor]:
    """Rows ``(n_tasks, k, m, d)`` of site reads, and their mask; sets are of equal size."""
    joined = concatenate([examples.tokens for examples in sets])
    shape = len(sets), len(sets[0])
    return joined.hidden.unflatten(0, shape), joined.mask.unflatten(0, shape)


def labels_of(sets: Sequence[Examples]) -> Tensor:
    """Labels ``(n_tasks, k)``."""
    return torch.stack([examples.labels for examples in sets])


def together(predictor: Predictor, loop: InnerLoop) -> dict[str, Together]:
    """The back end that takes tasks of MAML on this predictor together, if there is one."""
    if predictor.pooling == SUM:
        return {"batched": Batched(predictor)}
    narrow = predictor.start is None and predictor.hidden and loop.scope in ("all", "head")
    return {"lowrank": Together(predictor)} if narrow else {}


BACKENDS: dict[str, TaskGradient | Together] = {
    "autograd": task_gradient,
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
) -> tuple[Tensor, Params, Tensor]:
    """Mean query loss over ``(support, query)`` tasks, its gradient, and losses ``(n_tasks,)``.

    Without inner steps this is joint (multi-task) training on the query sets.
    """
    if backend not in backends:
        raise ValueError(f"unknown MAML backend {backend!r}; choose from {sorted(backends)}")
    way = backends[backend]
    if isinstance(way, Together):
        losses, total = way(params, tasks, loop)
        return losses.mean(), total, losses
    total, found = {name: torch.zeros_like(value) for name, value in params.items()}, []
    for support, query in tasks:
        value, gradient = way(loss, params, support, query, loop)
        found.append(value)
        for name, part in gradient.items():
            total[name] += part / len(tasks)
    losses = torch.stack(found)
    return losses.mean(), total, losses
