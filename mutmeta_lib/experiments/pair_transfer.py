"""From one assay of a protein to another: how far do the scores of A predict those of B?

Pairs of assays of one protein, each taken both ways. For B, 0 to 40 labels are given; of A all
scores are known. What A gives is compared with what other proteins give (a meta-trained start) and
with nothing (the labels of B alone).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import RidgeCV

from mutmeta_lib import __version__
from mutmeta_lib.baselines import RIDGE_PENALTIES, Features, Ridge
from mutmeta_lib.encoders import load_encoder
from mutmeta_lib.experiments.assay_pairs import Pair, load_pairs, make_pair, read_pairs
from mutmeta_lib.experiments.frozen_heads import (
    Frozen,
    choose_rate,
    descend,
    freeze_assays,
    learn_start,
    read_assays,
    split_around,
    timed,
    validation_tasks,
)
from mutmeta_lib.experiments.pair_numbers import pair_numbers, pair_tables
from mutmeta_lib.experiments.setting import DEMO, make_record
from mutmeta_lib.maml import InnerLoop
from mutmeta_lib.methods import GradientMethod, divergences
from mutmeta_lib.metrics import spearman
from mutmeta_lib.pieces import Pieces
from mutmeta_lib.predictor import Params
from mutmeta_lib.records import Record, recorded_parameters
from mutmeta_lib.splits import cluster_proteins
from mutmeta_lib.tasks import EncodedAssay, Examples, Task, draw_task, make_task, task_generator
from mutmeta_lib.training import MetaTraining

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
    pairs = _demo_pairs(assays, pair_cap) if data_dir == DEMO else _listed(data_dir, pair_cap)
    longest = max_length or float("inf")
    pairs = [p for p in pairs if max(len(p.a.wild_type), len(p.b.wild_type)) <= longest]
    paired = {assay.sha256: assay for pair in pairs for assay in (pair.a, pair.b)}
    loaded = load_encoder(encoder)
    how = {"encoding": encoding, "pooling": pooling, "cache_dir": cache_dir}
    settings = MetaTraining(
        steps=meta_steps,
        tasks_per_step=tasks_per_step,
        support=support,
        query=query,
        inner=InnerLoop(inner_lr, inner_steps),
        meta_lr=meta_lr,
        validate_every=max(5, meta_steps // 15),
        validation_tasks=32,
    )
    if data_dir == DEMO:  # one protein is for the pairs, the others are learned from
        assays = [a for a in assays if a.protein != pairs[0].a.protein]
    clusters = cluster_proteins([*assays, *paired.values()])
    question = {
        "parameters": parameters,
        "data": sorted([assay.sha256 for assay in assays] + list(paired)),
        "encoder": loaded.sha256,
        "version": __version__,
    }
    pieces = Pieces(Path(checkpoint_dir) if checkpoint_dir else None, question)
    pool = freeze_assays(loaded, assays, **how)
    cases = [_case(pair, loaded, how, clusters) for pair in pairs]
    bench = Bench(pool, settings, shots, adapt_steps, source_steps, tuning_tasks)
    rows, spent = [], 0.0
    for seed in range(seeds):
        part, seconds = timed(
            pieces,
            f"seed {seed}",
            lambda s=seed: measure(bench, cases, list(paired.values()), s),
        )
        rows, spent = rows + part, spent + seconds
        say(f"seed {seed}: done")
    results, known = pd.DataFrame(rows), pd.DataFrame([overlap(case) for case in cases])
    return make_record(
        "protocols",
        profile,
        parameters,
        assays=[*assays, *paired.values()],
        encoder={"name": loaded.name, "sha256": loaded.sha256, "provenance": loaded.provenance},
        device="cpu",
        seconds={"on vectors": spent},
        numbers=pair_numbers(results, known),
        tables=pair_tables(results, known),
    )


def _listed(data_dir: str, cap: int) -> list[Pair]:
    return load_pairs(data_dir, read_pairs(), cap)


def _demo_pairs(assays, cap: int) -> list[Pair]:
    """Neighbouring assays of the protein with the most assays."""
    groups: dict[str, list] = {}
    for assay in assays:
        groups.setdefault(assay.protein, []).append(assay)
    most = max(sorted(groups), key=lambda name: len(groups[name]))
    return [
        make_pair("two backgrounds", a, b, cap)
        for a, b in zip(groups[most][::2], groups[most][1::2], strict=False)
    ]


@dataclass(frozen=True, eq=False)
class Case:
    """A pair with its vectors, and the cluster that its protein belongs to."""

    pair: Pair
    frozen_a: EncodedAssay
    frozen_b: EncodedAssay
    features: Features
    cluster: int


@dataclass(frozen=True, eq=False)
class Bench:
    """What all seeds share."""

    pool: Frozen
    settings: MetaTraining
    shots: Sequence[int]
    steps: int
    source_steps: int
    tuning_tasks: int


def _case(pair: Pair, loaded, how: dict, clusters: dict[str, int]) -> Case:
    both = freeze_assays(loaded, [pair.a, pair.b], **how)
    a, b = both.assays[pair.a.id], both.assays[pair.b.id]
    return Case(pair, a, b, both.features(), clusters[pair.b.wild_type])


def overlap(case: Case) -> dict:
    """How the two assays agree on the variants that both hold."""
    pair = case.pair
    rows = sorted(pair.shared)
    other = [pair.shared[row] for row in rows]
    scores = pair.a.scores[rows], pair.b.scores[other]
    defined = len(rows) > 2 and np.ptp(scores[0]) > 0 and np.ptp(scores[1]) > 0
    return {
        "kind": pair.kind,
        "a": pair.a.id,
        "b": pair.b.id,
        "cluster": case.cluster,
        "n_a": len(pair.a),
        "n_b": len(pair.b),
        "shared": len(rows),
        "spearman": spearman(*scores) if defined else float("nan"),
    }


def measure(bench: Bench, cases: Sequence[Case], paired: Sequence, seed: int) -> list[dict]:
    """One seed: learn the start, then every pair both ways."""
    pool, predictor = bench.pool, bench.pool.predictor
    given = [assay.assay for assay in pool.assays.values()]
    split, _ = split_around(given, paired, seed=seed)
    starts = {n: learn_start(pool, split, bench.settings, n, seed)[0] for n in ("maml", "finetune")}
    drawn = validation_tasks(
        pool, split, support=10, query=16, n_tasks=bench.tuning_tasks, seed=seed
    )
    rates = {n: choose_rate(predictor, start, drawn, bench.steps)[0] for n, start in starts.items()}
    rows = []
    for case in cases:
        for one in (case, _turned(case)):
            rows += _one_way(bench, one, starts, rates, seed)
    return rows


def _turned(case: Case) -> Case:
    return Case(case.pair.turned(), case.frozen_b, case.frozen_a, case.features, case.cluster)


def _one_way(bench: Bench, case: Case, starts: dict[str, Params], rates: dict, seed: int):
    """All methods on B, at every number of its labels."""
    predictor, pair = bench.pool.predictor, case.pair
    usable = [k for k in bench.shots if len(pair.b) >= k + MIN_QUERY]
    if not usable:
        return []
    all_of_a = make_task(case.frozen_a, np.arange(len(pair.a)), np.arange(len(pair.a)))
    transferred = FromA(case, all_of_a.support)
    on_a = {
        name: descend(predictor, start, all_of_a.support, LEARNING_A, bench.source_steps)
        for name, start in starts.items()
    }
    gradient = {
        "maml": (starts["maml"], rates["maml"]),
        "finetune": (starts["finetune"], rates["finetune"]),
        "maml_a": (on_a["maml"], rates["maml"]),
        "finetune_a": (on_a["finetune"], rates["finetune"]),
    }
    about = {"kind": pair.kind, "a": pair.a.id, "assay": pair.b.id, "cluster": case.cluster}
    rows = []
    for k in usable:
        rng = task_generator(seed, pair.b.id)
        task = draw_task(case.frozen_b, k, rng, pool=max(usable))
        where = {**about, "seed": seed, "shots": k, "n_query": len(task.query)}
        for name, (start, rate) in gradient.items():
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


class FromA:
    """What A says of B's variants: its score where it measured them, else a ridge model's guess."""

    def __init__(self, case: Case, support: Examples):
        labels = support.labels.numpy()
        vectors = case.features(support)
        model = RidgeCV(alphas=RIDGE_PENALTIES).fit(vectors, labels)
        everything = Examples(
            case.frozen_b, np.arange(len(case.pair.b)), torch.zeros(len(case.pair.b))
        )
        self.features = case.features
        self.known = model.predict(case.features(everything))
        for row, other in case.pair.shared.items():
            self.known[other] = labels[row]

    def scores(self, query: Examples) -> np.ndarray:
        """A's word alone."""
        return self.known[query.rows]

    def predict(self, task: Task) -> np.ndarray:
        """Ridge on vectors and A's word, which counts as much as all of the vectors together."""
        if len(task.support) < 3:
            return self.scores(task.query)
        model = RidgeCV(alphas=RIDGE_PENALTIES)
        model.fit(self._both(task.support), task.support.labels.numpy())
        return model.predict(self._both(task.query))

    def _both(self, examples: Examples) -> np.ndarray:
        vectors = self.features(examples)
        word = self.known[examples.rows] * vectors.shape[1] ** 0.5
        return np.column_stack([vectors, word])
