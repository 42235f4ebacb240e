"""Rounds of measuring, played on assays that were measured whole: which way of picking finds more?

The game: of some variants of a protein a batch is picked and measured, the next batch is picked
with what is then known, and so on. `STRATEGIES` are the ways; the ranker that some of them ask has
not been trained on the protein or on a homologue.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from mutmeta_lib import __version__
from mutmeta_lib.data.proteins import cluster_proteins
from mutmeta_lib.learn.methods import Given, Method, build_methods
from mutmeta_lib.models.encoder import load_encoder
from mutmeta_lib.models.sites import READS
from mutmeta_lib.ranking.model import spread_out
from mutmeta_lib.records.progress import shown_progress
from mutmeta_lib.records.record import Record, number, write_record
from mutmeta_lib.records.store import Store
from mutmeta_lib.seeds import stable_seed
from mutmeta_lib.study.case import Run, Where
from mutmeta_lib.study.estimates import contrast, estimate
from mutmeta_lib.study.run import make_record
from mutmeta_lib.study.study import Study, describe_encoder, draw_cases, read_assays
from mutmeta_lib.tasks.tasks import EncodedAssay, make_task

STRATEGIES = {
    "suggest": "ranker",
    "greedy": "ranker",
    "zero_label": "zero_label",
    "onehot_blosum": "onehot_blosum",
    "onehot": "onehot",
    "random": "",
}
"""Name -> the method that it asks. ``suggest`` picks as `Ranking.suggest`, the others what the
method predicts to be best; one-hot regression, which knows nothing without labels, begins at
random."""
GOOD = 0.05
METRICS = ("hits", "regret")


def play(
    assay: EncodedAssay,
    methods: Mapping[str, Method],
    strategy: str,
    candidates: np.ndarray,
    rng: np.random.Generator,
    *,
    rounds: int,
    batch: int,
) -> list[dict]:
    """One game: a row per round, with what has been picked up to its end.

    ``candidates`` ``(n,)`` are rows of the assay. ``hits`` is the share of the picks that belong to
    the best 5 % of the candidates, ``regret`` how far the best pick is below the best candidate, in
    standard deviations of their scores.
    """
    scores = assay.assay.scores[candidates]
    good = scores >= np.quantile(scores, 1 - GOOD)
    places = [{one.position for one in assay.assay.variants[row]} for row in candidates]
    picked, rows = np.empty(0, dtype=int), []
    for count in range(1, rounds + 1):
        hopes = _hopes(assay, methods, strategy, candidates, picked, rng)
        hopes[picked] = -np.inf
        if strategy == "suggest":
            new = spread_out(hopes, places, batch)
        else:
            new = np.argsort(-hopes, kind="stable")[:batch]
        picked = np.concatenate([picked, new])
        regret = (scores.max() - scores[picked].max()) / scores.std()
        rows.append({"round": count, "hits": good[picked].mean(), "regret": regret})
    return rows


def _hopes(assay, methods, strategy, candidates, picked, rng) -> np.ndarray:
    """What a strategy expects of every candidate ``(n,)``; the more, the sooner it is picked."""
    name = STRATEGIES[strategy]
    if not name or (name == "onehot" and not len(picked)):
        return rng.random(len(candidates))
    task, method = make_task(assay, candidates[picked], candidates), methods[name]
    hidden = replace(task.query, labels=torch.full_like(task.query.labels, torch.nan))
    state = method.adapt(task.support, torch.Generator().manual_seed(0))
    mean = np.array(method.predict(state, hidden), dtype=float)
    return mean + method.deviation(state, hidden) if strategy == "suggest" else mean


def play_rounds(
    study: Study,
    *,
    n_assays: int = 30,
    rounds: int = 4,
    batch: int = 10,
    most: int = 1000,
    where: Where | None = None,
    profile: str = "full",
    path: str | Path | None = None,
) -> Record:
    """Play on test assays of a study of the ranker, and make a record with intervals.

    Each split gives an equal number of its test assays, drawn by name, one of a cluster, with at
    least eight times as many single variants as will be measured. A seed draws half of these,
    ``most`` at most, as candidates for all strategies, which otherwise would do the same each time;
    what is meta-trained is the same for all seeds. Tables: ``picks`` (a row per read, strategy,
    assay and round, mean over seeds), ``means``, and ``contrasts`` of ``suggest`` with each other.
    """
    where = where or Where()
    assays, _ = read_assays(study)
    clusters, data = cluster_proteins(assays), {assay.id: assay.sha256 for assay in assays}
    cases, how = draw_cases(replace(study, seeds=1), assays), {"rounds": rounds, "batch": batch}
    found, seconds, told = [], {"meta_training": 0.0}, {"name": "none"}
    names, began = sorted(set(STRATEGIES.values()) - {""}), time.perf_counter()
    with shown_progress() as report:
        for done, (read, case) in enumerate(product(study.reads, cases)):
            report("splits", done, len(study.reads) * len(cases))
            asked = {"data": data, "encoder": "", "version": __version__}
            if READS[read.encoding]:
                encoder = load_encoder(read.encoder, max_tokens=read.max_tokens)
                told, asked["encoder"] = describe_encoder(encoder), encoder.sha256
            run = Run(study, read, case, where, Store(None, asked), report)
            trained, vectors = run.train("ranker")[0], run.data.vectors
            seconds["meta_training"] += trained.seconds
            given, starts = Given(vectors.predictor), {"ranker": trained.params}
            methods = build_methods(names, given, starts, {})
            tested = (vectors.assays[id] for id in case.split.test)
            for assay in _drawn(tested, clusters, n_assays // len(cases), 8 * batch * rounds):
                about = assay.assay
                same = {"read": read.encoding, "assay": about.id}
                same["cluster"] = clusters[about.wild_type]
                for seed, strategy in product(range(study.seeds), STRATEGIES):
                    rng = np.random.default_rng(stable_seed("candidates", about.id, seed))
                    singles = _singles(assay)
                    some = rng.permutation(singles)[: min(most, len(singles) // 2)]
                    game = play(assay, methods, strategy, some, rng, **how)
                    found += [same | {"seed": seed, "method": strategy} | row for row in game]
    seconds["everything_else"] = max(0.0, time.perf_counter() - began - seconds["meta_training"])
    rows, by = pd.DataFrame(found), ["read", "round"]
    keys = ["read", "method", "assay", "cluster", "round"]
    record = make_record(
        "rounds",
        profile,
        study.parameters() | how | {"n_assays": n_assays, "most": most},
        data=data,
        encoder=told,
        device=where.device,
        seconds=seconds,
        numbers={"assays": number(rows["assay"].nunique())},
        tables={
            "picks": rows.groupby(keys, sort=False)[list(METRICS)].mean().reset_index(),
            "means": estimate(rows, METRICS, by=["method", *by]),
            "contrasts": contrast(rows, METRICS, "method", "suggest", by=by),
        },
    )
    if path is not None:
        write_record(record, path)
    return record


def _singles(assay: EncodedAssay) -> np.ndarray:
    """Rows of variants with one substitution."""
    return np.flatnonzero([len(variant) == 1 for variant in assay.assay.variants])


def _drawn(
    assays: Iterable[EncodedAssay], clusters: Mapping[str, int], n: int, least: int
) -> list[EncodedAssay]:
    """Up to n assays of different clusters, in an order that depends on their names alone."""
    rank = {assay.assay.id: assay for assay in assays if len(_singles(assay)) >= least}
    kept: dict[int, EncodedAssay] = {}
    for id in sorted(rank, key=lambda id: stable_seed("rounds", id)):
        kept.setdefault(clusters[rank[id].assay.wild_type], rank[id])
    return list(kept.values())[:n]
