"""Adaptation followed step by step: seconds, query error and rank correlation after each step."""

from dataclasses import dataclass

import numpy as np
import torch

from mutmeta_lib.experiments.frozen_heads import descend
from mutmeta_lib.metrics import spearman
from mutmeta_lib.predictor import Params, Predictor
from mutmeta_lib.tasks import Task
from mutmeta_lib.tuning import Rate


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
