"""Few-shot evaluation: every method adapts to the same supports and predicts the same queries.

None of this knows which method it holds. Estimates of the rows are in ``estimates``.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import torch

from mutmeta_lib.errors import DataError
from mutmeta_lib.learn.methods import Method
from mutmeta_lib.seeds import stable_seed
from mutmeta_lib.tasks.metrics import METRICS
from mutmeta_lib.tasks.tasks import EncodedAssay, Task, draw_task, make_task, task_generator

MIN_QUERY = 10
"""Fewest variants an assay must have left to predict."""


def evaluate(
    methods: Mapping[str, Method],
    assays: Sequence[EncodedAssay],
    *,
    shots: Sequence[int],
    seeds: Sequence[int],
    max_query: int | None = None,
    pool: int | None = None,
) -> pd.DataFrame:
    """Adapt and score every method on every assay, seed and number of shots.

    Supports of growing size are nested and the query set is the same for all shots and methods
    (``tasks.draw_task``): ``pool`` variants (the most shots when None) are reserved for supports,
    and at most ``max_query`` of the others predicted. A method's own randomness comes from seed,
    assay, method and shots alone. Query labels are NaN for ``predict``, and for ``deviation``
    where a method has it.

    There is a row per assay, seed, shots and method, as of `score`. Errors are in the assay's own
    units; they and the coverage of intervals are NaN where the support identifies no scale (fewer
    than two shots, or equal labels) or the method only ranks. Seconds are wall-clock. An assay that
    is too small is a DataError.
    """
    pool = max(shots) if pool is None else pool
    for assay in assays:
        if len(assay) < (needed := pool + MIN_QUERY):
            told = f"assay {assay.assay.id} has {len(assay)} variants, {pool} shots need {needed}"
            raise DataError(told, "leave the assay out or ask for fewer shots")
    rows = []
    for assay, seed, k in product(assays, seeds, shots):
        rng = task_generator(seed, assay.assay.id)
        task = draw_task(assay, k, rng, pool=pool, max_query=max_query)
        rows += [score(name, method, task, seed) for name, method in methods.items()]
    return pd.DataFrame(rows)


def score(name: str, method: Method, task: Task, seed: int) -> dict[str, Any]:
    """Adapt and score one method on one task: a row of `evaluate`, with all of `METRICS`.

    It is a DataError if the query scores are all equal, or a prediction is not finite.
    """
    assay, shots = task.query.assay.assay, len(task.support)
    where = f"method {name} on assay {assay.id}, seed {seed}, {shots} shots"
    measured = task.query.scores
    if np.ptp(measured) == 0:
        told = f"the query scores of assay {assay.id} (seed {seed}) are all equal"
        raise DataError(told, "leave the assay out or allow more query variants")
    generator = torch.Generator().manual_seed(stable_seed("adapt", seed, assay.id, name, shots))
    state, seconds_adapt = _timed(method.adapt, task.support, generator)
    hidden = replace(task.query, labels=torch.full_like(task.query.labels, float("nan")))
    labels, seconds_predict = _timed(method.predict, state, hidden)
    scale = task.label_scale
    predicted = scale.to_scores(_checked(labels, len(measured), where))
    spread = getattr(method, "deviation", lambda *given: None)(state, hidden)
    if spread is not None:
        spread = scale.scale * _checked(spread, len(measured), f"{where}, deviation")
    told = {"location": scale.location, "deviation": spread, "unseen": unseen_sites(task)}
    scaled = scale.identified and not getattr(method, "ranks_only", False)
    usable = {k: m for k, m in METRICS.items() if scaled or not m.needs_scale}
    return {
        "method": name,
        "assay": assay.id,
        "protein": assay.protein,
        "property": assay.property,
        "seed": seed,
        "shots": shots,
        "n_query": len(measured),
        **dict.fromkeys(METRICS, float("nan")),
        **{
            key: metric.function(predicted, measured, *(told[taken] for taken in metric.takes))
            for key, metric in usable.items()
        },
        "seconds_adapt": seconds_adapt,
        "seconds_predict": seconds_predict,
    }


def _checked(values: Any, n: int, where: str) -> np.ndarray:
    """What a method predicts of n variants as ``(n,)`` float64, if it is of this shape, finite."""
    values = np.asarray(values, dtype=float)
    if values.shape != (n,):
        raise ValueError(f"{where}: predicted shape {values.shape}, not ({n},)")
    if (odd := ~np.isfinite(values)).any():
        told = f"{where}: {odd.sum()} of {n} predictions are not finite"
        raise DataError(told, "lower its learning rate or look at the support")
    return values


def unseen_sites(task: Task) -> np.ndarray:
    """Which query variants change no site that a variant of the support changes, ``(n,)``."""
    seen = {change.position for variant in task.support.variants for change in variant}
    return np.array([seen.isdisjoint(c.position for c in v) for v in task.query.variants])


def _timed(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    # Work on a GPU is queued; the clock waits until it is done.
    wait = torch.cuda.synchronize if torch.cuda.is_initialized() else lambda: None
    wait()
    began = time.perf_counter()
    made = function(*arguments)
    wait()
    return made, time.perf_counter() - began


def hold_out_task(
    assay: EncodedAssay, hold_out: str, share: float, seed: int, max_query: int | None = None
) -> Task:
    """Most rows of an assay as support, held-out rows as query; labels are scaled by the former.

    ``variants`` holds out a share of the rows, ``sites`` one of the mutated sites with all their
    variants; a multiple mutant is held out as soon as one of its sites is.
    """
    rng, variants = task_generator(seed, assay.assay.id), assay.assay.variants
    if hold_out == "variants":
        order = rng.permutation(len(assay))
        test, train = np.split(order, [max(2, round(share * len(assay)))])
    else:
        sites = sorted({change.position for variant in variants for change in variant})
        chosen = set(rng.permutation(sites)[: max(1, round(share * len(sites)))].tolist())
        hit = np.array([any(change.position in chosen for change in one) for one in variants])
        test, train = (rng.permutation(np.nonzero(side)[0]) for side in (hit, ~hit))
    return make_task(assay, train, test[:max_query])


def support_pool(size: int, pool: int) -> int:
    """The support pool that an assay of ``size`` variants can afford: at most ``pool``.

    Smaller assays take one of a few sizes, whatever the shots of a study, so that studies of other
    shots predict the same rows.

    >>> support_pool(200, 40), support_pool(35, 40)
    (40, 20)
    """
    steps = [k for k in (1, 2, 5, 10, 20, 40, 100, pool) if k <= pool and k + MIN_QUERY <= size]
    return max(steps, default=0)
