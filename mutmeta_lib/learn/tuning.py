"""Choosing a method's optimiser and rate on meta-validation tasks, never on test tasks."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from mutmeta_lib.learn.methods import Method, divergences
from mutmeta_lib.seeds import stable_seed
from mutmeta_lib.tasks.metrics import spearman
from mutmeta_lib.tasks.tasks import EncodedAssay, draw_task, task_generator

Rate = tuple[str, float]
"""Optimiser (``sgd`` or ``adam``) and learning rate."""


def mean_spearman(
    method: Method, assays: Sequence[EncodedAssay], shots: Sequence[int], seed: int, max_query: int
) -> float:
    """Mean query Spearman correlation over assays and numbers of shots, one draw per assay."""
    values = []
    for assay in assays:
        for k in shots:
            rng = task_generator(stable_seed("tuning", seed), assay.assay.id)
            task = draw_task(assay, k, rng, pool=max(shots), max_query=max_query)
            generator = torch.Generator().manual_seed(stable_seed("tuning", seed, k))
            state = method.adapt(task.support, generator)
            values.append(spearman(method.predict(state, task.query), task.query.scores))
    return float(np.mean(values))


def choose_rate(
    build: Callable[[Rate], Method],
    candidates: Sequence[Rate],
    assays: Sequence[EncodedAssay],
    *,
    shots: Sequence[int],
    seed: int,
    max_query: int,
    max_assays: int,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Rate, list[dict]]:
    """The candidate with the best mean Spearman on meta-validation assays.

    Args:
        build: makes the method from a candidate.
        candidates: the grid; every method is given one of the same size.
        assays: meta-validation assays; ``max_assays`` of them, spread evenly, are used.
        shots: numbers of labels to average over.
        seed: of the draws.
        max_query: query rows per task.
        max_assays: assays used, to bound the cost.
        progress: called with ``(done, total)`` after each candidate.

    Returns:
        The choice (first of equals) and one row per candidate with its score and
        how many of its adaptations diverged.

    """
    picks = np.linspace(0, len(assays) - 1, min(max_assays, len(assays))).round().astype(int)
    chosen = [assays[index] for index in picks]
    rows = []
    for optimiser, lr in candidates:
        with divergences() as diverged:
            score = mean_spearman(build((optimiser, lr)), chosen, shots, seed, max_query)
        row = {"optimiser": optimiser, "lr": lr, "validation_spearman": score}
        rows.append({**row, "diverged": len(diverged)})
        if progress:
            progress(len(rows), len(candidates))
    best = max(range(len(rows)), key=lambda index: rows[index]["validation_spearman"])
    return tuple(candidates[best]), rows
