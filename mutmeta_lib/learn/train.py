"""The outer loop: Adam on the meta-gradient moves the start of the inner loop.

What differs from one algorithm to the next is in `algorithms`. ``multitask`` is the control: on the
same draws of the same labels it trains the un-adapted predictor on support and query together.
"""

import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from mutmeta_lib.errors import DataError, Diverged
from mutmeta_lib.learn.algorithms import ALGORITHMS, Algorithm
from mutmeta_lib.learn.gradients import Together, meta_gradient
from mutmeta_lib.learn.inner import InnerLoop, Params
from mutmeta_lib.learn.run_state import RunState, run_identity
from mutmeta_lib.models.predictor import Predictor
from mutmeta_lib.records.progress import held_interrupt
from mutmeta_lib.seeds import stable_seed
from mutmeta_lib.tasks.tasks import EncodedAssay, Task, sample_tasks


@dataclass(frozen=True)
class MetaTraining:
    """Settings of the outer loop (defaults as in the public code where it states one).

    ``support`` and ``query`` are labels per task, ``meta_lr`` is Adam's rate, ``clip`` the largest
    gradient norm. Every ``validate_every`` steps the mean query loss on fixed meta-validation tasks
    is taken, and the start with the lowest one is returned. For ``backend`` see `gradients`.
    ``schedule`` ``one_cycle`` warms the rate up over 15 % of the steps and lets it fall to 0 along
    a cosine; ``weight_decay`` shrinks matrices by that share of the rate in every step; with
    ``dropout`` the encoder is in training mode while the gradient is taken.
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
    precision: str = "float32"
    schedule: str = "constant"
    weight_decay: float = 0.0
    dropout: bool = False

    def __post_init__(self):
        known = {"algorithm": ALGORITHMS, "precision": ("float32", "bfloat16")}
        known["schedule"] = ("constant", "one_cycle")
        for name, choices in known.items():
            if (given := getattr(self, name)) not in choices:
                raise DataError(f"unknown {name} {given!r}", f"choose from {', '.join(choices)}")
        if self.precision == "bfloat16" and self.algorithm in ("r2d2", "deepkernel", "ranker"):
            told = f"{self.algorithm} solves a linear system, which bfloat16 is too coarse for"
            raise DataError(told, "choose precision='float32'")

    def rate(self, step: int) -> float:
        """Adam's rate at a meta-step, from 1 to ``steps``."""
        if self.schedule == "constant":
            return self.meta_lr
        warm = max(1, round(0.15 * self.steps))
        if step <= warm:
            return self.meta_lr * (0.04 + 0.96 * step / warm)
        return self.meta_lr * (1 + math.cos(math.pi * (step - warm) / (self.steps - warm))) / 2


@dataclass(frozen=True, eq=False)
class Trained:
    """A meta-trained start; ``history`` has a row per meta-step, NaN where no validation was."""

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
    """The work of a meta-step."""

    algorithm: Algorithm
    settings: MetaTraining
    seed: int = 0

    def step(self, state: RunState, tasks: Sequence[Task]) -> tuple[float, float]:
        """Move the parameters of ``state`` by one step of its optimiser.

        Returns the mean query loss before it and the gradient norm before clipping. Where they are
        not finite, `Diverged` names step and assays.
        """
        algorithm, settings, params = self.algorithm, self.settings, state.params()
        loop = algorithm.training_loop(algorithm.loop(settings.inner))
        device = next(iter(params.values())).device.type
        low = torch.autocast(device, torch.bfloat16, enabled=settings.precision == "bfloat16")
        with low, self.dropping(state.step):
            loss, gradient, losses = meta_gradient(
                algorithm.model.loss,
                params,
                [algorithm.batches(task) for task in tasks],
                loop,
                backend=settings.backend,
                backends=algorithm.backends(loop),
            )
        for name, value in state.current.items():
            value.grad = gradient[name]
        norm = torch.nn.utils.clip_grad_norm_(state.current.values(), settings.clip)
        if not (loss.isfinite() and norm.isfinite()):
            broken = [task for task, one in zip(tasks, losses, strict=True) if not one.isfinite()]
            ids = ", ".join(sorted({task.support.assay.assay.id for task in broken or tasks}))
            told = f"loss or gradient is not finite at meta-step {state.step} (assays {ids})"
            raise Diverged(told, "lower inner.lr or meta_lr, or look at these assays' scores")
        rate = settings.rate(state.step)
        for group in state.optimiser.param_groups:
            group["lr"] = rate
        for value in state.current.values():
            if settings.weight_decay and value.dim() > 1:
                value.data.mul_(1 - rate * settings.weight_decay)
        state.optimiser.step()
        return float(loss), float(norm)

    @contextmanager
    def dropping(self, step: int) -> Iterator[None]:
        """The encoder in training mode, if asked for; what is dropped depends on seed and step."""
        if not self.settings.dropout:
            yield
            return
        module = self.algorithm.model.encoder.module
        with torch.random.fork_rng():
            torch.manual_seed(stable_seed("dropout", self.seed, step))
            module.train()
            try:
                yield
            finally:
                module.eval()

    def validation(self, params: Params, tasks: Sequence[Task]) -> float:
        """Mean query loss over tasks after adaptation (no meta-gradient)."""
        algorithm, loop = self.algorithm, self.algorithm.loop(self.settings.inner)
        loss, pairs = algorithm.model.loss, [(task.support, task.query) for task in tasks]
        together = algorithm.backends(loop)["auto"]
        with torch.no_grad():
            if isinstance(together, Together):
                return float(together.losses(params, pairs, loop).mean())
            adapted = ((algorithm.update(loss, params, s, loop), query) for s, query in pairs)
            return float(np.mean([float(loss(*one)) for one in adapted]))

    def validate(self, state: RunState, tasks: Sequence[Task]) -> float:
        """The validation loss where it is due, else NaN; the best start is kept in ``state``."""
        due = state.step % self.settings.validate_every == 0 or state.step == self.settings.steps
        if not (tasks and due):
            return float("nan")
        loss = self.validation(state.params(), tasks)
        if not np.isfinite(loss):
            told = f"meta-step {state.step}: the validation loss is not finite"
            warnings.warn(told, stacklevel=3)
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
    progress: Callable[[int, int, float], None] | None = None,
) -> Trained:
    """Meta-train a start from ``params``, which are not changed.

    What an algorithm learns beside them (rates, a ridge penalty) is added, what it has no use for
    (R2-D2: the MLP head) is left out. ``validation`` are assays of other proteins; without them the
    last start is kept. A run goes on from ``checkpoint``, saved every ``checkpoint_every`` steps,
    to the same numbers as without a stop. Ctrl-C ends the step and saves, a second one stops at
    once. ``progress`` is called with ``(step, steps, train loss)``. What cannot go on is a
    DataError: a checkpoint of other settings or data, a file that cannot be read or written, and
    (`Diverged`) a loss that is not finite.
    """
    algorithm = ALGORITHMS[settings.algorithm](predictor)
    outer = OuterLoop(algorithm, settings, seed)
    begun = algorithm.prepare(params, algorithm.loop(settings.inner))
    draws = stable_seed("meta-train", seed)
    state = RunState.begin(begun, settings.meta_lr, np.random.default_rng(draws))
    sizes, checks = {"support": settings.support, "query": settings.query}, []
    if validation:
        rng = np.random.default_rng(stable_seed("meta-validation", seed))
        checks = sample_tasks(validation, settings.validation_tasks, rng=rng, **sizes)
    identity = run_identity(predictor, params, assays, settings, seed, validation)
    if checkpoint is not None:
        state.restore(checkpoint, identity)
    began = time.perf_counter() - state.seconds
    with held_interrupt(checkpoint is not None) as interrupted:
        for step in range(state.step, settings.steps + 1):
            tasks = sample_tasks(assays, settings.tasks_per_step, rng=state.rng, **sizes)
            loss, _ = outer.step(state, tasks)
            row = {"step": step, "train_loss": loss}
            row["validation_loss"] = outer.validate(state, checks)
            row["seconds"] = time.perf_counter() - began
            state.history.append(row)
            state.seconds = row["seconds"]
            if progress is not None:
                progress(step, settings.steps, loss)
            stop = interrupted()
            due = stop or step % checkpoint_every == 0 or step == settings.steps
            if checkpoint is not None and due:
                state.save(checkpoint, identity)
            if stop:
                told = f"stopped after meta-step {step} of {settings.steps}; start again to go on "
                raise KeyboardInterrupt(f"{told}from {checkpoint}")
    best = {name: value.detach().clone() for name, value in state.best.items()}
    best_step = state.best_step or settings.steps
    return Trained(best, settings, seed, best_step, tuple(state.history), state.seconds)
