"""What the checks on a frozen encoder share: pooled vectors, a split, learned starts, tuned rates.

The encoder is run once per variant; what learns is the head. So a start is meta-trained in seconds,
and a hundred adaptations can be followed step by step.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch

from mutmeta_lib.data.assays import Assay
from mutmeta_lib.data.selections import load_selection
from mutmeta_lib.data.splits import Split, cluster_proteins
from mutmeta_lib.errors import DataError
from mutmeta_lib.learn.training import MetaTraining, meta_train
from mutmeta_lib.learn.tuning import Rate
from mutmeta_lib.models.encoders import Encoder
from mutmeta_lib.models.predictor import Params, Predictor
from mutmeta_lib.records.pieces import Pieces
from mutmeta_lib.seeds import stable_seed
from mutmeta_lib.study.setting import DEMO, initial_params, load_assays
from mutmeta_lib.study.vectors import Vectors, embed_assays
from mutmeta_lib.tasks.losses import LOSSES
from mutmeta_lib.tasks.tasks import Examples, Task, sample_tasks

GRID: tuple[Rate, ...] = (
    ("sgd", 0.01),
    ("sgd", 0.03),
    ("sgd", 0.1),
    ("adam", 3e-4),
    ("adam", 1e-3),
    ("adam", 3e-3),
)
"""Optimisers and rates that every gradient method here is tuned over."""

STARTS = ("maml", "multitask", "finetune")
"""Meta-trained, jointly trained, and fresh."""


def clock() -> float:
    """Seconds of computation by this process, all threads together; waiting does not count."""
    return time.process_time()


def timed(pieces: Pieces, name: str, compute: Callable[[], Any]) -> tuple[Any, float]:
    """A kept or computed part of a run, and the seconds of computation that it took when made."""

    def both() -> dict:
        began = clock()
        made = compute()
        return {"made": made, "seconds": clock() - began}

    kept = pieces.get(name, both)
    return kept["made"], kept["seconds"]


def rows_by_seed(
    pieces: Pieces,
    seeds: int,
    measure: Callable[[int], list[dict]],
    say: Callable[[str], None],
) -> tuple[pd.DataFrame, float]:
    """The rows of all seeds, each seed's kept as they end, and the seconds that they took."""
    rows, spent = [], 0.0
    for seed in range(seeds):
        part, seconds = timed(pieces, f"seed {seed}", partial(measure, seed))
        rows, spent = rows + part, spent + seconds
        say(f"seed {seed}: done")
    return pd.DataFrame(rows), spent


def read_assays(
    data_dir: str,
    selection: str,
    cap: int | None,
    per_protein: int,
    roles: Sequence[str] | None = None,
) -> list[Assay]:
    """The assays of a selection, or of the bundled data, at most ``cap`` variants each."""
    if data_dir == DEMO:
        return load_assays(DEMO, per_protein=per_protein)
    return load_selection(data_dir, selection, cap=cap, roles=roles)


def freeze_assays(
    encoder: Encoder,
    assays: Sequence[Assay],
    *,
    encoding: str,
    pooling: str,
    cache_dir: str | None = None,
) -> Vectors:
    """Encode assays and run the encoder on every variant, once.

    Vectors are standardised within each assay and labels of meta-training have one shape
    (``normal_scores``), so that no assay's outliers lead.
    """
    prepared = {"features": "standardised", "labels": "normal_scores"}
    return embed_assays(
        Predictor(encoder, pooling), assays, encoding, **prepared, cache_dir=cache_dir
    )


def split_around(
    assays: Sequence[Assay], test: Sequence[Assay], *, seed: int, validation: float = 0.25
) -> tuple[Split, dict[str, int]]:
    """Meta-training and validation assays that share no protein cluster with the test assays.

    Args:
        assays: Candidates for meta-training.
        test: Assays to be tested on; they may be among the candidates.
        seed: Decides which clusters are for validation.
        validation: Share of the other clusters, at least one.

    Returns:
        The split, and the cluster of every wild type.

    Raises:
        DataError: Fewer than two clusters are left.

    """
    clusters = cluster_proteins([*assays, *test])
    taken = {clusters[assay.wild_type] for assay in test}
    free = sorted({clusters[assay.wild_type] for assay in assays} - taken)
    if len(free) < 2:
        raise DataError(
            f"{len(free)} protein clusters are left to learn from", "give more assays, or test less"
        )
    drawn = np.random.default_rng(stable_seed("split", seed)).permutation(free)
    held = set(drawn[: max(1, round(validation * len(free)))].tolist())
    sides = {True: [], False: []}
    for assay in assays:
        cluster = clusters[assay.wild_type]
        if cluster not in taken:
            sides[cluster in held].append(assay.id)
    ids = (sides[False], sides[True], [assay.id for assay in test])
    return Split(*(tuple(sorted(part)) for part in ids)), clusters


def learn_start(
    frozen: Vectors, split: Split, settings: MetaTraining, name: str, seed: int
) -> tuple[Params, float]:
    """A start by name (`STARTS`), and the seconds of computation that it took."""
    fresh = initial_params(frozen.predictor, seed, "cpu")
    if name == "finetune":
        return fresh, 0.0
    began = clock()
    made = meta_train(
        frozen.predictor,
        fresh,
        [frozen.training[id] for id in split.train],
        replace(settings, algorithm=name),
        seed=seed,
        validation=[frozen.training[id] for id in split.validation],
    )
    return made.params, clock() - began


def validation_tasks(
    frozen: Vectors, split: Split, *, support: int, query: int, n_tasks: int, seed: int
) -> list[Task]:
    """Tasks of meta-validation assays, the same for all methods."""
    rng = np.random.default_rng(stable_seed("rates", seed, support))
    assays = [frozen.assays[name] for name in split.validation]
    return sample_tasks(assays, n_tasks, support=support, query=query, rng=rng)


def descend(
    predictor: Predictor, start: Params, support: Examples, rate: Rate, steps: int, look=None
) -> Params:
    """Full-batch gradient steps; ``look(step, seconds, parameters)`` is called after each.

    The seconds are those of the steps so far, without what ``look`` does. Step 0 is the start.
    """
    optimiser, lr = rate
    params = {name: value.detach().clone().requires_grad_(True) for name, value in start.items()}
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
    stepper = kinds[optimiser](params.values(), lr=lr)
    tokens, labels, loss = support.tokens, support.labels, LOSSES[predictor.objective]
    spent = 0.0
    if look is not None:
        look(0, spent, params)
    for step in range(1, steps + 1):
        began = clock()
        stepper.zero_grad()
        loss(predictor(params, tokens), labels).backward()
        stepper.step()
        spent += clock() - began
        if look is not None:
            look(step, spent, params)
    return {name: value.detach() for name, value in params.items()}


def query_error(predictor: Predictor, params: Params, query: Examples) -> float:
    """Mean squared error on scaled labels."""
    with torch.no_grad():
        return float(torch.mean((predictor(params, query.tokens) - query.labels) ** 2))


def choose_rate(
    predictor: Predictor, start: Params, tasks: Sequence[Task], steps: int
) -> tuple[Rate, list[dict]]:
    """The rate of `GRID` with the lowest error after ``steps`` on meta-validation tasks.

    Errors are averaged as logarithms, so that one task with a heavy tail does not decide. A rate
    that diverges on a task has an infinite error.
    """
    rows = []
    for optimiser, lr in GRID:
        errors = []
        for task in tasks:
            adapted = descend(predictor, start, task.support, (optimiser, lr), steps)
            errors.append(query_error(predictor, adapted, task.query))
        finite = bool(np.isfinite(errors).all())
        score = float(np.mean(np.log(errors))) if finite else float("inf")
        rows.append({"optimiser": optimiser, "lr": lr, "log_error": score})
    best = min(range(len(rows)), key=lambda index: rows[index]["log_error"])
    return GRID[best], rows


def tuned_starts(
    pool: Vectors,
    test: Sequence[Assay],
    settings: MetaTraining,
    *,
    support: int = 10,
    steps: int,
    n_tasks: int,
    seed: int,
) -> dict[str, tuple[Params, Rate]]:
    """MAML's start and a fresh one, learned and tuned on assays of other clusters than ``test``."""
    measured = [assay.assay for assay in pool.assays.values()]
    split, _ = split_around(measured, test, seed=seed)
    tasks = validation_tasks(pool, split, support=support, query=16, n_tasks=n_tasks, seed=seed)
    made = {}
    for name in ("maml", "finetune"):
        start, _ = learn_start(pool, split, settings, name, seed)
        made[name] = start, choose_rate(pool.predictor, start, tasks, steps)[0]
    return made
