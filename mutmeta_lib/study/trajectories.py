"""Adaptation followed step by step: seconds, query error and rank correlation after each step."""

from dataclasses import dataclass

import numpy as np
import torch

from mutmeta_lib.learn.tuning import Rate
from mutmeta_lib.models.predictor import Params, Predictor
from mutmeta_lib.study.frozen_heads import descend
from mutmeta_lib.tasks.metrics import spearman
from mutmeta_lib.tasks.tasks import Task

STEPS = (0, 1, 2, 5, 10, 20, 50, 100)
"""Numbers of steps at which starts are compared."""

SHARES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Shares of fine-tuning's seconds at which they are compared."""


@dataclass(frozen=True, eq=False)
class Trajectory:
    """What a task's query set says after each step; arrays of shape ``(steps + 1,)``.

    Attributes:
        seconds: Computation so far, without that of looking.
        errors: Mean squared error on scaled labels.
        ranks: Spearman correlation.

    """

    seconds: np.ndarray
    errors: np.ndarray
    ranks: np.ndarray

    def reaches(self, error: float, by: int | None = None) -> int | None:
        """The first step (up to ``by``) at which the error is no more than ``error``."""
        found = np.flatnonzero(self.errors[: None if by is None else by + 1] <= error)
        return int(found[0]) if len(found) else None

    def at_seconds(self, seconds: float) -> int:
        """The last step that is finished by then."""
        return int(np.searchsorted(self.seconds, seconds, side="right") - 1)


def follow(predictor: Predictor, start: Params, task: Task, rate: Rate, steps: int) -> Trajectory:
    """Take gradient steps on the support set and look at the query set after each.

    A look changes nothing and its time is not counted. An error that is not a number counts as
    infinite: a method that diverged has reached no target.
    """
    tokens, labels, scores = task.query.tokens, task.query.labels, task.query.scores
    seen: list[tuple[float, float, float]] = []

    def look(step: int, seconds: float, params: Params) -> None:
        with torch.no_grad():
            predicted = predictor(params, tokens)
        error = float(torch.mean((predicted - labels) ** 2))
        finite = bool(torch.isfinite(predicted).all())
        rank = spearman(predicted.numpy(), scores) if finite else 0.0
        seen.append((seconds, error if np.isfinite(error) else float("inf"), rank))

    descend(predictor, start, task.support, rate, steps, look)
    return Trajectory(*(np.array(column) for column in zip(*seen, strict=True)))


def arrivals(paths: dict[str, Trajectory], horizon: int, about: dict) -> list[dict]:
    """When each start's error is down to fine-tuning's at its end; twice the horizon if never."""
    ends = paths["finetune"]
    target = float(ends.errors[horizon])
    rows = []
    for arm, path in paths.items():
        step = path.reaches(target)
        stop = len(path.seconds) - 1 if step is None else step
        rows.append(
            {
                **about,
                "arm": arm,
                "reached": step is not None,
                "steps": stop,
                "seconds": float(path.seconds[stop]),
                "seconds_end": float(path.seconds[horizon]),
                "error_start": float(path.errors[0]),
                "error_end": float(path.errors[horizon]),
                "spearman_start": float(path.ranks[0]),
                "spearman_end": float(path.ranks[horizon]),
            }
        )
    return rows


def by_steps(paths: dict[str, Trajectory], horizon: int, about: dict) -> list[dict]:
    """Rank correlation and error, relative to fine-tuning's end, at equal numbers of steps."""
    end = float(paths["finetune"].errors[horizon])
    return [
        {**about, "arm": arm, "step": step, **_at(path, step, end)}
        for arm, path in paths.items()
        for step in STEPS
        if step < len(path.seconds)
    ]


def by_seconds(paths: dict[str, Trajectory], horizon: int, about: dict) -> list[dict]:
    """The same at equal shares of the seconds that fine-tuning takes to its end."""
    ends = paths["finetune"]
    end, whole = float(ends.errors[horizon]), float(ends.seconds[horizon])
    return [
        {**about, "arm": arm, "share": share, **_at(path, path.at_seconds(share * whole), end)}
        for arm, path in paths.items()
        for share in SHARES
    ]


def _at(path: Trajectory, step: int, end: float) -> dict[str, float]:
    error = min(float(path.errors[step]), 1e6)
    ratio = float(np.log(max(error, 1e-12) / max(min(end, 1e6), 1e-12)))
    return {"spearman": float(path.ranks[step]), "log_error_ratio": ratio}
