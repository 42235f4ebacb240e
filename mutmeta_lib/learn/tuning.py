"""Choosing optimiser, rate and number of steps on meta-validation tasks, never on test tasks."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from mutmeta_lib.errors import DataError
from mutmeta_lib.learn.methods import Method, Rate, divergences
from mutmeta_lib.tasks.metrics import relative_mse, spearman
from mutmeta_lib.tasks.tasks import Task


def grid_scores(
    build: Callable[[Rate], Method], tasks: Sequence[Task], grid: Sequence[Rate]
) -> list[dict]:
    """Mean Spearman and geometric mean of the relative error of each rate over the tasks."""
    if not tasks:
        told = "no meta-validation assay is large enough to choose a rate on"
        raise DataError(told, "add assays, or ask for fewer labels")
    rows = []
    for rate in grid:
        method = build(rate)
        with divergences() as diverged:
            ranks, errors = zip(*(_scores(method, task) for task in tasks), strict=True)
        row = {"spearman": float(np.mean(ranks)), "error": float(np.exp(np.mean(np.log(errors))))}
        rows.append(rate._asdict() | row | {"diverged": len(diverged)})
    return rows


def _scores(method: Method, task: Task) -> tuple[float, float]:
    labels = method.predict(method.adapt(task.support, torch.Generator()), task.query)
    predicted = task.label_scale.to_scores(labels)
    return spearman(predicted, task.query.scores), relative_mse(predicted, task.query.scores)


def best_rate(rows: Sequence[dict], by: str = "spearman") -> Rate:
    """The rate with the highest mean Spearman, or the lowest ``error``; the first of equals."""
    sign = {"spearman": 1, "error": -1}[by]
    best = max(rows, key=lambda row: sign * row[by])
    return Rate.of(best)
