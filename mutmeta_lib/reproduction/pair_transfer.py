"""From one assay of a protein to another: how far do the scores of A predict those of B?

Pairs of assays of one protein, each taken both ways. Of A all scores are known. What they give is
compared with what other proteins give (a meta-trained start), and the labels of B alone.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import RidgeCV

from mutmeta_lib import __version__
from mutmeta_lib.data.proteins import cluster_proteins
from mutmeta_lib.learn.baselines import RIDGE_PENALTIES, Ridge
from mutmeta_lib.learn.inner import finetune
from mutmeta_lib.learn.methods import GradientMethod, Method, Rate, divergences
from mutmeta_lib.models.embed import Vectors, read_with
from mutmeta_lib.models.predictor import Params, Predictor
from mutmeta_lib.records.progress import silent
from mutmeta_lib.records.record import Record, number
from mutmeta_lib.records.store import Store
from mutmeta_lib.reproduction.pairs import Pair, load_pairs, neighbours
from mutmeta_lib.reproduction.speed import tuned
from mutmeta_lib.study.case import Run, Where, initial_params, prepare
from mutmeta_lib.study.estimates import contrast, estimate, named
from mutmeta_lib.study.evaluate import MIN_QUERY, evaluate
from mutmeta_lib.study.run import make_record
from mutmeta_lib.study.study import DEMO, Case, Study, describe_encoder, read_assays, split_around
from mutmeta_lib.tasks.metrics import spearman
from mutmeta_lib.tasks.tasks import Examples, make_task

LEARNING_A = 1e-3
"""The rate at which a head is trained on all scores of A."""

COMPARED = ("scores_a", "ridge_a", "maml_a", "finetune_a", "maml")
"""Methods that are set against each other one, pair by pair."""


def pair_transfer(
    study: Study,
    *,
    pair_cap: int = 160,
    longest: int = 0,
    source_steps: int = 100,
    where: Where | None = None,
    profile: str = "full",
) -> Record:
    """Predict assay B of a protein from assay A of it, with few or no labels of B.

    The encoder is frozen. Starts are meta-trained on the assays of the study that lie outside the
    pairs' clusters; each assay of a pair is cut to ``pair_cap`` variants, and pairs with a protein
    above ``longest`` (0: none) are left out. In bundled data neighbouring backgrounds of one
    protein stand in for pairs. The study's ``shots`` are labels of B; its ``adapt_steps`` gradient
    steps are taken on them, and ``source_steps`` on the scores of A.
    """
    where = replace(where or Where(), device="cpu")
    assays, _ = read_assays(study)
    demo = study.data_dir == DEMO
    pairs = neighbours(assays, pair_cap) if demo else load_pairs(study.data_dir, pair_cap)
    limit = longest or float("inf")
    pairs = [p for p in pairs if max(len(p.a.wild_type), len(p.b.wild_type)) <= limit]
    paired = {assay.sha256: assay for pair in pairs for assay in (pair.a, pair.b)}
    clusters = cluster_proteins([*assays, *paired.values()])
    read = study.reads[0]
    predictor = prepare(study, read, "cpu", where.cache_dir).vectors.predictor
    original = Predictor(predictor.encoder, read.pooling)
    how = {"labels": study.labels, "cache_dir": where.cache_dir}
    vectors = [read_with(original, [pair.a, pair.b], read.encoding, **how) for pair in pairs]
    asked = {"study": study.parameters(), "source_steps": source_steps, "version": __version__}
    asked |= {"data": sorted([a.sha256 for a in assays] + list(paired))}
    asked |= {"encoder": predictor.encoder.sha256}
    kept = Store(Path(where.store) if where.store else None, asked)

    def one_seed(seed: int) -> list[dict]:
        split = split_around(assays, list(paired.values()), share=study.share, seed=seed)
        run = Run(study, read, Case("around", "pairs", seed, split), where, kept, silent)
        starts = {"maml": run.train("maml")[0].params, "finetune": initial_params(predictor, seed)}
        rated = {
            name: (start, tuned(run, start, study.decided_at, study.adapt_steps))
            for name, start in starts.items()
        }
        steps, parts = (study.adapt_steps, source_steps), []
        for pair, frozen in zip(pairs, vectors, strict=True):
            for way in (pair, pair.turned()):
                if usable := [k for k in study.shots if len(way.b) >= k + MIN_QUERY]:
                    methods = pair_methods(way, frozen, predictor, rated, *steps)
                    with divergences() as diverged:
                        assay = frozen.assays[way.b.id]
                        made = evaluate(methods, [assay], shots=usable, seeds=[seed])
                    made = made[["method", "assay", "seed", "shots", "n_query", "spearman"]]
                    about = {"kind": pair.kind, "cluster": clusters[pair.b.wild_type]}
                    fell = [len(diverged)] + [0] * (len(made) - 1)
                    parts.append(made.assign(a=way.a.id, **about, diverged=fell))
        return pd.concat(parts).to_dict("records")

    rows, began = [], time.perf_counter()
    for seed in range(study.seed, study.seed + study.seeds):
        rows += kept.get(f"seed {seed}", partial(one_seed, seed))
    results = pd.DataFrame(rows)
    known = pd.DataFrame([overlap(pair, clusters[pair.b.wild_type]) for pair in pairs])
    tables = pair_tables(results, known)
    parameters = {**study.parameters(), "pair_cap": pair_cap, "longest": longest}
    how = {"assays": [*assays, *paired.values()], "device": "cpu", "tables": tables}
    how |= {"encoder": describe_encoder(predictor.encoder)}
    how |= {"seconds": {"on vectors": time.perf_counter() - began}}
    how |= {"numbers": pair_numbers(results, tables)}
    return make_record("protocols", profile, parameters | {"source_steps": source_steps}, **how)


def overlap(pair: Pair, cluster: int) -> dict:
    """How the two assays agree on the variants that both hold."""
    ours, theirs = list(pair.shared), list(pair.shared.values())
    scores = pair.a.scores[ours], pair.b.scores[theirs]
    defined = len(ours) > 2 and np.ptp(scores[0]) > 0 and np.ptp(scores[1]) > 0
    row = {"kind": pair.kind, "a": pair.a.id, "b": pair.b.id, "cluster": cluster}
    row |= {"n_a": len(pair.a), "n_b": len(pair.b), "shared": len(ours)}
    return row | {"spearman": spearman(*scores) if defined else float("nan")}


@dataclass(frozen=True, eq=False)
class RidgeWithA(Ridge):
    """Ridge on vectors and A's word, which counts as much as all of the vectors together.

    A's word on a variant of B is its score where A measured it, else what ridge on A says.
    """

    word: np.ndarray

    def predict(self, state: Any, query: Examples) -> np.ndarray:
        """Predicted labels; with fewer than three labels of B, A's word alone."""
        return self.word[query.rows] if state is None else super().predict(state, query)


class ScoresOfA(RidgeWithA):
    """A's word alone."""

    def adapt(self, support: Examples, generator: torch.Generator) -> None:
        """Labels of B change nothing."""


def pair_methods(
    pair: Pair,
    frozen: Vectors,
    predictor: Predictor,
    rated: Mapping[str, tuple[Params, Rate]],
    steps: int,
    source_steps: int,
) -> dict[str, Method]:
    """The methods that predict B: from other proteins or nothing, via A's scores, by A's word."""
    place, n = np.arange(len(pair.a)), len(pair.b)
    of_a = make_task(frozen.assays[pair.a.id], place, place).support
    of_b = Examples(frozen.assays[pair.b.id], np.arange(n), torch.zeros(n))
    labels = of_a.labels.numpy()
    word = RidgeCV(alphas=RIDGE_PENALTIES).fit(frozen.features(of_a), labels)
    word = word.predict(frozen.features(of_b))
    for row, other in pair.shared.items():
        word[other] = labels[row]

    def with_word(examples: Examples) -> np.ndarray:
        vectors = frozen.features(examples)
        return np.column_stack([vectors, word[examples.rows] * vectors.shape[1] ** 0.5])

    moved = {
        f"{name}_a": (finetune(predictor.loss, start, [of_a] * source_steps, lr=LEARNING_A), rate)
        for name, (start, rate) in rated.items()
    }
    made = [
        *(GradientMethod(name, predictor, *own, steps) for name, own in (rated | moved).items()),
        Ridge("ridge", frozen.features),
        RidgeWithA("ridge_a", with_word, word),
        ScoresOfA("scores_a", with_word, word),
    ]
    return {method.name: method for method in made}


def pair_tables(results: pd.DataFrame, known: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """``pairs``, ``results`` (means over seeds), ``summary`` and ``differences`` per kind.

    Each direction of a pair counts as one assay. The kind ``all`` is all of them together.
    """
    keys = ["kind", "a", "assay", "cluster", "method", "shots"]
    means = results.groupby(keys, as_index=False, sort=False)[["spearman", "n_query"]].mean()
    ways = means.assign(assay=means["a"] + " to " + means["assay"])
    ways, by = pd.concat([ways.assign(kind="all"), ways]), ("kind", "shots")
    differences = [contrast(ways, "spearman", "method", one, by=by) for one in COMPARED]
    return {
        "pairs": known,
        "results": means,
        "summary": estimate(ways, "spearman", by=("kind", "method", "shots")),
        "differences": pd.concat(differences, ignore_index=True),
    }


def pair_numbers(results: pd.DataFrame, tables: Mapping[str, pd.DataFrame]) -> dict[str, dict]:
    """Numbers of all kinds together.

    ``<method>_<shots>``: mean Spearman on B; ``<one>_minus_<other>_<shots>``: paired difference;
    ``labels_worth_<method>``: the fewest labels of B at which the method without A is level with
    A's word alone (open when never); ``diverged``: adaptations that fell back to their start.
    """
    made = named(tables["summary"].query("kind == 'all'"), "{method}_{shots}")
    together = tables["differences"].query("kind == 'all'")
    made |= named(together, "{method}_minus_{baseline}_{shots}")
    # The same pairs at every number of labels, those that have the most.
    means = tables["results"]
    full = means.groupby(["a", "assay"])["shots"].transform("max") == means["shots"].max()
    curve = means[full].groupby(["method", "shots"])["spearman"].mean()
    for method in ("maml", "ridge"):
        own = curve[method]
        worth = own.index[own >= curve["scores_a"].iloc[0]].min()
        made[f"labels_worth_{method}"] = number(worth, n=int(full.sum()), unit="labels")
    made["diverged"] = number(results["diverged"].sum(), n=len(results), unit="adaptations")
    return made
