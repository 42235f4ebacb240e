"""The training phases of the public code's comparison, in an implementation of our own.

Facts from the version of 22 July 2025 (see the audit chapter): an initial fit and fine-tuning by
AdamW under a one-cycle schedule, in shuffled batches, the last incomplete one dropped
(``main.py``: ``fast_pretrain``, ``finetune_model``); meta-training that visits every data set once
per epoch, in random order, draws support and query rows from it, and takes one Adam step with the
gradient norm clipped (``meta_learning.py``: ``MAML.meta_train``); adaptation by five plain
gradient steps on all support rows at once (``MAML.adapt``). Dropout is active in all four.

The arms differ in nothing but the gradient of the meta-step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.func import grad_and_value

from mutmeta_lib.errors import DataError
from mutmeta_lib.learn import InnerLoop, inner_update
from mutmeta_lib.learn.inner import Loss, Params
from mutmeta_lib.learn.meta import task_gradient
from mutmeta_lib.models.predictor import Predictor
from mutmeta_lib.reproduction.protocol_data import Rows
from mutmeta_lib.tasks.batch import concatenate

WEIGHT_DECAY = 0.01
WARM_UP = 0.1
"""Share of a one-cycle schedule in which the rate rises."""
CLIP = 1.0


def dropped_out(predictor: Predictor, generator: torch.Generator) -> Loss:
    """The predictor's loss with dropout active."""
    return lambda params, rows: predictor.loss(params, rows, generator)


def one_cycle(
    loss: Loss,
    params: Params,
    rows: Rows,
    *,
    peak: float,
    batch_size: int,
    rng: np.random.Generator,
    epochs: int = 0,
    steps: int = 0,
) -> Params:
    """AdamW in shuffled batches, its rate rising to ``peak`` and falling again.

    Args:
        loss: Loss of ``(params, rows)``.
        params: The start; not changed.
        rows: What to learn from.
        peak: The highest rate.
        batch_size: Rows per step; a last incomplete batch of an epoch is dropped.
        rng: Draws the order of the rows.
        epochs: Passes over the rows, unless ``steps`` are given.
        steps: Number of steps, whatever the number of rows.

    Raises:
        DataError: There are fewer rows than one batch.

    """
    per_epoch = len(rows) // batch_size
    if not per_epoch:
        raise DataError(
            f"{len(rows)} rows do not fill a batch of {batch_size}", "lower the batch size"
        )
    total = steps or epochs * per_epoch
    tuned = {name: value.detach().clone().requires_grad_(True) for name, value in params.items()}
    optimiser = torch.optim.AdamW(tuned.values(), lr=peak, weight_decay=WEIGHT_DECAY)
    # One step more than is taken, as a schedule of a single step is not defined.
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=peak, total_steps=total + 1, pct_start=WARM_UP
    )
    order = np.empty(0, dtype=int)
    for step in range(total):
        place = step % per_epoch * batch_size
        if place == 0:
            order = rng.permutation(len(rows))
        optimiser.zero_grad()
        loss(tuned, rows.take(order[place : place + batch_size])).backward()
        optimiser.step()
        schedule.step()
    return {name: value.detach() for name, value in tuned.items()}


MetaGradient = Callable[[Loss, Params, Rows, Rows, InnerLoop], tuple[Tensor, Params]]
"""``(loss, params, support, query, loop)`` to a query loss and the gradient of the meta-step."""


def as_released(
    loss: Loss, params: Params, support: Rows, query: Rows, loop: InnerLoop
) -> tuple[Tensor, Params]:
    """The gradient of the query loss *before* adaptation: joint training.

    The inner loop runs and its result is not used, so that the phase costs what it costs there.
    """
    inner_update(loss, params, support, replace(loop, first_order=True))
    gradient, value = grad_and_value(loss)(params, query)
    return value, gradient


def first_order(
    loss: Loss, params: Params, support: Rows, query: Rows, loop: InnerLoop
) -> tuple[Tensor, Params]:
    """MAML with the inner gradients taken as constants."""
    return task_gradient(loss, params, support, query, replace(loop, first_order=True))


def second_order(
    loss: Loss, params: Params, support: Rows, query: Rows, loop: InnerLoop
) -> tuple[Tensor, Params]:
    """MAML, differentiated through the inner loop."""
    return task_gradient(loss, params, support, query, replace(loop, first_order=False))


ARMS: dict[str, MetaGradient] = {
    "released": as_released,
    "first_order": first_order,
    "second_order": second_order,
}
"""As released, and as described in first and second order."""


def draw_support_query(
    n: int, support: int, query: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of a support and a query set that share none.

    Raises:
        DataError: There are fewer rows than both need.

    """
    if n < support + query:
        raise DataError(
            f"{n} rows do not hold {support} support and {query} query rows", "lower the sizes"
        )
    order = rng.permutation(n)
    return order[:support], order[support : support + query]


def meta_train_sets(
    gradient: MetaGradient,
    loss: Loss,
    params: Params,
    sets: Sequence[Sequence[Rows]],
    loop: InnerLoop,
    *,
    epochs: int,
    support: int,
    query: int,
    meta_lr: float,
    rng: np.random.Generator,
) -> Params:
    """Meta-train a start; each data set is given in parts, here training and test file.

    Args:
        gradient: One of `ARMS`.
        loss: Loss of ``(params, rows)``.
        params: The start; not changed.
        sets: The data sets.
        loop: The inner loop.
        epochs: Visits to each data set, one meta-step each.
        support: Rows to adapt on.
        query: Rows whose loss is asked about.
        meta_lr: Adam's rate.
        rng: Draws the order of the data sets, and the rows.

    """
    current = {name: value.detach().clone().requires_grad_(True) for name, value in params.items()}
    optimiser = torch.optim.Adam(current.values(), lr=meta_lr)
    for _ in range(epochs):
        for which in rng.permutation(len(sets)):
            drawn = draw_support_query(sum(map(len, sets[which])), support, query, rng)
            ready = {name: value.detach() for name, value in current.items()}
            _, found = gradient(loss, ready, *(_pick(sets[which], rows) for rows in drawn), loop)
            for name, value in current.items():
                value.grad = found[name].detach()
            torch.nn.utils.clip_grad_norm_(current.values(), CLIP)
            optimiser.step()
    return {name: value.detach() for name, value in current.items()}


def _pick(parts: Sequence[Rows], index: np.ndarray) -> Rows:
    """Rows by their number in all parts one after the other; parts first, then as drawn."""
    first, found = 0, []
    for part in parts:
        own = index[(index >= first) & (index < first + len(part))] - first
        if len(own):
            found.append(part.take(own))
        first += len(part)
    if len(found) == 1:
        return found[0]
    return Rows(
        concatenate([rows.tokens for rows in found]), torch.cat([rows.labels for rows in found])
    )
