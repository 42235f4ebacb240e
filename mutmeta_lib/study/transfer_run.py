"""One case of the third arm, one seed: meta-train, choose rates, test; and the mean over seeds."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from mutmeta_lib.learn.methods import Method, divergences
from mutmeta_lib.learn.training import MetaTraining
from mutmeta_lib.learn.tuning import Rate
from mutmeta_lib.records.pieces import Pieces
from mutmeta_lib.records.progress import Report, silent
from mutmeta_lib.seeds import stable_seed
from mutmeta_lib.study.evaluate import MIN_QUERY, few_shot
from mutmeta_lib.study.transfer_cases import Case
from mutmeta_lib.study.transfer_methods import (
    BY_ERROR,
    GRID,
    TUNED,
    build_methods,
    build_variants,
    gradient_method,
    train_starts,
)
from mutmeta_lib.study.vectors import Vectors
from mutmeta_lib.tasks.metrics import relative_mse, spearman
from mutmeta_lib.tasks.tasks import EncodedAssay, draw_task, task_generator

NAMED = ("method", "assay", "shots", "seed", "n_query")
KEPT = ("spearman", "ndcg", "mse", "mae", "relative_mse", "seconds_adapt", "seconds_predict")
"""Columns of the results that are averaged over seeds."""


@dataclass(frozen=True, eq=False)
class Plan:
    """What all cases of one regime share.

    ``pools`` are the sizes that an assay's support pool may have, up to ``pool``. They do not
    follow ``shots``, so that query sets are the same in all plans of an experiment. ``by_error``
    are the methods tested a second time with rates chosen for error; ``tuning_assays`` > 0 limits
    the validation assays on which rates are chosen to so many, drawn per case.
    """

    vectors: Vectors
    methods: Sequence[str]
    shots: Sequence[int]
    pool: int
    pools: Sequence[int]
    settings: MetaTraining
    closed_steps: int
    adapt_steps: int
    decided_at: int
    folder: str | None
    question: dict
    by_error: Sequence[str] = BY_ERROR
    tuning_assays: int = 0

    def pieces(self, case: Case) -> Pieces:
        """Where the finished cases are kept."""
        question = {
            **self.question,
            "case": [case.regime, case.name, case.seed],
            "split": [case.split.train, case.split.validation, case.split.test],
            "methods": list(self.methods),
            "shots": list(self.shots),
        }
        if list(self.pools) != list(self.shots):
            question["pools"] = list(self.pools)
        return Pieces(Path(self.folder) if self.folder else None, question)


def run_case(plan: Plan, case: Case, *, report: Report = silent) -> dict:
    """Train, tune and test; plain JSON values, read if they were kept."""
    parts = [plan.question["encoding"], plan.question["pooling"], case.regime, case.name, case.seed]
    name = " ".join(map(str, [*parts, *plan.methods]))
    return plan.pieces(case).get(name, lambda: _run(plan, case, report))


def _run(plan: Plan, case: Case, report: Report) -> dict:
    label = f"{case.regime}, {case.name}, seed {case.seed}"
    starts, runs = train_starts(
        plan.vectors,
        case.split,
        plan.methods,
        plan.settings,
        plan.closed_steps,
        case.seed,
        lambda name, done, total: report(f"{label}: {name}", done, total),
    )
    began = time.perf_counter()
    chosen = case.split.validation
    if 0 < plan.tuning_assays < len(chosen):
        rng = np.random.default_rng(stable_seed("tuning assays", case.name, case.seed))
        chosen = sorted(rng.choice(sorted(chosen), plan.tuning_assays, replace=False))
    validation = [plan.vectors.assays[id] for id in chosen]
    choices = {
        name: grid_scores(plan, name, starts[name], validation, case.seed)
        for name in plan.methods
        if name in TUNED
    }
    tuning = time.perf_counter() - began
    rates = {name: best_rate(rows, "spearman") for name, rows in choices.items()}
    by_error = {
        name: best_rate(choices[name], "error") for name in choices if name in plan.by_error
    }
    given = (plan.vectors, starts, rates)
    methods = build_methods(plan.methods, *given, plan.adapt_steps)
    variants = build_variants(*given, by_error, plan.adapt_steps)
    with divergences() as diverged:
        tested = pd.concat(
            [
                score_assay(plan, methods, variants, plan.vectors.assays[id], case.seed)
                for id in case.split.test
            ],
            ignore_index=True,
        )
    where = {"regime": case.regime, "case": case.name, "seed": case.seed}
    return {
        "results": tested[["method", "assay", "shots", "seed", "n_query", *KEPT]].to_dict(
            "records"
        ),
        "choices": [
            {"method": name, **row, **where} for name, rows in choices.items() for row in rows
        ],
        "rates": [
            {"method": name, "by": by, "optimiser": rate[0], "lr": rate[1], **where}
            for by, chosen in (("spearman", rates), ("error", by_error))
            for name, rate in chosen.items()
        ],
        "history": [
            {"method": name, "step": row["step"], "validation_loss": row["validation_loss"]}
            | {"train_loss": float(np.mean([r["train_loss"] for r in run.history[last:place]]))}
            | where
            for name, run in runs.items()
            for last, place, row in _checked(run.history)
        ],
        "seconds": {f"meta_training_{name}": run.seconds for name, run in runs.items()}
        | {"tuning": tuning},
        "diverged": len(diverged),
    }


def _checked(history: Sequence[Mapping[str, float]]) -> list[tuple[int, int, Mapping]]:
    """The rows with a validation loss, each with the range of steps since the one before."""
    places = [i + 1 for i, row in enumerate(history) if np.isfinite(row["validation_loss"])]
    return [
        (last, place, history[place - 1])
        for last, place in zip([0, *places[:-1]], places, strict=True)
    ]


def support_pool(size: int, pools: Sequence[int], pool: int) -> int:
    """The support pool that an assay of ``size`` variants can afford: the largest of ``pools``.

    At most ``pool``, and enough variants are left to predict.

    >>> support_pool(200, (0, 10, 40), 40), support_pool(35, (0, 10, 40), 40)
    (40, 10)
    """
    return max((k for k in {*pools, pool} if k <= pool and k + MIN_QUERY <= size), default=0)


def score_assay(
    plan: Plan,
    methods: Mapping[str, Method],
    variants: Mapping[str, Method],
    assay: EncodedAssay,
    seed: int,
) -> pd.DataFrame:
    """All methods on one assay, and the variants at the deciding number of labels.

    Where ``<name>_mse`` would be the same as ``<name>``, its rows are copied.
    """
    pool = support_pool(len(assay), plan.pools, plan.pool)
    shots = [k for k in plan.shots if k <= pool]
    parts = [few_shot(methods, [assay], shots=shots, seeds=[seed], pool=pool)]
    if plan.decided_at in shots:
        at = {"shots": [plan.decided_at], "seeds": [seed], "pool": pool}
        if variants:
            parts.append(few_shot(variants, [assay], **at))
        decided = parts[0][parts[0]["shots"] == plan.decided_at]
        parts += [
            decided[decided["method"] == name].assign(method=f"{name}_mse")
            for name in plan.by_error
            if name in methods and f"{name}_mse" not in variants
        ]
    return pd.concat(parts, ignore_index=True)


def grid_scores(
    plan: Plan, name: str, start: dict, validation: Sequence[EncodedAssay], seed: int
) -> list[dict]:
    """Mean Spearman and geometric mean of the relative error per entry of the grid.

    One draw per validation assay at ``plan.decided_at`` labels; the same draws for every method.
    """
    tasks = []
    for assay in validation:
        pool = support_pool(len(assay), [plan.decided_at], plan.pool)
        if pool < plan.decided_at:
            continue
        rng = task_generator(stable_seed("tuning", seed), assay.assay.id)
        task = draw_task(assay, plan.decided_at, rng, pool=pool)
        if np.ptp(task.query.scores) > 0 and task.label_scale.identified:
            tasks.append(task)
    rows = []
    for optimiser, lr in GRID:
        method = gradient_method(
            name, plan.vectors.predictor, start, (optimiser, lr), plan.adapt_steps
        )
        with divergences() as diverged:
            ranks, errors = zip(*(_scores(method, task) for task in tasks), strict=True)
        row = {"optimiser": optimiser, "lr": lr, "spearman": float(np.mean(ranks))}
        row |= {"error": float(np.exp(np.mean(np.log(errors)))), "diverged": len(diverged)}
        rows.append(row)
    return rows


def _scores(method: Method, task) -> tuple[float, float]:
    state = method.adapt(task.support, torch.Generator())
    labels = method.predict(state, task.query)
    predicted = task.label_scale.to_scores(labels)
    return spearman(predicted, task.query.scores), relative_mse(predicted, task.query.scores)


def best_rate(rows: Sequence[dict], by: str) -> Rate:
    """The entry with the highest mean Spearman, or the lowest error; the first of equals."""
    sign = {"spearman": 1, "error": -1}[by]
    best = max(range(len(rows)), key=lambda place: sign * rows[place][by])
    return rows[best]["optimiser"], rows[best]["lr"]


def average_seeds(results: pd.DataFrame) -> pd.DataFrame:
    """One row per regime, method, assay and shots: means over the seeds, and their number."""
    keys = ["regime", "method", "assay", "shots"]
    grouped = results.groupby(keys, sort=False)
    means = grouped[list(KEPT)].mean()
    return means.assign(n_query=grouped["n_query"].first(), n_seeds=grouped.size()).reset_index()
