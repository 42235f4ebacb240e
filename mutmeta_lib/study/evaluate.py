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
from mutmeta_lib.tasks.labels import Priors, prior_for
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
    priors: Priors | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Adapt and score every method on every assay, seed and number of shots.

    Supports of growing size are nested and the query set is the same for all shots and methods
    (``tasks.draw_task``). A method's own randomness comes from a generator seeded by seed, assay,
    method and shots, so that no result depends on which others were asked for. Query labels are
    withheld from ``predict``: they are NaN there.

    Errors are in the assay's own units; where the support identifies no scale (fewer than two
    shots, or equal labels, and no prior), or the method was trained on a ranking loss, ``mse``,
    ``mae`` and ``relative_mse`` are NaN. Seconds are wall-clock, with the device synchronised.

    Args:
        methods: name -> method; the name goes into the table.
        assays: meta-test assays.
        shots: support sizes.
        seeds: one draw of support and query per seed and assay.
        max_query: query variants per task; all when None.
        pool: variants reserved for supports; the largest number of shots when None.
        priors: label priors of meta-training assays, applied to the assays whose property and
            units they know; by default none.
        progress: called with ``(done, total)`` after each row.

    Returns:
        One row per assay, seed, shots and method: method, assay, protein, property, seed, shots,
        n_query, one column per entry of ``metrics.METRICS``, seconds_adapt, seconds_predict.

    Raises:
        DataError: an assay is too small, occurs twice, or its query scores are all equal; a
            prediction is not finite (the message names method, assay, seed and shots).

    """
    pool = max(shots) if pool is None else pool
    check_assays(assays, pool)
    total = len(assays) * len(seeds) * len(shots) * len(methods)
    rows = []
    for assay, seed, k in product(assays, seeds, shots):
        rng = task_generator(seed, assay.assay.id)
        prior = prior_for(priors, assay.assay)
        task = draw_task(assay, k, rng, pool=pool, max_query=max_query, prior=prior)
        for name, method in methods.items():
            rows.append(score(name, method, task, seed))
            if progress:
                progress(len(rows), total)
    return pd.DataFrame(rows)


def check_assays(assays: Sequence[EncodedAssay], pool: int) -> None:
    """Refuse an assay given twice, or too small for ``pool`` labels and something to predict."""
    seen = set()
    for assay in assays:
        name = assay.assay.id
        if name in seen:
            raise DataError(f"assay {name} is given twice", "give it once")
        seen.add(name)
        if len(assay) < pool + MIN_QUERY:
            raise DataError(
                f"assay {name} has {len(assay)} variants, {pool} shots need {pool + MIN_QUERY} "
                f"({MIN_QUERY} to predict)",
                "leave the assay out or ask for fewer shots",
            )


def score(name: str, method: Method, task: Task, seed: int) -> dict[str, Any]:
    """Adapt and score one method on one task: a row of `evaluate`."""
    assay, shots = task.query.assay.assay, len(task.support)
    if np.ptp(task.query.scores) == 0:
        raise DataError(
            f"the query scores of assay {assay.id} (seed {seed}) are all equal, "
            "there is nothing to rank",
            "leave the assay out or allow more query variants",
        )
    generator = torch.Generator().manual_seed(stable_seed("adapt", seed, assay.id, name, shots))
    state, seconds_adapt = _timed(method.adapt, task.support, generator)
    hidden = replace(task.query, labels=torch.full_like(task.query.labels, float("nan")))
    labels, seconds_predict = _timed(method.predict, state, hidden)
    labels = np.asarray(labels, dtype=float)
    where = f"method {name} on assay {assay.id}, seed {seed}, {shots} shots"
    if labels.shape != (len(task.query),):
        raise ValueError(f"{where}: predicted shape {labels.shape}, not ({len(task.query)},)")
    if not np.isfinite(labels).all():
        raise DataError(
            f"{where}: {int((~np.isfinite(labels)).sum())} of {len(labels)} predictions are not "
            "finite",
            "lower its learning rate or look at the support",
        )
    predicted, measured = task.label_scale.to_scores(labels), task.query.scores
    defined = task.label_scale.identified and not getattr(method, "ranks_only", False)
    return {
        "method": name,
        "assay": assay.id,
        "protein": assay.protein,
        "property": assay.property,
        "seed": seed,
        "shots": shots,
        "n_query": len(task.query),
        **{
            key: metric.function(predicted, measured)
            if defined or not metric.needs_scale
            else float("nan")
            for key, metric in METRICS.items()
        },
        "seconds_adapt": seconds_adapt,
        "seconds_predict": seconds_predict,
    }


def _timed(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    _synchronise()
    began = time.perf_counter()
    made = function(*arguments)
    _synchronise()
    return made, time.perf_counter() - began


def _synchronise() -> None:
    # Work on a GPU is queued; without this the clock would stop before it is done.
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def hold_out_task(
    assay: EncodedAssay, hold_out: str, share: float, seed: int, max_query: int | None = None
) -> Task:
    """Most rows of an assay as support, held-out rows as query; labels are scaled by the former.

    ``variants`` holds out a share of the rows, ``sites`` one of the mutated sites with all their
    variants; a multiple mutant is held out as soon as one of its sites is.
    """
    rng = task_generator(seed, assay.assay.id)
    if hold_out == "variants":
        order = rng.permutation(len(assay))
        n_test = max(2, round(share * len(assay)))
        test, train = order[:n_test], order[n_test:]
    elif hold_out == "sites":
        variants = assay.assay.variants
        sites = sorted({s.position for variant in variants for s in variant})
        chosen = set(rng.permutation(sites)[: max(1, round(share * len(sites)))].tolist())
        hit = np.array([any(s.position in chosen for s in variant) for variant in variants])
        test, train = rng.permutation(np.nonzero(hit)[0]), rng.permutation(np.nonzero(~hit)[0])
    else:
        raise ValueError(f"unknown hold-out {hold_out!r}; choose variants or sites")
    return make_task(assay, train, test if max_query is None else test[:max_query])
