"""Questions to assays that were measured whole, by a ranker that has met no homologue of them.

Which way of picking finds more? Of some variants of a protein a batch is picked and measured, the
next batch is picked with what is then known, and so on (`play_rounds`); `STRATEGIES` are the ways.
Should a user's own labels overrule the ranker, where they say that a control does better
(`play_overruling`)?
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from mutmeta_lib import __version__
from mutmeta_lib.data.proteins import cluster_proteins
from mutmeta_lib.learn import InnerLoop
from mutmeta_lib.learn.methods import Given, Method, build_methods
from mutmeta_lib.learn.start import Start
from mutmeta_lib.models.encoder import load_encoder
from mutmeta_lib.models.predictor import Params
from mutmeta_lib.models.sites import READS, site_assay
from mutmeta_lib.ranking.check import MODEL, ONEHOT, ZERO, self_check
from mutmeta_lib.ranking.model import spread_out
from mutmeta_lib.records.progress import shown_progress
from mutmeta_lib.records.record import Record, number, write_record
from mutmeta_lib.records.store import Store
from mutmeta_lib.seeds import stable_seed
from mutmeta_lib.study.case import Run, Where
from mutmeta_lib.study.estimates import contrast, estimate
from mutmeta_lib.study.run import make_record
from mutmeta_lib.study.study import Study, describe_encoder, draw_cases, read_assays
from mutmeta_lib.tasks.metrics import spearman
from mutmeta_lib.tasks.tasks import EncodedAssay, Task, draw_task, make_task, task_generator

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
MARGINS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
"""By how much more a control must rank in the check to overrule the ranker."""
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
    how = {"rounds": rounds, "batch": batch}
    names = sorted(set(STRATEGIES.values()) - {""})

    def games(run: Run, trained: Params, clusters: Mapping[str, int]) -> Iterator[dict]:
        vectors = run.data.vectors
        methods = build_methods(names, Given(vectors.predictor), {"ranker": trained}, {})
        tested = (vectors.assays[id] for id in run.case.split.test)
        for assay in _drawn(tested, clusters, n_assays // study.n_folds, 8 * batch * rounds):
            singles, id = _singles(assay), assay.assay.id
            for seed, strategy in product(range(study.seeds), STRATEGIES):
                rng = np.random.default_rng(stable_seed("candidates", id, seed))
                some = rng.permutation(singles)[: min(most, len(singles) // 2)]
                game = play(assay, methods, strategy, some, rng, **how)
                same = {"assay": id, "seed": seed, "method": strategy}
                yield from (same | row for row in game)

    def made(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
        keys, by = ["read", "method", "assay", "cluster", "round"], ["read", "round"]
        return {
            "picks": rows.groupby(keys, sort=False)[list(METRICS)].mean().reset_index(),
            "means": estimate(rows, METRICS, by=["method", *by]),
            "contrasts": contrast(rows, METRICS, "method", "suggest", by=by),
        }

    told = how | {"n_assays": n_assays, "most": most}
    return _asked("rounds", study, games, made, told, where or Where(), profile, path)


def play_overruling(
    study: Study,
    *,
    labels: Sequence[int] = (10, 20, 40, 100),
    draws: int = 4,
    most_predicted: int = 500,
    where: Where | None = None,
    profile: str = "full",
    path: str | Path | None = None,
) -> Record:
    """What it gains to rank by a control whose leave-one-out check is better by a margin.

    Asked of the validation assays of each split, which no rate of the ranker was chosen by but its
    outer ones; of each ``labels`` are drawn, and ``most_predicted`` others predicted. A row of the
    table ``rules`` is one of `MARGINS`, by which the better of ``without labels`` and ``one-hot
    ridge`` must lead the model in the Spearman correlation of `check.self_check`, or a control that
    always ranks: its ``gain`` in the Spearman correlation of the others over ranking by the model,
    and how often the model was ``overruled``.
    """
    controls = {ZERO: "zero_label", ONEHOT: "onehot"}

    def checks(run: Run, trained: Params, clusters: Mapping[str, int]) -> Iterator[dict]:
        vectors = run.data.vectors
        given, starts = Given(vectors.predictor), {"ranker": trained}
        methods = build_methods(["ranker", *controls.values()], given, starts, {})
        own = Start(vectors.predictor, trained, "ranker", InnerLoop(), run.read.encoding)
        chosen = [vectors.assays[id] for id in run.case.split.validation]
        chosen = [assay for assay in chosen if len(assay) >= max(labels) + 50]
        for assay, draw, k in product(chosen, range(draws), labels):
            rng = task_generator(stable_seed("overrule", draw), assay.assay.id)
            task = draw_task(assay, k, rng, pool=max(labels), max_query=most_predicted)
            start = replace(own, sites=lambda _, sites=assay.tokens.sites: sites)
            known = self_check(start.adapt(_few(start, task)), assay.assay.property, 1.0)[1]
            ranks = known.set_index("method")["spearman"]
            gains = {one: ranked(methods[name], task) for one, name in controls.items()}
            gains = {one: gain - ranked(methods["ranker"], task) for one, gain in gains.items()}
            best = max(controls, key=ranks.get)
            seed = f"{run.case.name}, {draw}"  # an assay may choose in more than one split
            same = {"assay": assay.assay.id, "seed": seed, "shots": k}
            for one, gain in gains.items():
                yield same | {"rule": f"always {one}", "gain": gain, "overruled": 1.0}
            for margin in MARGINS:
                over = bool(ranks[best] - ranks[MODEL] > margin)
                told = {"gain": gains[best] if over else 0.0, "overruled": float(over)}
                yield same | {"rule": f"ahead by {margin}", **told}

    def made(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
        return {"rules": estimate(rows, ["gain", "overruled"], by=["rule", "read", "shots"])}

    told = {"labels_checked": list(labels), "draws_checked": draws}
    told["most_predicted"] = most_predicted
    return _asked("overruling", study, checks, made, told, where or Where(), profile, path)


def ranked(method: Method, task: Task) -> float:
    """Spearman correlation of a method on the query set of one task."""
    state = method.adapt(task.support, torch.Generator().manual_seed(0))
    return spearman(method.predict(state, task.query), task.query.scores)


def _few(start: Start, task: Task) -> EncodedAssay:
    """The support alone, as if nothing else of the assay had been measured."""
    whole, rows = task.support.assay, task.support.rows
    variants = [whole.assay.variants[row] for row in rows]
    measured = replace(whole.assay, variants=variants, scores=whole.assay.scores[rows])
    return site_assay(measured, start.encoding, start.sites(measured.wild_type))


def _asked(
    name: str,
    study: Study,
    ask: Callable[[Run, Params, Mapping[str, int]], Iterator[dict]],
    made: Callable[[pd.DataFrame], dict[str, pd.DataFrame]],
    told: dict,
    where: Where,
    profile: str,
    path: str | Path | None,
) -> Record:
    """A ranker meta-trained for each split and read, what is asked of it, and the record of it."""
    assays, _ = read_assays(study)
    clusters, data = cluster_proteins(assays), {assay.id: assay.sha256 for assay in assays}
    cases = draw_cases(replace(study, seeds=1), assays)
    found, seconds, about = [], {"meta_training": 0.0}, {"name": "none"}
    began = time.perf_counter()
    with shown_progress() as report:
        for done, (read, case) in enumerate(product(study.reads, cases)):
            report("splits", done, len(study.reads) * len(cases))
            asked = {"data": data, "encoder": "", "version": __version__}
            if READS[read.encoding]:
                encoder = load_encoder(read.encoder, max_tokens=read.max_tokens)
                about, asked["encoder"] = describe_encoder(encoder), encoder.sha256
            run = Run(study, read, case, where, Store(where.store, asked), report)
            trained = run.train("ranker")[0]
            seconds["meta_training"] += trained.seconds
            rows = ask(run, trained.params, clusters)
            found += [{"read": read.encoding, **row} for row in rows]
    seconds["everything_else"] = max(0.0, time.perf_counter() - began - seconds["meta_training"])
    wild_types = {assay.id: assay.wild_type for assay in assays}
    rows = pd.DataFrame(found)
    rows["cluster"] = rows["assay"].map(wild_types).map(clusters)
    record = make_record(
        name,
        profile,
        study.parameters() | told,
        data=data,
        encoder=about,
        device=where.device,
        seconds=seconds,
        numbers={"assays": number(rows["assay"].nunique())},
        tables=made(rows),
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
