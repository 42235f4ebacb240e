"""One meta-step: the shared start moves by the meta-gradient of a few tasks, or is validated."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mutmeta_lib.errors import DataError
from mutmeta_lib.learn import InnerLoop, meta_gradient
from mutmeta_lib.learn.algorithms import Algorithm, support_and_query
from mutmeta_lib.learn.autograd import adapt_alone
from mutmeta_lib.learn.batched import collate
from mutmeta_lib.learn.distributed import ALONE, Ranks
from mutmeta_lib.learn.inner import Update
from mutmeta_lib.learn.run_state import RunState
from mutmeta_lib.learn.training_settings import MetaTraining
from mutmeta_lib.models.predictor import Params, Predictor
from mutmeta_lib.tasks.tasks import Task


@dataclass(frozen=True)
class Step:
    """What a meta-step tells: mean query loss, gradient norm before clipping, tasks left out."""

    loss: float
    gradient_norm: float
    skipped: int


def take_step(
    state: RunState,
    algorithm: Algorithm,
    loop: InnerLoop,
    tasks: Sequence[Task],
    settings: MetaTraining,
    ranks: Ranks = ALONE,
) -> Step:
    """Move the parameters of ``state`` by one step of its optimiser.

    Raises:
        DataError: a task's loss or gradient is not finite and not to be skipped, or what is left
            is not finite; the message names step and assays, on every rank.

    """
    step = len(state.history) + 1
    skip = settings.on_nonfinite == "skip"
    loss, gradient, losses = _gradient(state.params(), algorithm, loop, tasks, settings, ranks)
    for name, value in state.current.items():
        value.grad = gradient[name]
    norm = torch.nn.utils.clip_grad_norm_(state.current.values(), settings.clip)
    broken = [task for task, value in zip(tasks, losses, strict=True) if value.isnan()]
    skipped = len(broken) if skip else 0
    if skipped < len(tasks):
        if not (torch.isfinite(loss) and torch.isfinite(norm)):
            raise DataError(
                f"loss or gradient is not finite at meta-step {step} "
                f"(assays {_names(broken or tasks)})",
                "lower inner.lr or meta_lr, or look at these assays' scores",
            )
        state.optimiser.step()
    if skipped and ranks.first:
        warnings.warn(
            f"meta-step {step}: {skipped} of {len(tasks)} tasks skipped, loss or gradient "
            f"is not finite (assays {_names(broken)})",
            stacklevel=3,
        )
    return Step(float(loss), float(norm), skipped)


def _gradient(
    params: Params,
    algorithm: Algorithm,
    loop: InnerLoop,
    tasks: Sequence[Task],
    settings: MetaTraining,
    ranks: Ranks,
) -> tuple[Tensor, Params, Tensor]:
    """``meta_gradient`` over all tasks, each rank's share computed there and summed up."""
    skip = settings.on_nonfinite == "skip"
    own = ranks.share(tasks)
    if own:
        loop = algorithm.training_loop(loop)
        auto = settings.backend == "auto"
        device = next(iter(params.values())).device.type
        coarse = settings.precision == "bfloat16"
        with torch.autocast(device, torch.bfloat16, enabled=coarse):
            loss, gradient, losses = meta_gradient(
                algorithm.model.loss,
                params,
                [algorithm.batches(task) for task in own],
                loop,
                backend=algorithm.fastest(loop) if auto else settings.backend,
                backends=algorithm.backends,
                batched=algorithm.batched(loop),
                skip_nonfinite=skip,
            )
        if ranks.size == 1:
            return loss, gradient, losses
    else:  # fewer tasks than ranks
        gradient = {name: torch.zeros_like(value) for name, value in params.items()}
        losses = next(iter(params.values())).new_zeros(0)
    # Each rank's mean becomes a sum again, and the sum over ranks the mean over all tasks.
    counted = int(losses.isfinite().sum()) if skip else len(own)
    losses = ranks.gather(losses, len(tasks))
    kept = losses[losses.isfinite()] if skip else losses
    total = {name: ranks.sum(value * counted) for name, value in gradient.items()}
    return kept.mean(), {name: v / max(len(kept), 1) for name, v in total.items()}, losses


def validation_loss(
    predictor: Predictor,
    params: Params,
    tasks: Sequence[Task],
    loop: InnerLoop,
    update: Update = adapt_alone,
    ranks: Ranks = ALONE,
) -> float:
    """Mean query loss over tasks after adaptation with ``loop`` (no meta-gradient)."""
    loop = replace(loop, first_order=True)
    losses = []
    for task in ranks.share(tasks):
        adapted = update(predictor.loss, params, task.support, loop)
        with torch.no_grad():
            losses.append(float(predictor.loss(adapted, task.query)))
    own = torch.tensor(losses, dtype=torch.float64)
    return float(np.mean(ranks.gather(own, len(tasks)).numpy()))


def validate(
    state: RunState,
    algorithm: Algorithm,
    loop: InnerLoop,
    tasks: Sequence[Task],
    settings: MetaTraining,
    ranks: Ranks = ALONE,
) -> float:
    """The validation loss where it is due (NaN elsewhere); the best start is kept in ``state``."""
    step = len(state.history) + 1
    if not tasks or (step % settings.validate_every and step != settings.steps):
        return float("nan")
    together = algorithm.losses(loop).get("lowrank") if ranks.size == 1 else None
    if together is not None:
        pairs = [support_and_query(task) for task in tasks]
        with torch.no_grad():
            stacked = collate(algorithm.model, pairs, next(iter(state.current.values())).device)
            loss = float(together(state.params(), stacked, loop).mean())
    else:
        loss = validation_loss(algorithm.model, state.params(), tasks, loop, algorithm.adapt, ranks)
    if not np.isfinite(loss) and ranks.first:
        warnings.warn(f"meta-step {step}: the validation loss is not finite", stacklevel=3)
    if loss < state.best_loss:
        state.best = {name: value.clone() for name, value in state.params().items()}
        state.best_loss, state.best_step = loss, step
    return loss


def _names(tasks: Sequence[Task]) -> str:
    return ", ".join(sorted({task.support.assay.assay.id for task in tasks}))
