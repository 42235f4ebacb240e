"""The outer loop: one training loop for MAML, its family and its joint-training control.

Meta-training moves the start of the inner loop by Adam on the meta-gradient. What differs from one
algorithm to the next is in ``maml.algorithms``, nothing of it here. With
``algorithm="multitask"`` the same loop, on the same draws of the same labels, trains the
un-adapted predictor on support and query together: the control that says what *meta*-learning
adds to having seen the data.
"""

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from mutmeta_lib.errors import DataError
from mutmeta_lib.interrupts import held_interrupt
from mutmeta_lib.maml import InnerLoop, inner_update, meta_gradient
from mutmeta_lib.maml.algorithms import ALGORITHMS, Algorithm
from mutmeta_lib.maml.inner import Update
from mutmeta_lib.predictor import Params, Predictor
from mutmeta_lib.run_state import RunState, begin, restore, run_identity, save
from mutmeta_lib.tasks import EncodedAssay, Task, sample_tasks, stable_seed
from mutmeta_lib.training_settings import MetaTraining, Trained

__all__ = ["MetaTraining", "Trained", "meta_train", "pick_device", "validation_loss"]


def pick_device(device: str = "auto") -> torch.device:
    """``auto`` is the first CUDA device where there is one, else the CPU."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


def validation_loss(
    predictor: Predictor,
    params: Params,
    tasks: Sequence[Task],
    loop: InnerLoop,
    update: Update = inner_update,
) -> float:
    """Mean query loss over tasks after adaptation with ``loop`` (no meta-gradient)."""
    loop = replace(loop, first_order=True)
    losses = []
    for task in tasks:
        adapted = update(predictor.loss, params, task.support, loop)
        with torch.no_grad():
            losses.append(float(predictor.loss(adapted, task.query)))
    return float(np.mean(losses))


def meta_train(
    predictor: Predictor,
    params: Params,
    assays: Sequence[EncodedAssay],
    settings: MetaTraining,
    *,
    seed: int,
    validation: Sequence[EncodedAssay] = (),
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 20,
    checkpoint_keep: int = 2,
    progress: Callable[[int, int, float], None] | None = None,
) -> Trained:
    """Meta-train a start.

    Args:
        predictor: the model as a function; its device must be that of ``params``.
        params: initial parameters; not changed. What an algorithm learns beside them (rates, a
            ridge penalty) is added, what it has no use for (R2-D2: the MLP head) is left out.
        assays: meta-training assays.
        settings: the outer loop.
        seed: of the task draws.
        validation: meta-validation assays (other proteins). Without them the last start is kept.
        checkpoint: file to save to and to resume from. A resumed run ends at the same numbers as
            one that was never stopped. If the file is damaged, the one before it is taken, with a
            warning.
        checkpoint_every: meta-steps between two saves.
        checkpoint_keep: checkpoints kept, the newest included.
        progress: called with ``(step, steps, train loss)``.

    Raises:
        DataError: the checkpoint belongs to other settings or data, or cannot be read or written;
            or a task's loss or gradient is not finite, and the message names step and assay.
        KeyboardInterrupt: Ctrl-C was pressed. With a checkpoint, the step is finished and saved
            first; a second Ctrl-C stops at once.

    """
    algorithm = ALGORITHMS[settings.algorithm](predictor)
    loop = algorithm.loop(settings.inner)
    rng = np.random.default_rng(stable_seed("meta-train", seed))
    state = begin(algorithm.prepare(params, loop), settings, rng)
    checks = _validation_tasks(validation, settings, seed)
    identity = run_identity(predictor, params, assays, settings, seed, validation)
    if checkpoint is not None:
        restore(state, checkpoint, identity)
    began = time.perf_counter() - state.seconds
    with held_interrupt(checkpoint is not None) as interrupted:
        for step in range(len(state.history) + 1, settings.steps + 1):
            tasks = _draw(assays, settings.tasks_per_step, settings, state.rng)
            row = _move(state, algorithm, loop, tasks, settings, step)
            row["validation_loss"] = _validate(state, algorithm, loop, checks, settings, step)
            row["seconds"] = state.seconds = time.perf_counter() - began
            state.history.append(row)
            if progress is not None:
                progress(step, settings.steps, row["train_loss"])
            stop = interrupted()
            due = stop or step % checkpoint_every == 0 or step == settings.steps
            if checkpoint is not None and due:
                save(state, checkpoint, identity, checkpoint_keep)
            if stop:
                raise KeyboardInterrupt(
                    f"stopped after meta-step {step} of {settings.steps}; start again to go on "
                    f"from {checkpoint}"
                )
    best = {name: value.detach().clone() for name, value in state.best.items()}
    return Trained(best, settings, seed, state.best_step, tuple(state.history), state.seconds)


def _move(
    state: RunState,
    algorithm: Algorithm,
    loop: InnerLoop,
    tasks: Sequence[Task],
    settings: MetaTraining,
    step: int,
) -> dict[str, float]:
    """One meta-step: the parameters move by the meta-gradient of the tasks."""
    skip = settings.on_nonfinite == "skip"
    loss, gradient, losses = meta_gradient(
        algorithm.model.loss,
        state.params(),
        [algorithm.batches(task) for task in tasks],
        algorithm.training_loop(loop),
        backend=settings.backend,
        backends=algorithm.backends,
        skip_nonfinite=skip,
    )
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
    if skipped:
        warnings.warn(
            f"meta-step {step}: {skipped} of {len(tasks)} tasks skipped, loss or gradient "
            f"is not finite (assays {_names(broken)})",
            stacklevel=3,
        )
    row = {"step": step, "train_loss": float(loss)}
    return {**row, "skipped": skipped} if skip else row


def _validate(
    state: RunState,
    algorithm: Algorithm,
    loop: InnerLoop,
    tasks: Sequence[Task],
    settings: MetaTraining,
    step: int,
) -> float:
    """The validation loss where it is due (NaN elsewhere); the best start is kept."""
    if not tasks or (step % settings.validate_every and step != settings.steps):
        return float("nan")
    loss = validation_loss(algorithm.model, state.params(), tasks, loop, algorithm.update)
    if not np.isfinite(loss):
        warnings.warn(f"meta-step {step}: the validation loss is not finite", stacklevel=3)
    if loss < state.best_loss:
        state.best = {name: value.clone() for name, value in state.params().items()}
        state.best_loss, state.best_step = loss, step
    return loss


def _names(tasks: Sequence[Task]) -> str:
    return ", ".join(sorted({task.support.assay.assay.id for task in tasks}))


def _draw(
    assays: Sequence[EncodedAssay], n_tasks: int, settings: MetaTraining, rng: np.random.Generator
) -> list[Task]:
    return sample_tasks(assays, n_tasks, support=settings.support, query=settings.query, rng=rng)


def _validation_tasks(
    validation: Sequence[EncodedAssay], settings: MetaTraining, seed: int
) -> list[Task]:
    """Fixed meta-validation tasks, drawn once per run."""
    if not validation:
        return []
    rng = np.random.default_rng(stable_seed("meta-validation", seed))
    return _draw(validation, settings.validation_tasks, settings, rng)
