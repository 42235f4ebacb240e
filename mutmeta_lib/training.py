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
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from mutmeta_lib.checkpoints import checksum, latest_checkpoint, save_checkpoint
from mutmeta_lib.errors import DataError
from mutmeta_lib.interrupts import held_interrupt
from mutmeta_lib.maml import InnerLoop, inner_update, meta_gradient
from mutmeta_lib.maml.algorithms import ALGORITHMS
from mutmeta_lib.maml.inner import Update
from mutmeta_lib.predictor import Params, Predictor
from mutmeta_lib.tasks import EncodedAssay, Task, sample_tasks, stable_seed

ON_NONFINITE = ("stop", "skip")


@dataclass(frozen=True)
class MetaTraining:
    """Settings of the outer loop (defaults as in the public code where it states one).

    ``steps`` meta-steps of ``tasks_per_step`` tasks, each with ``support`` + ``query`` labelled
    variants; Adam with rate ``meta_lr``, gradient norm clipped at ``clip``. Every
    ``validate_every`` steps the mean query loss on fixed meta-validation tasks is taken, and the
    start with the lowest one is returned. A task whose loss or gradient is NaN or infinite stops
    the run, or is left out of its step with a warning (``on_nonfinite="skip"``).
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
    backend: str = "torch.func"
    on_nonfinite: str = "stop"

    def __post_init__(self):
        if self.algorithm not in ALGORITHMS:
            raise ValueError(
                f"unknown algorithm {self.algorithm!r}; choose from {tuple(ALGORITHMS)}"
            )
        if self.on_nonfinite not in ON_NONFINITE:
            raise ValueError(
                f"unknown on_nonfinite {self.on_nonfinite!r}; choose from {ON_NONFINITE}"
            )


@dataclass(frozen=True, eq=False)
class Trained:
    """A meta-trained start, where it came from, and what it cost.

    ``history`` holds one row per meta-step: step, train_loss, validation_loss (NaN where not
    taken), seconds since the start, and with ``on_nonfinite="skip"`` skipped (number of tasks).
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
    training_loop = algorithm.training_loop(loop)
    prepared = algorithm.prepare(params, loop)
    current = {name: value.detach().clone() for name, value in prepared.items()}
    for value in current.values():
        value.requires_grad_(True)
    optimiser = torch.optim.Adam(current.values(), lr=settings.meta_lr)
    rng = np.random.default_rng(stable_seed("meta-train", seed))
    checks = _validation_tasks(validation, settings, seed)
    history: list[dict[str, float]] = []
    best, best_loss, best_step = current, float("inf"), settings.steps
    spent = 0.0

    identity = {
        "settings": asdict(settings),
        "seed": seed,
        "data": sorted(a.assay.sha256 for a in assays),
        "validation": sorted(a.assay.sha256 for a in validation),
        "encoder": predictor.encoder.sha256,
        "start": checksum(params),
        "predictor": [
            predictor.pooling,
            list(predictor.hidden),
            sorted({a.encoding for a in assays}),
        ],
    }
    saved = None if checkpoint is None else latest_checkpoint(checkpoint)
    if saved is not None:
        tensors, state = saved
        if state.get("identity") != identity:
            raise DataError(
                "the checkpoint was written by a run with other settings, data or start",
                "choose another checkpoint file, or delete this one and those before it",
                file=checkpoint,
            )
        _restore(current, optimiser, tensors)
        rng.bit_generator.state = state["rng"]
        history, spent = state["history"], state["seconds"]
        best_loss, best_step = state["best_loss"], state["best_step"]
        if best_loss < float("inf"):
            device = next(iter(current.values())).device
            kept = {name: v for name, v in tensors.items() if name.startswith("best/")}
            best = {name.removeprefix("best/"): v.to(device) for name, v in kept.items()}

    started = time.perf_counter()
    with held_interrupt(checkpoint is not None) as interrupted:
        for step in range(len(history) + 1, settings.steps + 1):
            tasks = sample_tasks(
                assays,
                settings.tasks_per_step,
                support=settings.support,
                query=settings.query,
                rng=rng,
            )
            batches = [algorithm.batches(task) for task in tasks]
            frozen = {name: value.detach() for name, value in current.items()}
            loss, gradient, losses = meta_gradient(
                algorithm.model.loss,
                frozen,
                batches,
                training_loop,
                backend=settings.backend,
                backends=algorithm.backends,
                skip_nonfinite=settings.on_nonfinite == "skip",
            )
            for name, value in current.items():
                value.grad = gradient[name]
            norm = torch.nn.utils.clip_grad_norm_(current.values(), settings.clip)
            broken = [task for task, value in zip(tasks, losses, strict=True) if value.isnan()]
            skipped = len(broken) if settings.on_nonfinite == "skip" else 0
            if skipped < len(tasks):
                if not (torch.isfinite(loss) and torch.isfinite(norm)):
                    raise DataError(
                        f"loss or gradient is not finite at meta-step {step} "
                        f"(assays {_names(broken or tasks)})",
                        "lower inner.lr or meta_lr, or look at these assays' scores",
                    )
                optimiser.step()
            if skipped:
                warnings.warn(
                    f"meta-step {step}: {skipped} of {len(tasks)} tasks skipped, loss or gradient "
                    f"is not finite (assays {_names(broken)})",
                    stacklevel=2,
                )

            check = float("nan")
            if checks and (step % settings.validate_every == 0 or step == settings.steps):
                frozen = {name: value.detach() for name, value in current.items()}
                check = validation_loss(algorithm.model, frozen, checks, loop, algorithm.update)
                if not np.isfinite(check):
                    warnings.warn(
                        f"meta-step {step}: the validation loss is not finite", stacklevel=2
                    )
                if check < best_loss:
                    best = {name: value.clone() for name, value in frozen.items()}
                    best_loss, best_step = check, step
            elapsed = spent + time.perf_counter() - started
            history.append(
                {
                    "step": step,
                    "train_loss": float(loss),
                    "validation_loss": check,
                    "seconds": elapsed,
                }
            )
            if settings.on_nonfinite == "skip":
                history[-1]["skipped"] = skipped
            if progress is not None:
                progress(step, settings.steps, float(loss))
            stop = interrupted()
            due = stop or step % checkpoint_every == 0 or step == settings.steps
            if checkpoint is not None and due:
                state = {
                    "identity": identity,
                    "rng": rng.bit_generator.state,
                    "history": history,
                    "seconds": elapsed,
                    "best_loss": best_loss,
                    "best_step": best_step,
                }
                tensors = _tensors(current, optimiser, best)
                save_checkpoint(checkpoint, tensors, state, keep=checkpoint_keep)
            if stop:
                raise KeyboardInterrupt(
                    f"stopped after meta-step {step} of {settings.steps}; start again to go on "
                    f"from {checkpoint}"
                )

    return Trained(
        params={name: value.detach().clone() for name, value in best.items()},
        settings=settings,
        seed=seed,
        best_step=best_step,
        history=tuple(history),
        seconds=history[-1]["seconds"] if history else 0.0,
    )


def _names(tasks: Sequence[Task]) -> str:
    return ", ".join(sorted({task.support.assay.assay.id for task in tasks}))


def _validation_tasks(
    validation: Sequence[EncodedAssay], settings: MetaTraining, seed: int
) -> list[Task]:
    """Fixed meta-validation tasks, drawn once per run."""
    if not validation:
        return []
    rng = np.random.default_rng(stable_seed("meta-validation", seed))
    return sample_tasks(
        validation,
        settings.validation_tasks,
        support=settings.support,
        query=settings.query,
        rng=rng,
    )


def _tensors(current: Params, optimiser: torch.optim.Adam, best: Params) -> Params:
    """Everything a checkpoint holds as tensors: parameters, Adam moments, best start."""
    tensors = {f"params/{name}": value for name, value in current.items()}
    tensors |= {f"best/{name}": value for name, value in best.items()}
    for name, value in current.items():
        for key, moment in optimiser.state[value].items():
            tensors[f"adam/{key}/{name}"] = moment
    return {name: value.detach().clone() for name, value in tensors.items()}


def _restore(current: Params, optimiser: torch.optim.Adam, tensors: Params) -> None:
    """Put a checkpoint's tensors back in place."""
    with torch.no_grad():
        for name, value in current.items():
            value.copy_(tensors[f"params/{name}"])
            keys = [key for key in tensors if key.startswith("adam/") and key.endswith(f"/{name}")]
            optimiser.state[value] = {
                key.split("/")[1]: tensors[key].to(value.device if "exp" in key else "cpu")
                for key in keys
            }
