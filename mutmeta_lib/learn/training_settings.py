"""What a meta-training run is asked for, and what comes out of it."""

from dataclasses import dataclass, field

from mutmeta_lib.learn import InnerLoop
from mutmeta_lib.learn.algorithms import ALGORITHMS
from mutmeta_lib.models.predictor import Params

ON_NONFINITE = ("stop", "skip")
PRECISIONS = ("float32", "bfloat16")
CLOSED_FORM = ("r2d2", "deepkernel")
"""Algorithms that solve a linear system, for which bfloat16 is too coarse."""


@dataclass(frozen=True)
class MetaTraining:
    """Settings of the outer loop (defaults as in the public code where it states one).

    ``steps`` meta-steps of ``tasks_per_step`` tasks, each with ``support`` + ``query`` labelled
    variants; Adam with rate ``meta_lr``, gradient norm clipped at ``clip``. Every
    ``validate_every`` steps the mean query loss on fixed meta-validation tasks is taken, and the
    start with the lowest one is returned. A task whose loss or gradient is NaN or infinite stops
    the run, or is left out of its step with a warning (``on_nonfinite="skip"``). ``backend`` is a
    way to compute the meta-gradient (``learn.meta``, ``learn.batched``), all to the same numbers up
    to rounding; ``auto`` is the fastest.
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
        if self.algorithm not in ALGORITHMS:
            raise ValueError(
                f"unknown algorithm {self.algorithm!r}; choose from {tuple(ALGORITHMS)}"
            )
        if self.on_nonfinite not in ON_NONFINITE:
            raise ValueError(
                f"unknown on_nonfinite {self.on_nonfinite!r}; choose from {ON_NONFINITE}"
            )
        if self.precision not in PRECISIONS:
            raise ValueError(f"unknown precision {self.precision!r}; choose from {PRECISIONS}")
        if self.precision == "bfloat16" and self.algorithm in CLOSED_FORM:
            raise ValueError(
                f"{self.algorithm} solves a linear system, which bfloat16 is too coarse for; "
                "choose precision='float32'"
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
