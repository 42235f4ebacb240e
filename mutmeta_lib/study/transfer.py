"""The third arm: does meta-learning help on a protein, or a property, that nobody has measured?

Sound assays, protein-disjoint splits, every variant outside the support pool as query, and controls
that have the same labels and steps. The encoder is frozen; what is meta-trained is the head.
"""

import time
from collections.abc import Callable, Sequence

import pandas as pd

from mutmeta_lib import __version__
from mutmeta_lib.data.assays import Assay
from mutmeta_lib.data.clustering import cluster_proteins
from mutmeta_lib.data.selections import cap_assay, load_selection, read_selection
from mutmeta_lib.errors import DataError
from mutmeta_lib.models.zero_shot import describe_head
from mutmeta_lib.records.pieces import Pieces
from mutmeta_lib.records.record import Record, number, recorded_parameters
from mutmeta_lib.study.setting import (
    describe_encoder,
    load_assays,
    make_predictor,
    make_record,
    outer_loop,
)
from mutmeta_lib.study.transfer_assays import describe_assays, nearest_trained
from mutmeta_lib.study.transfer_cases import REGIMES, draw_cases
from mutmeta_lib.study.transfer_methods import CLOSED
from mutmeta_lib.study.transfer_numbers import name_numbers, related_table, report_tables
from mutmeta_lib.study.transfer_run import Plan, average_seeds, run_case
from mutmeta_lib.study.vectors import embed_assays

CORE = ("maml", "multitask", "finetune", *CLOSED)
"""Tested on other proteins at every number of shots, on other properties at two."""

RELATED = ("maml", "multitask")
"""Tested in the regime ``related``, which asks what a start has learned of a protein."""

FAMILY = ("r2d2", "deepkernel", "maml_rank", "fomaml", "reptile", "metasgd")
"""Tested on other proteins at the first and the deciding number of shots."""


def transfer_experiment(
    *,
    data_dir: str = "demo",
    selection: str = "",
    cap: int = 200,
    per_protein: int = 0,
    longest: int = 0,
    ranks_only: Sequence[str] = ("solubility classes",),
    encoder: str = "tiny",
    encoding: str = "separator",
    pooling: str = "sites",
    features: str = "standardised",
    labels: str = "normal_scores",
    regimes: Sequence[str] = REGIMES,
    held_out: Sequence[str] | None = None,
    methods: Sequence[str] = CORE,
    family: Sequence[str] = FAMILY,
    shots: Sequence[int] = (0, 1, 5, 10, 20, 40),
    decided_at: int = 10,
    pool: int = 40,
    seeds: int = 5,
    n_folds: int = 4,
    meta_steps: int = 60,
    closed_steps: int = 40,
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
    """Meta-train on some proteins or properties, adapt to others, compare with every control.

    Args:
        data_dir: ``demo`` or a folder in the layout of the data card.
        selection: a list of assays (``selections``); all of the folder when empty.
        cap: variants per assay at most, drawn once.
        per_protein: without a selection, at most so many assays per protein and property; 0 is all.
        longest: leave out longer wild types; 0 keeps all.
        ranks_only: roles of assays whose labels are classes: they are ranked, errors are not taken.
        encoder: ``tiny``, a local directory or a hub name.
        encoding: how a variant is written as tokens.
        pooling: how hidden states become one vector.
        features: ``standardised`` or ``raw`` (``vectors.FEATURES``).
        labels: what meta-training sees (``vectors.LABELS``).
        regimes: of ``transfer_cases.REGIMES``.
        held_out: properties to hold out; all when None.
        methods: tested in every regime.
        family: tested in the regime ``proteins`` at zero and ``decided_at`` labels.
        shots: numbers of labels in the regime ``proteins``; 0 and ``decided_at`` in the others.
        decided_at: labels at which claims are judged and rates are chosen.
        pool: variants of an assay reserved for supports; smaller assays reserve the largest of
            ``shots`` that they can.
        seeds: number of seeds; each draws new starts, tasks and supports.
        n_folds: groups of clusters.
        meta_steps: outer steps of every meta-trained start; the best on validation is kept.
        closed_steps: outer steps of those whose head is solved (they learn a few numbers).
        validate_every: meta-steps between two validations.
        tasks_per_step: tasks per outer step.
        support: support size in meta-training.
        query: query size in meta-training.
        inner_steps: inner steps in meta-training.
        inner_lr: inner rate in meta-training.
        meta_lr: Adam rate of the outer loop.
        adapt_steps: gradient steps on a test task, the same for every gradient method.
        checkpoint_dir: folder for finished cases; a killed run goes on from them.
        cache_dir: folder that keeps embeddings.
        profile: name of the profile, for the record.
        progress: called with one line of text per case.

    Returns:
        A record: tables ``assays``, ``nearest``, ``results`` (means over seeds), ``summary``,
        ``differences``, ``gains``, ``related``, ``rapid``, ``failures``, ``signatures``, ``rates``
        and ``history``; numbers as ``transfer_numbers.name_numbers`` names them.

    """
    parameters = recorded_parameters(locals())
    say = progress or (lambda line: None)
    began = time.perf_counter()
    assays, roles = read_assays(data_dir, selection, cap, per_protein, longest)
    clusters = cluster_proteins(assays)
    made = make_predictor(encoder, pooling, seed=0, device="cpu")
    described_encoder = describe_encoder(made) | describe_head([*methods, *family], made.encoder)
    vectors = embed_assays(made, assays, encoding, features, labels, cache_dir=cache_dir)
    seconds = {"reading_and_embedding": time.perf_counter() - began}
    say(f"{len(assays)} assays of {len(set(clusters.values()))} clusters: embedded")
    apart = ("regimes", "held_out", "methods", "family", "shots", "seeds", "decided_at")
    question = {
        **{name: value for name, value in parameters.items() if name not in apart},
        "data": {assay.id: assay.sha256 for assay in assays},
        "encoder": made.encoder.sha256,
        "version": __version__,
    }
    settings = outer_loop(parameters, validate_every=validate_every, validation_tasks=32)

    def plan(names: Sequence[str], at: Sequence[int]) -> Plan:
        fixed = (
            pool,
            shots,
            settings,
            closed_steps,
            adapt_steps,
            decided_at,
            checkpoint_dir,
            question,
        )
        return Plan(vectors, names, at, *fixed)

    few = sorted({0, decided_at})
    jobs, later = [], []
    for regime in regimes:
        cases = draw_cases(
            assays, clusters, regime, n_folds=n_folds, seeds=seeds, held_out=held_out
        )
        names = [m for m in methods if m in RELATED] if regime == "related" else methods
        jobs += [(plan(names, shots if regime == "proteins" else few), case) for case in cases]
        if regime == "proteins" and family:
            later += [(plan([name], few), case) for name in family for case in cases]
    jobs += later
    done = []
    for place, (own, case) in enumerate(jobs):
        done.append((case, run_case(own, case)))
        say(f"{case.regime}, {case.name}, seed {case.seed}: done ({place + 1} of {len(jobs)})")
    described = describe_assays(assays, roles, clusters)
    kept = Pieces(None, {})
    nearest = kept.get("nearest", lambda: nearest_trained(assays, [case for case, _ in done]))
    by_seed = pd.concat(
        [pd.DataFrame(one["results"]).assign(regime=case.regime) for case, one in done],
        ignore_index=True,
    )
    results = average_seeds(by_seed)
    cluster = dict(zip(described["assay"], described["cluster"], strict=True))
    tables = {
        "assays": described,
        "nearest": pd.DataFrame(nearest),
        "related": related_table(by_seed, cluster, decided_at),
        **report_tables(results, described, pd.DataFrame(nearest), decided_at, ranks_only),
        **{
            name: pd.DataFrame([row for _, one in done for row in one[name]])
            for name in ("rates", "history")
        },
    }
    tables["history"] = _mean_history(tables["history"])
    seconds |= pd.DataFrame([one["seconds"] for _, one in done]).sum().to_dict()
    numbers = name_numbers(tables) | {
        "diverged_adaptations": number(sum(one["diverged"] for _, one in done)),
        "assays": number(len(assays)),
        "clusters": number(len(set(clusters.values()))),
        "variants": number(sum(map(len, assays))),
    }
    return make_record(
        "transfer",
        profile,
        parameters,
        assays=assays,
        encoder=described_encoder,
        device="cpu",
        seconds={name: round(value, 3) for name, value in seconds.items()},
        numbers=numbers,
        tables={name: table.round(4) for name, table in tables.items()},
    )


def read_assays(
    data_dir: str, selection: str, cap: int, per_protein: int, longest: int
) -> tuple[list[Assay], dict[str, str]]:
    """The assays, and the role of each: that of the list, or its property."""
    if selection:
        assays = load_selection(data_dir, selection, cap=cap)
        listed = read_selection(selection)
        roles = dict(zip(listed["id"], listed["role"], strict=True))
    else:
        assays = [cap_assay(a, cap) for a in load_assays(data_dir, per_protein=per_protein)]
        roles = {assay.id: assay.property for assay in assays}
    if longest:
        assays = [assay for assay in assays if len(assay.wild_type) <= longest]
    if not assays:
        raise DataError("no assay is left", "allow longer wild types, or name another list")
    return assays, roles


def _mean_history(history: pd.DataFrame) -> pd.DataFrame:
    """Validation and training loss per regime, method and step: mean over cases and seeds."""
    grouped = history.groupby(["regime", "method", "step"], sort=False)
    losses = grouped[["train_loss", "validation_loss"]]
    return losses.median().assign(n_runs=grouped.size()).reset_index()
