"""Encoding times meta-learning: how much of a result is the one's, how much the other's."""

import time
from collections.abc import Callable, Sequence

import pandas as pd

from mutmeta_lib import __version__
from mutmeta_lib.data.clustering import cluster_proteins
from mutmeta_lib.records.record import Record, number, recorded_parameters
from mutmeta_lib.study.gains import group_mean, paired_difference
from mutmeta_lib.study.intervals import row_number
from mutmeta_lib.study.setting import (
    describe_encoder,
    make_predictor,
    make_record,
    outer_loop,
)
from mutmeta_lib.study.transfer import read_assays
from mutmeta_lib.study.transfer_assays import about_assays, describe_assays
from mutmeta_lib.study.transfer_cases import draw_cases
from mutmeta_lib.study.transfer_run import Plan, average_seeds, run_case
from mutmeta_lib.study.vectors import embed_assays

PAIRS = (
    ("separator", "sites"),
    ("unknown_text", "sites"),
    ("unknown_site", "sites"),
    ("mutant", "sites"),
)
"""Encodings with their pooling. Pooled over sites, ``unknown_text`` is told the place of a mutation
by the pooling; from its first token alone all variants with one mutation are equal."""


def transfer_encodings_experiment(
    *,
    data_dir: str = "demo",
    selection: str = "",
    cap: int = 200,
    per_protein: int = 0,
    longest: int = 0,
    encoder: str = "tiny",
    pairs: Sequence[Sequence[str]] = PAIRS,
    features: str = "standardised",
    labels: str = "normal_scores",
    methods: Sequence[str] = ("maml", "multitask", "finetune", "ridge"),
    shots: Sequence[int] = (0, 10),
    pool: int = 40,
    seeds: int = 5,
    n_folds: int = 4,
    meta_steps: int = 60,
    validate_every: int = 10,
    tasks_per_step: int = 16,
    support: int = 10,
    query: int = 20,
    inner_steps: int = 5,
    inner_lr: float = 0.03,
    meta_lr: float = 5e-4,
    adapt_steps: int = 10,
    checkpoint_dir: str | None = None,
    cache_dir: str | None = None,
    profile: str = "full",
    progress: Callable[[str], None] | None = None,
) -> Record:
    """Run the regime ``proteins`` of the third arm once per encoding, on the same draws.

    Args:
        data_dir: as in ``transfer_experiment``, like all that is not described here.
        selection: as there.
        cap: as there.
        per_protein: as there.
        longest: as there.
        encoder: as there.
        pairs: ``(encoding, pooling)``; the first encoding is compared with each of the others, at
            their pooling where it was run with that.
        features: as there.
        labels: as there.
        methods: methods to run per encoding; ``maml`` and ``finetune`` among them.
        shots: numbers of labels; at the largest, the encodings are compared.
        pool: as there; smaller assays reserve the largest of ``shots`` that they can.
        seeds: as there.
        n_folds: as there.
        meta_steps: as there.
        validate_every: as there.
        tasks_per_step: as there.
        support: as there.
        query: as there.
        inner_steps: as there.
        inner_lr: as there.
        meta_lr: as there.
        adapt_steps: as there.
        checkpoint_dir: as there.
        cache_dir: as there.
        profile: as there.
        progress: as there.

    Returns:
        A record: tables ``assays``, ``results`` (means over seeds), ``summary`` and
        ``differences`` (the first encoding minus each other one, per method and property), and
        ``shares``: what MAML adds to fine-tuning per encoding.

    """
    parameters = recorded_parameters(locals())
    say = progress or (lambda line: None)
    assays, roles = read_assays(data_dir, selection, cap, per_protein, longest)
    clusters = cluster_proteins(assays)
    settings = outer_loop(parameters, validate_every=validate_every, validation_tasks=32)
    cases = draw_cases(assays, clusters, "proteins", n_folds=n_folds, seeds=seeds)
    results, seconds = [], {"reading_and_embedding": 0.0}
    for encoding, pooling in pairs:
        began = time.perf_counter()
        made = make_predictor(encoder, pooling, seed=0, device="cpu")
        vectors = embed_assays(made, assays, encoding, features, labels, cache_dir=cache_dir)
        seconds["reading_and_embedding"] += time.perf_counter() - began
        question = {
            **{k: v for k, v in parameters.items() if k not in ("pairs", "seeds", "shots")},
            "encoding": encoding,
            "pooling": pooling,
            "data": {assay.id: assay.sha256 for assay in assays},
            "encoder": made.encoder.sha256,
            "version": __version__,
        }
        decided = max(shots)
        fixed = (pool, shots, settings, meta_steps, adapt_steps, decided, checkpoint_dir, question)
        plan = Plan(vectors, methods, shots, *fixed)
        for place, case in enumerate(cases):
            one = run_case(plan, case)
            rows = pd.DataFrame(one["results"]).assign(regime=f"{encoding}/{pooling}")
            results.append(rows)
            for name, value in one["seconds"].items():
                seconds[name] = seconds.get(name, 0.0) + value
            say(f"{encoding}, {pooling}: {place + 1} of {len(cases)} cases done")
    described = describe_assays(assays, roles, clusters)
    table = average_seeds(pd.concat(results, ignore_index=True))
    table[["encoding", "pooling"]] = table["regime"].str.split("/", expand=True)
    tables = encoding_tables(table, described, pairs, max(shots))
    return make_record(
        "transfer_encodings",
        profile,
        parameters,
        assays=assays,
        encoder=describe_encoder(made),
        device="cpu",
        seconds={name: round(value, 3) for name, value in seconds.items()},
        numbers=_numbers(tables)
        | {
            "assays": number(len(assays)),
            "clusters": number(len(set(clusters.values()))),
        },
        tables={
            "assays": described.round(4),
            "results": table[
                ["encoding", "pooling", "method", "assay", "shots", "spearman", "relative_mse"]
            ].round(4),
            **{name: found.round(4) for name, found in tables.items()},
        },
    )


def encoding_tables(
    table: pd.DataFrame, assays: pd.DataFrame, pairs: Sequence[Sequence[str]], at: int
) -> dict[str, pd.DataFrame]:
    """Means per cell, the first encoding minus each other, and MAML minus fine-tuning per cell."""
    full = about_assays(table, assays)
    full = full[~full["method"].str.endswith("_mse")]
    summary, differences, shares = [], [], []
    for group in ("all", *sorted(full["property"].unique())):
        part = full if group == "all" else full[full["property"] == group]
        for (cell, method, shots), own in part.groupby(["regime", "method", "shots"], sort=False):
            encoding, pooling = cell.split("/")
            where = {"group": group, "encoding": encoding, "pooling": pooling}
            summary.append(
                {**where, "method": method, "shots": shots, **group_mean(own, "spearman")}
            )
        decided = part[part["shots"] == at]
        for encoding, pooling in pairs:
            where = {"group": group, "encoding": encoding, "pooling": pooling}
            cell = decided[decided["regime"] == f"{encoding}/{pooling}"]
            if {"maml", "finetune"} <= set(cell["method"]):
                found = paired_difference(cell, "spearman", "maml", "finetune")
                shares.append({**where, **found})
            if encoding == pairs[0][0]:
                continue
            same = [pairs[0][0], pooling] in [list(pair) for pair in pairs]
            reference = f"{pairs[0][0]}/{pooling if same else pairs[0][1]}"
            for method in pd.unique(decided["method"]):
                own = decided[decided["method"] == method].assign(method=decided["regime"])
                found = paired_difference(own, "spearman", reference, f"{encoding}/{pooling}")
                named = {**where, "method": method, "reference": reference}
                differences.append({**named, **found})
    return {
        "summary": pd.DataFrame(summary),
        "differences": pd.DataFrame(differences),
        "shares": pd.DataFrame(shares),
    }


def _numbers(tables: dict[str, pd.DataFrame]) -> dict[str, dict]:
    named = {}
    for row in tables["summary"].to_dict("records"):
        cell = f"{row['group']}_{row['encoding']}_{row['pooling']}_{row['method']}_{row['shots']}"
        named[cell] = row_number(row)
    for row in tables["differences"].to_dict("records"):
        cell = f"{row['encoding']}_{row['pooling']}_{row['method']}"
        named[f"{row['group']}_first_minus_{cell}"] = row_number(row)
    for row in tables["shares"].to_dict("records"):
        cell = f"{row['group']}_maml_minus_finetune_{row['encoding']}_{row['pooling']}"
        named[cell] = row_number(row)
    return named
