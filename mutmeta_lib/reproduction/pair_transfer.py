"""From one assay of a protein to another: how far do the scores of A predict those of B?

Pairs of assays of one protein, each taken both ways. For B, 0 to 40 labels are given; of A all
scores are known. What A gives is compared with what other proteins give (a meta-trained start) and
with nothing (the labels of B alone).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from mutmeta_lib.data.assays import Assay
from mutmeta_lib.data.splits import cluster_proteins
from mutmeta_lib.learn.baselines import Ridge
from mutmeta_lib.learn.methods import GradientMethod, divergences
from mutmeta_lib.learn.training import MetaTraining
from mutmeta_lib.learn.tuning import Rate
from mutmeta_lib.models.encoders import load_encoder
from mutmeta_lib.models.predictor import Params
from mutmeta_lib.records.record import Record, recorded_parameters
from mutmeta_lib.reproduction.assay_pairs import Pair, load_pairs, make_pair, read_pairs
from mutmeta_lib.reproduction.pair_cases import Case, FromA, overlap, read_case
from mutmeta_lib.reproduction.pair_numbers import pair_numbers, pair_tables
from mutmeta_lib.study.frozen_heads import (
    descend,
    freeze_assays,
    read_assays,
    rows_by_seed,
    tuned_starts,
)
from mutmeta_lib.study.setting import (
    DEMO,
    describe_encoder,
    finished_parts,
    make_record,
    outer_loop,
)
from mutmeta_lib.study.vectors import Vectors
from mutmeta_lib.tasks.metrics import spearman
from mutmeta_lib.tasks.tasks import draw_task, make_task, task_generator

MIN_QUERY = 10
"""Fewest variants of B left to predict."""

LEARNING_A = ("adam", 1e-3)
"""How a head is trained on all scores of A."""


def protocols_experiment(
    *,
    data_dir: str = "demo",
    selection: str = "sound",
    roles: Sequence[str] | None = None,
    per_protein: int = 0,
    pair_cap: int = 160,
    max_length: int = 0,
    encoder: str = "tiny",
    encoding: str = "separator",
    pooling: str = "sites",
    shots: Sequence[int] = (0, 5, 10, 20, 40),
    seeds: int = 5,
    meta_steps: int = 300,
    tasks_per_step: int = 16,
    support: int = 10,
    query: int = 16,
    inner_steps: int = 5,
    inner_lr: float = 0.03,
    meta_lr: float = 1e-3,
    adapt_steps: int = 10,
    source_steps: int = 100,
    tuning_tasks: int = 24,
    profile: str = "full",
    progress: Callable[[str], None] | None = None,
    checkpoint_dir: str | None = None,
    cache_dir: str | None = None,
) -> Record:
    """Predict assay B of a protein from assay A of it, with few or no labels of B.

    Args:
        data_dir: ``demo`` or a data directory; the bundled data hold neighbouring backgrounds of
            one protein, which stand in for pairs.
        selection: assays for meta-training; those of the pairs' clusters are left out.
        roles: kinds of assays of the selection; all when None.
        per_protein: assays per protein and property of the bundled data; 0 is all.
        pair_cap: variants of each assay of a pair at most.
        max_length: pairs with a longer protein are left out; 0 means none.
        encoder: ``tiny``, a local directory or a hub name; it is frozen.
        encoding: how a variant is written as tokens.
        pooling: how hidden states become one vector.
        shots: numbers of labels of B.
        seeds: number of seeds.
        meta_steps: outer steps of meta-training.
        tasks_per_step: tasks per outer step.
        support: support size in meta-training.
        query: query size in meta-training.
        inner_steps: inner steps in meta-training.
        inner_lr: inner rate in meta-training.
        meta_lr: Adam rate of the outer loop.
        adapt_steps: gradient steps on the labels of B.
        source_steps: gradient steps on the scores of A.
        tuning_tasks: meta-validation tasks that rates are chosen on.
        profile: name of the profile, for the record.
        progress: called with one line of text per seed.
        checkpoint_dir: finished parts are kept here.
        cache_dir: pooled vectors are kept here.

    Returns:
        A record; see ``pair_numbers`` for its numbers and tables.

    """
    parameters = recorded_parameters(locals())
    say = progress or (lambda line: None)
    assays = read_assays(data_dir, selection, None, per_protein, roles)
    if data_dir == DEMO:
        pairs = _demo_pairs(assays, pair_cap)
    else:
        pairs = load_pairs(data_dir, read_pairs(), pair_cap)
    longest = max_length or float("inf")
    pairs = [p for p in pairs if max(len(p.a.wild_type), len(p.b.wild_type)) <= longest]
    paired = {assay.sha256: assay for pair in pairs for assay in (pair.a, pair.b)}
    loaded = load_encoder(encoder)
    how = {"encoding": encoding, "pooling": pooling, "cache_dir": cache_dir}
    settings = outer_loop(parameters, validate_every=max(5, meta_steps // 15), validation_tasks=32)
    if data_dir == DEMO:  # one protein is for the pairs, the others are learned from
        assays = [a for a in assays if a.protein != pairs[0].a.protein]
    clusters = cluster_proteins([*assays, *paired.values()])
    hashes = sorted([assay.sha256 for assay in assays] + list(paired))
    pieces = finished_parts(checkpoint_dir, parameters, hashes, loaded.sha256)
    pool = freeze_assays(loaded, assays, **how)
    cases = [read_case(pair, loaded, clusters, **how) for pair in pairs]
    bench = Bench(pool, settings, shots, adapt_steps, source_steps, tuning_tasks)

    def one_seed(seed: int) -> list[dict]:
        return measure(bench, cases, list(paired.values()), seed)

    results, spent = rows_by_seed(pieces, seeds, one_seed, say)
    known = pd.DataFrame([overlap(case) for case in cases])
    return make_record(
        "protocols",
        profile,
        parameters,
        assays=[*assays, *paired.values()],
        encoder=describe_encoder(pool.predictor),
        device="cpu",
        seconds={"on vectors": spent},
        numbers=pair_numbers(results, known),
        tables=pair_tables(results, known),
    )


def _demo_pairs(assays: Sequence[Assay], cap: int) -> list[Pair]:
    """Neighbouring assays of the protein with the most assays."""
    groups: dict[str, list[Assay]] = {}
    for assay in assays:
        groups.setdefault(assay.protein, []).append(assay)
    most = max(sorted(groups), key=lambda name: len(groups[name]))
    return [
        make_pair("two backgrounds", a, b, cap)
        for a, b in zip(groups[most][::2], groups[most][1::2], strict=False)
    ]


@dataclass(frozen=True, eq=False)
class Bench:
    """What all seeds share."""

    pool: Vectors
    settings: MetaTraining
    shots: Sequence[int]
    steps: int
    source_steps: int
    tuning_tasks: int


def measure(bench: Bench, cases: Sequence[Case], paired: Sequence[Assay], seed: int) -> list[dict]:
    """One seed: learn the start, then every pair both ways."""
    tuned = tuned_starts(
        bench.pool,
        paired,
        bench.settings,
        steps=bench.steps,
        n_tasks=bench.tuning_tasks,
        seed=seed,
    )
    rows = []
    for case in cases:
        for one in (case, case.turned()):
            rows += _one_way(bench, one, tuned, seed)
    return rows


def _one_way(
    bench: Bench, case: Case, tuned: dict[str, tuple[Params, Rate]], seed: int
) -> list[dict]:
    """All methods on B, at every number of its labels."""
    predictor, pair = bench.pool.predictor, case.pair
    usable = [k for k in bench.shots if len(pair.b) >= k + MIN_QUERY]
    if not usable:
        return []
    all_of_a = make_task(case.frozen_a, np.arange(len(pair.a)), np.arange(len(pair.a)))
    transferred = FromA(case, all_of_a.support)
    via_a = {}
    for name, (start, rate) in tuned.items():
        moved = descend(predictor, start, all_of_a.support, LEARNING_A, bench.source_steps)
        via_a[f"{name}_a"] = moved, rate
    about = {"kind": pair.kind, "a": pair.a.id, "assay": pair.b.id, "cluster": case.cluster}
    rows = []
    for k in usable:
        rng = task_generator(seed, pair.b.id)
        task = draw_task(case.frozen_b, k, rng, pool=max(usable))
        where = {**about, "seed": seed, "shots": k, "n_query": len(task.query)}
        for name, (start, rate) in (tuned | via_a).items():
            method = GradientMethod(name, predictor, start, *rate, bench.steps)
            with divergences() as diverged:
                state = method.adapt(task.support, torch.Generator())
            rank = spearman(method.predict(state, task.query), task.query.scores)
            rows.append({**where, "method": name, "spearman": rank, "diverged": len(diverged)})
        ridge = Ridge("ridge", case.features)
        state = ridge.adapt(task.support, torch.Generator())
        for name, found in (
            ("ridge", ridge.predict(state, task.query)),
            ("ridge_a", transferred.predict(task)),
            ("scores_a", transferred.scores(task.query)),
        ):
            rank = spearman(found, task.query.scores)
            rows.append({**where, "method": name, "spearman": rank, "diverged": 0})
    return rows
