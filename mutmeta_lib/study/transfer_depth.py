"""The third arm, deeper: does it matter how much of the encoder MAML adapts and meta-trains?

The main run of the arm freezes the encoder. Here the same comparison is made at several depths, on
the same draws: the head alone, the encoder's last layers with it, all of a small encoder.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from mutmeta_lib import __version__
from mutmeta_lib.data.assays import Assay
from mutmeta_lib.data.clustering import cluster_proteins
from mutmeta_lib.errors import DataError
from mutmeta_lib.learn import InnerLoop
from mutmeta_lib.learn.training import MetaTraining, meta_train
from mutmeta_lib.models.encoders import load_encoder
from mutmeta_lib.models.predictor import Predictor
from mutmeta_lib.records.record import Record, number, recorded_parameters
from mutmeta_lib.study.depth_tables import CONTROLS, depth_numbers, depth_tables
from mutmeta_lib.study.setting import describe_encoder, initial_params, make_record
from mutmeta_lib.study.transfer import read_assays
from mutmeta_lib.study.transfer_assays import describe_assays
from mutmeta_lib.study.transfer_cases import Case, draw_cases
from mutmeta_lib.study.transfer_methods import RECIPES, TUNED, Recipe
from mutmeta_lib.study.transfer_run import Plan, average_seeds, run_case
from mutmeta_lib.study.vectors import Vectors, embed_assays, layered_assays

HEAD, RAW_HEAD, WHOLE = "head", "raw head", "all"
"""Depths besides ``last-<k>``. ``head`` reads standardised vectors of the frozen encoder, as the
main run of the arm; ``raw head`` reads them as they are, as the head on layers that learn does."""

OUTER_RATES = ((0.03, 5e-4), (0.01, 1e-4))
"""Inner rate and outer (Adam) rate of meta-training: what every meta-trained start chooses from."""


@dataclass(frozen=True)
class Rung:
    """One encoder at one depth."""

    encoder: str
    name: str
    depth: str


def transfer_depth_experiment(
    *,
    data_dir: str = "demo",
    selection: str = "",
    cap: int = 100,
    per_protein: int = 0,
    encoder: str = "tiny",
    depths: Sequence[str] = (RAW_HEAD, HEAD, "last-1"),
    tiny_depths: Sequence[str] = (),
    encoding: str = "separator",
    pooling: str = "sites",
    max_tokens: int = 64,
    labels: str = "normal_scores",
    methods: Sequence[str] = ("fomaml", "multitask", "finetune"),
    shots: Sequence[int] = (0, 10),
    decided_at: int = 10,
    pool: int = 40,
    seeds: int = 5,
    n_folds: int = 4,
    meta_steps: int = 40,
    validate_every: int = 10,
    tasks_per_step: int = 8,
    support: int = 10,
    query: int = 10,
    inner_steps: int = 5,
    outer_rates: Sequence[Sequence[float]] = OUTER_RATES,
    adapt_steps: int = 10,
    tuning_assays: int = 8,
    checkpoint_dir: str | None = None,
    cache_dir: str | None = None,
    profile: str = "full",
    progress: Callable[[str], None] | None = None,
) -> Record:
    """Meta-train and adapt at several depths on some proteins, test on others.

    Args:
        data_dir: as in ``transfer_experiment``, like all that is not described here.
        selection: as there.
        cap: as there.
        per_protein: as there.
        encoder: as there; it must be layered (tiny, an ESM-2) where a depth is ``last-<k>``.
        depths: of ``encoder``: ``raw head``, ``head``, ``last-<k>`` or ``all``.
        tiny_depths: the same for ``tiny``, beside it.
        encoding: as there.
        pooling: as there.
        max_tokens: longer texts keep the residues around the mutated sites.
        labels: as there.
        methods: ``fomaml`` or ``maml``, ``multitask`` and ``finetune``.
        shots: as there.
        decided_at: as there.
        pool: as there.
        seeds: as there.
        n_folds: as there.
        meta_steps: as there.
        validate_every: as there.
        tasks_per_step: as there.
        support: as there.
        query: as there.
        inner_steps: as there.
        outer_rates: pairs of inner rate and outer rate of meta-training; each method and depth
            takes the pair with the lowest validation loss, chosen per fold with the first seed.
        adapt_steps: as there.
        tuning_assays: validation assays on which the rate of adaptation is chosen; 0 takes all.
        checkpoint_dir: as there.
        cache_dir: as there.
        profile: as there.
        progress: as there.

    Returns:
        A record: tables ``assays``, ``results`` (means over seeds), ``summary``, ``differences``
        (between methods at a depth, and between depths of a method), ``gains``, ``outer_rates``,
        ``rates`` and ``history``.

    """
    parameters = recorded_parameters(locals())
    say = progress or (lambda line: None)
    assays, roles = read_assays(data_dir, selection, cap, per_protein, 0)
    clusters = cluster_proteins(assays)
    cases = draw_cases(assays, clusters, "proteins", n_folds=n_folds, seeds=seeds)
    settings = MetaTraining(
        steps=meta_steps,
        tasks_per_step=tasks_per_step,
        support=support,
        query=query,
        validate_every=validate_every,
        validation_tasks=32,
    )
    apart = ("depths", "tiny_depths", "methods", "seeds", "encoder", "outer_rates")
    shared = {name: value for name, value in parameters.items() if name not in apart}
    shared |= {"data": {assay.id: assay.sha256 for assay in assays}, "version": __version__}
    rungs = [Rung(encoder, Path(encoder).name, depth) for depth in depths]
    rungs += [Rung("tiny", "tiny", depth) for depth in tiny_depths]
    if not rungs:
        raise DataError("there is no depth to run", "name some in depths or tiny_depths")
    found: dict[str, list] = {"results": [], "outer_rates": [], "rates": [], "history": []}
    seconds, described = {}, []
    for rung in rungs:
        label = f"{rung.name}, {rung.depth}"
        began = time.perf_counter()
        made = Predictor(load_encoder(rung.encoder, max_tokens=max_tokens), pooling)
        vectors = at_depth(made, assays, rung.depth, encoding, labels, cache_dir)
        spent = {"reading_and_embedding": time.perf_counter() - began}
        described.append(describe_encoder(made))
        question = shared | {"encoder": made.encoder.sha256, "depth": rung.depth}
        folder = str(Path(checkpoint_dir, label.replace(", ", "-"))) if checkpoint_dir else None
        fixed = (pool, shots, settings, meta_steps, adapt_steps, decided_at, folder)
        controls = CONTROLS if rung.depth == HEAD else ()
        for method in (*methods, *controls):
            tuned = [method] if method in TUNED else []
            plan = Plan(vectors, [method], shots, *fixed, question, tuned, tuning_assays)
            for one in run_method(plan, cases, method, outer_rates, inner_steps):
                where = {"encoder": rung.name, "depth": rung.depth}
                for name, rows in found.items():
                    rows += [{**where, **row} for row in one[name]]
                for name, value in one["seconds"].items():
                    spent[name] = spent.get(name, 0.0) + value
                say(f"{label}, {method}: {one['case']} done")
        seconds |= {f"{label}, {name}": round(value, 3) for name, value in spent.items()}
    results = pd.DataFrame(found.pop("results"))
    results = average_seeds(results.assign(regime=results["encoder"] + ", " + results["depth"]))
    results[["encoder", "depth"]] = results["regime"].str.split(", ", expand=True)
    table = describe_assays(assays, roles, clusters)
    tables = depth_tables(results, table, decided_at)
    if depths and tiny_depths:
        described[0]["provenance"] |= {"beside it": "tiny, trained"}
    return make_record(
        "transfer_depth",
        profile,
        parameters,
        assays=assays,
        encoder=described[0],
        device="cpu",
        seconds=seconds,
        numbers=depth_numbers(tables)
        | {"assays": number(len(assays)), "clusters": number(len(set(clusters.values())))},
        tables={
            "assays": table.round(4),
            **{name: pd.DataFrame(rows).round(6) for name, rows in found.items()},
            **{name: made.round(4) for name, made in tables.items()},
        },
    )


def run_method(
    plan: Plan,
    cases: Sequence[Case],
    method: str,
    outer_rates: Sequence[Sequence[float]],
    inner_steps: int,
) -> Iterator[dict]:
    """What ``run_case`` returns for each case, with the outer rates chosen at its fold's first."""
    recipe = RECIPES.get(method)
    chosen: dict[str, Plan] = {}
    for case in cases:
        tried: list[dict] = []
        if recipe is not None and recipe.algorithm is not None and case.name not in chosen:
            tried = try_outer_rates(plan, case, recipe, outer_rates, inner_steps)
            best = min(tried, key=lambda row: row["validation_loss"])
            rates = {name: best[name] for name in ("inner_lr", "meta_lr")}
            inner = InnerLoop(rates["inner_lr"], inner_steps)
            own = replace(plan.settings, inner=inner, meta_lr=rates["meta_lr"])
            chosen[case.name] = replace(plan, settings=own, question=plan.question | rates)
        one = run_case(chosen.get(case.name, plan), case)
        at = {"method": method, "case": case.name}
        yield one | {
            "outer_rates": [at | row for row in tried],
            "case": f"{case.name}, {case.seed}",
        }


def at_depth(
    predictor: Predictor,
    assays: Sequence[Assay],
    depth: str,
    encoding: str,
    labels: str,
    cache_dir: str | None,
) -> Vectors:
    """The predictor that learns from ``depth`` on, and the assays as it reads them.

    Raises:
        DataError: the encoder has no layers to begin at, or not so many.

    """
    if depth in (HEAD, RAW_HEAD):
        features = "standardised" if depth == HEAD else "raw"
        return embed_assays(predictor, assays, encoding, features, labels, cache_dir=cache_dir)
    if depth == WHOLE:
        return layered_assays(predictor, assays, encoding, labels, 0, cache_dir=cache_dir)
    kind, _, count = depth.partition("-")
    layers = getattr(predictor.encoder.module, "layers", 0)
    if kind != "last" or not count.isdigit() or not 0 < int(count) < max(layers, 1):
        raise DataError(
            f"'{depth}' is no depth of {predictor.encoder.name} ({layers} layers)",
            f"choose '{HEAD}', '{RAW_HEAD}', 'last-1' to 'last-{max(layers - 1, 1)}' or '{WHOLE}'",
        )
    start = layers - int(count)
    return layered_assays(predictor, assays, encoding, labels, start, cache_dir=cache_dir)


def try_outer_rates(
    plan: Plan, case: Case, recipe: Recipe, pairs: Sequence[Sequence[float]], inner_steps: int
) -> list[dict]:
    """The lowest validation loss of a start per pair of rates; kept as a piece."""
    vectors = plan.vectors

    def lowest(inner_lr: float, meta_lr: float) -> float:
        inner = InnerLoop(inner_lr, inner_steps, first_order=recipe.first_order)
        trained = meta_train(
            vectors.predictor,
            initial_params(vectors.predictor, case.seed, "cpu"),
            [vectors.training[id] for id in case.split.train],
            replace(plan.settings, algorithm=recipe.algorithm, inner=inner, meta_lr=meta_lr),
            seed=case.seed,
            validation=[vectors.training[id] for id in case.split.validation],
        )
        return float(np.nanmin([row["validation_loss"] for row in trained.history]))

    def run() -> list[dict]:
        return [
            {"inner_lr": inner_lr, "meta_lr": meta_lr, "validation_loss": lowest(inner_lr, meta_lr)}
            for inner_lr, meta_lr in pairs
        ]

    pieces = plan.pieces(case)
    question = pieces.question | {"outer_rates": [list(pair) for pair in pairs]}
    name = " ".join(["outer", case.name, *plan.methods])
    return replace(pieces, question=question).get(name, run)
