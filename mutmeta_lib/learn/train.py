"""The outer loop: one training loop for MAML, its family and its joint-training control.

Adam on the meta-gradient moves the start of the inner loop; what differs from one algorithm to the
next is in `algorithms`. With ``algorithm="multitask"`` the same loop, on the same draws of the same
labels, trains the un-adapted predictor on support and query together: the control that says what
*meta*-learning adds to having seen the data.
"""

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from mutmeta_lib.errors import DataError
from mutmeta_lib.learn.algorithms import ALGORITHMS, Algorithm
from mutmeta_lib.learn.distributed import ALONE, Ranks
from mutmeta_lib.learn.gradients import meta_gradient
from mutmeta_lib.learn.inner import InnerLoop, Params
from mutmeta_lib.learn.run_state import RunState, curves, run_identity
from mutmeta_lib.models.predictor import Predictor
from mutmeta_lib.records.progress import held_interrupt
from mutmeta_lib.seeds import stable_seed
from mutmeta_lib.tasks.tasks import EncodedAssay, Task, sample_tasks

ON_NONFINITE = ("stop", "skip")
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class MetaTraining:
    """Settings of the outer loop (defaults as in the public code where it states one).

    ``steps`` meta-steps of ``tasks_per_step`` tasks, each with ``support`` + ``query`` labelled
    variants; Adam with rate ``meta_lr``, gradient norm clipped at ``clip``. Every
    ``validate_every`` steps the mean query loss on fixed meta-validation tasks is taken, and the
    start with the lowest one is returned. A task that is not finite stops the run, or is left out
    with a warning (``on_nonfinite="skip"``). ``backend`` is a way to the gradient (`gradients`).
    """

    algorithm: str = "maml"
    steps: int = 200
    tasks_per_step: int = 4
    support: int = 16
    query: int = 16
    inner: InnerLoop = field(default_factory=InnerLoop)
    meta_lr: float = 1e-3
    clip: float = 1.0
    validate_every: int = 20
    validation_tasks: int = 16
    backend: str = "auto"
    on_nonfinite: str = "stop"
    precision: str = "float32"

    def __post_init__(self):
        known = {"algorithm": ALGORITHMS, "on_nonfinite": ON_NONFINITE, "precision": PRECISIONS}
        for name, choices in known.items():
            if (given := getattr(self, name)) not in choices:
                raise DataError(f"unknown {name} {given!r}", f"choose from {', '.join(choices)}")
        if self.precision == "bfloat16" and self.algorithm in ("r2d2", "deepkernel"):
            told = f"{self.algorithm} solves a linear system, which bfloat16 is too coarse for"
            raise DataError(told, "choose precision='float32'")


@dataclass(frozen=True, eq=False)
class Trained:
    """A meta-trained start, where it came from, and what it cost.

    A row of ``history`` is a meta-step; its validation_loss is NaN where it was not taken.
    """

    params: Params
    settings: MetaTraining
    seed: int
    best_step: int
    history: tuple[dict[str, float], ...]
    seconds: float


def pick_device(device: str = "auto") -> torch.device:
    """``auto`` is the first CUDA device where there is one, else the CPU."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


@dataclass(frozen=True, eq=False)
class OuterLoop:
    """The work of a meta-step, shared among the processes of a run."""

    algorithm: Algorithm
    settings: MetaTraining
    ranks: Ranks = ALONE

    def gradient(self, params: Params, tasks: Sequence[Task]) -> tuple[float, Params, list[float]]:
        """`meta_gradient` over all tasks, each rank's share computed there and summed up."""
        algorithm, settings = self.algorithm, self.settings
        loop = algorithm.training_loop(algorithm.loop(settings.inner))
        skip, own, losses = settings.on_nonfinite == "skip", self.ranks.share(tasks), []
        gradient = {name: torch.zeros_like(value) for name, value in params.items()}
        if own:
            auto, device = settings.backend == "auto", next(iter(params.values())).device.type
            with torch.autocast(device, torch.bfloat16, enabled=settings.precision == "bfloat16"):
                loss, gradient, found = meta_gradient(
                    algorithm.model.loss,
                    params,
                    [algorithm.batches(task) for task in own],
                    loop,
                    backend=algorithm.fastest(loop) if auto else settings.backend,
                    backends=algorithm.backends(loop),
                    skip_nonfinite=skip,
                )
            losses = found.tolist()
            if self.ranks.size == 1:
                return float(loss), gradient, losses

        # Each rank's mean becomes a sum again, and the sum over ranks the mean over all tasks.
        share = sum(np.isfinite(loss) or not skip for loss in losses)
        total = self.ranks.sum({name: value * share for name, value in gradient.items()})
        losses = self.ranks.gather(losses, len(tasks))
        kept = [loss for loss in losses if np.isfinite(loss) or not skip]
        mean = {name: value / max(len(kept), 1) for name, value in total.items()}
        return float(np.mean(kept)) if kept else float("nan"), mean, losses

    def step(self, state: RunState, tasks: Sequence[Task]) -> tuple[float, float, int]:
        """Move the parameters of ``state`` by one step of its optimiser.

        Returns the mean query loss before it, the gradient norm before clipping, and how many
        tasks were left out. Where that is not finite, a DataError names step and assays.
        """
        loss, gradient, losses = self.gradient(state.params(), tasks)
        for name, value in state.current.items():
            value.grad = gradient[name]
        norm = torch.nn.utils.clip_grad_norm_(state.current.values(), self.settings.clip)
        broken = [task for task, value in zip(tasks, losses, strict=True) if np.isnan(value)]
        skipped = len(broken) if self.settings.on_nonfinite == "skip" else 0
        ids = ", ".join(sorted({task.support.assay.assay.id for task in broken or tasks}))
        if skipped < len(tasks):
            if not (np.isfinite(loss) and torch.isfinite(norm)):
                told = f"loss or gradient is not finite at meta-step {state.step} (assays {ids})"
                raise DataError(told, "lower inner.lr or meta_lr, or look at these assays' scores")
            state.optimiser.step()
        if skipped and self.ranks.first:
            told = f"meta-step {state.step}: {skipped} of {len(tasks)} tasks skipped, loss or "
            warnings.warn(f"{told}gradient is not finite (assays {ids})", stacklevel=3)
        return loss, float(norm), skipped

    def validation(self, params: Params, tasks: Sequence[Task]) -> float:
        """Mean query loss over tasks after adaptation (no meta-gradient)."""
        algorithm, loop = self.algorithm, self.algorithm.loop(self.settings.inner)
        loss, pairs = algorithm.model.loss, [(task.support, task.query) for task in tasks]
        together = algorithm.backends(loop).get("lowrank")
        with torch.no_grad():
            if together is not None and self.ranks.size == 1:
                return float(together.losses(params, pairs, loop).mean())
            losses = [
                float(loss(algorithm.update(loss, params, support, loop), query))
                for support, query in self.ranks.share(pairs)
            ]
        return float(np.mean(self.ranks.gather(losses, len(tasks))))

    def validate(self, state: RunState, tasks: Sequence[Task]) -> float:
        """The validation loss where it is due, else NaN; the best start is kept in ``state``."""
        due = state.step % self.settings.validate_every == 0 or state.step == self.settings.steps
        if not (tasks and due):
            return float("nan")
        loss = self.validation(state.params(), tasks)
        if not np.isfinite(loss) and self.ranks.first:
            warnings.warn(
                f"meta-step {state.step}: the validation loss is not finite", stacklevel=3
            )
        if loss < state.best_loss:
            state.best = {name: value.clone() for name, value in state.params().items()}
            state.best_loss, state.best_step = loss, state.step
        return loss


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

    What cannot go on is a DataError: a checkpoint of other settings or data, a file that cannot be
    read or written, a task that is not finite, another process that ended.

    Args:
        predictor: the model as a function, on the device of ``params``.
        params: initial parameters; not changed. What an algorithm learns beside them (rates, a
            ridge penalty) is added, what it has no use for (R2-D2: the MLP head) is left out.
        assays: meta-training assays.
        settings: the outer loop.
        seed: of the task draws.
        validation: assays of other proteins. Without them the last start is kept.
        checkpoint: file to resume from, to the same numbers as without a stop. If it is damaged,
            the one before it is taken. Ctrl-C ends the step and saves; a second one stops at once.
        checkpoint_every: meta-steps between two saves.
        log_dir: folder for TensorBoard's curves.
        ranks: this process's place among several, each given the same arguments.
        progress: called with ``(step, steps, train loss)``.

    """
    algorithm = ALGORITHMS[settings.algorithm](predictor)
    outer = OuterLoop(algorithm, settings, ranks)
    begun = algorithm.prepare(params, algorithm.loop(settings.inner))
    draws = stable_seed("meta-train", seed)
    state = RunState.begin(begun, settings.meta_lr, np.random.default_rng(draws))
    sizes, checks = {"support": settings.support, "query": settings.query}, []
    if validation:
        rng = np.random.default_rng(stable_seed("meta-validation", seed))
        checks = sample_tasks(validation, settings.validation_tasks, rng=rng, **sizes)
    identity = run_identity(predictor, params, assays, settings, seed, validation)
    ranks.check_same(identity, "settings, data or start")
    if checkpoint is not None:
        state.restore(checkpoint, identity, ranks)
    logs = curves(log_dir if ranks.first else None, first_step=state.step)
    began = time.perf_counter() - state.seconds
    with logs as log, held_interrupt(checkpoint is not None) as interrupted:
        for step in range(state.step, settings.steps + 1):
            tasks = sample_tasks(assays, settings.tasks_per_step, rng=state.rng, **sizes)
            loss, norm, skipped = outer.step(state, tasks)
            row = {"step": step, "train_loss": loss}
            row["validation_loss"] = outer.validate(state, checks)
            row["seconds"] = time.perf_counter() - began
            told = {f"loss/{name}": row[f"{name}_loss"] for name in ("train", "validation")}
            told |= {"gradient_norm": norm, "seconds_per_step": row["seconds"] - state.seconds}
            if settings.on_nonfinite == "skip":
                row["skipped"] = told["skipped_tasks"] = skipped
            log(step, told)
            state.history.append(row)
            state.seconds = row["seconds"]
            if progress is not None and ranks.first:
                progress(step, settings.steps, loss)
            stop = any(ranks.all(interrupted()))
            due = stop or step % checkpoint_every == 0 or step == settings.steps
            if checkpoint is not None and due and ranks.first:
                state.save(checkpoint, identity)
            if stop:
                told = f"stopped after meta-step {step} of {settings.steps}; start again to go on "
                raise KeyboardInterrupt(f"{told}from {checkpoint}")
    best = {name: value.detach().clone() for name, value in state.best.items()}
    best_step = state.best_step or settings.steps
    return Trained(best, settings, seed, best_step, tuple(state.history), state.seconds)
