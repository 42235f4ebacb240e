"""The outer loop: one training loop for MAML, its family and its joint-training control.

Meta-training moves the start of the inner loop by Adam on the meta-gradient. What differs from one
algorithm to the next is in ``learn.algorithms``, nothing of it here. With
``algorithm="multitask"`` the same loop, on the same draws of the same labels, trains the
un-adapted predictor on support and query together: the control that says what *meta*-learning
adds to having seen the data.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from mutmeta_lib.learn.algorithms import ALGORITHMS
from mutmeta_lib.learn.distributed import ALONE, Ranks
from mutmeta_lib.learn.meta_step import take_step, validate, validation_loss
from mutmeta_lib.learn.run_state import begin, restore, run_identity, save
from mutmeta_lib.learn.scalar_log import scalar_log
from mutmeta_lib.learn.training_settings import MetaTraining, Trained
from mutmeta_lib.models.predictor import Params, Predictor
from mutmeta_lib.records.interrupts import held_interrupt
from mutmeta_lib.seeds import stable_seed
from mutmeta_lib.tasks.tasks import EncodedAssay, Task, sample_tasks

__all__ = ["MetaTraining", "Trained", "meta_train", "pick_device", "validation_loss"]


def pick_device(device: str = "auto") -> torch.device:
    """``auto`` is the first CUDA device where there is one, else the CPU."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


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
    log_dir: str | Path | None = None,
    ranks: Ranks = ALONE,
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
        log_dir: folder for TensorBoard's curves: loss of training and validation, gradient norm
            before clipping, seconds per step, and skipped tasks where they may be skipped.
        ranks: this process's place among several that train one start together, each given the
            same arguments; the first writes and shows.
        progress: called with ``(step, steps, train loss)``.

    Raises:
        DataError: the checkpoint belongs to other settings or data, or cannot be read or written;
            or a task's loss or gradient is not finite, and the message names step and assay; or
            another process of the run ended, or was given other arguments.
        KeyboardInterrupt: Ctrl-C was pressed. With a checkpoint, the step is finished and saved
            first; a second Ctrl-C stops at once.

    """
    algorithm = ALGORITHMS[settings.algorithm](predictor)
    loop = algorithm.loop(settings.inner)
    rng = np.random.default_rng(stable_seed("meta-train", seed))
    state = begin(algorithm.prepare(params, loop), settings, rng)
    checks = _validation_tasks(validation, settings, seed)
    identity = run_identity(predictor, params, assays, settings, seed, validation)
    ranks.check_same(identity, "settings, data or start")
    if checkpoint is not None:
        restore(state, checkpoint, identity, ranks)
    logs = scalar_log(log_dir if ranks.first else None, first_step=len(state.history) + 1)
    began = time.perf_counter() - state.seconds
    with logs as log, held_interrupt(checkpoint is not None) as interrupted:
        for step in range(len(state.history) + 1, settings.steps + 1):
            tasks = _draw(assays, settings.tasks_per_step, settings, state.rng)
            taken = take_step(state, algorithm, loop, tasks, settings, ranks)
            row = {"step": step, "train_loss": taken.loss}
            row["validation_loss"] = validate(state, algorithm, loop, checks, settings, ranks)
            row["seconds"] = time.perf_counter() - began
            if settings.on_nonfinite == "skip":
                row["skipped"] = taken.skipped
            log(step, _scalars(row, taken.gradient_norm, state.seconds))
            state.history.append(row)
            state.seconds = row["seconds"]
            if progress is not None and ranks.first:
                progress(step, settings.steps, taken.loss)
            stop = ranks.any(interrupted())
            due = stop or step % checkpoint_every == 0 or step == settings.steps
            if checkpoint is not None and due and ranks.first:
                save(state, checkpoint, identity)
            if stop:
                raise KeyboardInterrupt(
                    f"stopped after meta-step {step} of {settings.steps}; start again to go on "
                    f"from {checkpoint}"
                )
    best = {name: value.detach().clone() for name, value in state.best.items()}
    return Trained(best, settings, seed, state.best_step, tuple(state.history), state.seconds)


def _scalars(row: dict[str, float], gradient_norm: float, before: float) -> dict[str, float]:
    """A row of the history as TensorBoard shows it; ``before`` are the seconds of earlier steps."""
    scalars = {
        "loss/train": row["train_loss"],
        "loss/validation": row["validation_loss"],
        "gradient_norm": gradient_norm,
        "seconds_per_step": row["seconds"] - before,
    }
    return scalars | ({"skipped_tasks": row["skipped"]} if "skipped" in row else {})


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
