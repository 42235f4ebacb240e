"""Seconds to a given accuracy, with meta-training excluded, included and shared out.

The target is fine-tuning's query error at its end. Every start (meta-trained, jointly trained,
fresh) takes the same kind of steps on the same labels, its rate tuned alike, and is followed until
it gets there. What each start cost is known, so it can be put on the bill of one new assay, or of a
thousand. Seconds are those of computation (``frozen_heads.clock``): the encoder's share, the same
for all, is reported apart.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from mutmeta_lib.data.assays import Assay
from mutmeta_lib.data.splits import Split, cluster_proteins, protein_folds
from mutmeta_lib.learn.training import MetaTraining
from mutmeta_lib.models.embeddings import embed
from mutmeta_lib.models.encoders import Encoder, load_encoder
from mutmeta_lib.models.predictor import Params
from mutmeta_lib.records.record import Record, recorded_parameters
from mutmeta_lib.study.frozen_heads import (
    STARTS,
    choose_rate,
    clock,
    freeze_assays,
    learn_start,
    read_assays,
    validation_tasks,
)
from mutmeta_lib.study.setting import (
    describe_encoder,
    finished_parts,
    make_record,
    outer_loop,
)
from mutmeta_lib.study.speed_numbers import speed_numbers, speed_tables
from mutmeta_lib.study.speed_sizes import size_assays, size_rows
from mutmeta_lib.study.trajectories import arrivals, by_seconds, by_steps, follow
from mutmeta_lib.study.vectors import Vectors
from mutmeta_lib.tasks.tasks import EncodedAssay, draw_task, encode_assay, task_generator

MIN_QUERY = 15
"""Fewest variants left to predict."""

PARTS = ("draws", "curves", "clock", "rapid", "costs", "rates", "left_out")
"""Rows that a run brings back; ``left_out`` are draws whose scores are all equal."""

RAPID = 10
"""Labels, and at most steps, of the claim of rapid adaptation."""


def speed_experiment(
    *,
    data_dir: str = "demo",
    selection: str = "sound",
    roles: Sequence[str] | None = None,
    cap: int | None = None,
    per_protein: int = 0,
    encoder: str = "tiny",
    encoding: str = "separator",
    pooling: str = "sites",
    labels: Sequence[int] = (10, 40),
    horizon: int = 50,
    n_folds: int = 4,
    folds: Sequence[int] = (0, 1, 2, 3),
    seeds: int = 3,
    meta_steps: int = 300,
    tasks_per_step: int = 16,
    support: int = 10,
    query: int = 16,
    inner_steps: int = 5,
    inner_lr: float = 0.03,
    meta_lr: float = 1e-3,
    tuning_tasks: int = 16,
    max_query: int = 160,
    size_ids: Sequence[str] = (),
    sizes: Sequence[int] = (10, 30, 100, 300, 1000, 2000),
    epochs: int = 5,
    tasks_counted: Sequence[int] = (1, 10, 100, 1000, 10000),
    profile: str = "full",
    progress: Callable[[str], None] | None = None,
    checkpoint_dir: str | None = None,
    cache_dir: str | None = None,
) -> Record:
    """Measure the time that a start saves, and what it cost.

    Args:
        data_dir: ``demo`` or a data directory.
        selection: which of its assays, see ``selections``; not used for ``demo``.
        roles: kinds of assays of the selection; all when None.
        cap: variants used per assay at most; None is what the selection says.
        per_protein: assays per protein and property of the bundled data; 0 is all.
        encoder: ``tiny``, a local directory or a hub name; it is frozen.
        encoding: how a variant is written as tokens.
        pooling: how hidden states become one vector.
        labels: numbers of labels of the new assay.
        horizon: gradient steps of fine-tuning; every start is followed for twice as many.
        n_folds: groups of protein clusters.
        folds: which of them are tested.
        seeds: number of seeds.
        meta_steps: outer steps of meta-training and of joint training.
        tasks_per_step: tasks per outer step.
        support: support size in meta-training.
        query: query size in meta-training.
        inner_steps: inner steps in meta-training.
        inner_lr: inner rate in meta-training.
        meta_lr: Adam rate of the outer loop.
        tuning_tasks: meta-validation tasks that a rate is chosen on.
        max_query: query variants per task at most.
        size_ids: assays with many variants, for the dependence on the number of labels; the part
            is left out when there are none.
        sizes: numbers of labels there.
        epochs: passes of the arms that read all labels in batches of 16.
        tasks_counted: numbers of new assays that share the bill of meta-training.
        profile: name of the profile, for the record.
        progress: called with one line of text per fold and seed.
        checkpoint_dir: finished parts are kept here.
        cache_dir: pooled vectors are kept here.

    Returns:
        A record; see ``speed_numbers`` for its numbers and tables.

    """
    parameters = recorded_parameters(locals())
    say = progress or (lambda line: None)
    assays = read_assays(data_dir, selection, cap, per_protein, roles)
    splits = protein_folds(assays, n_folds)
    clusters = cluster_proteins(assays)
    loaded = load_encoder(encoder)
    how = {"encoding": encoding, "pooling": pooling, "cache_dir": cache_dir}
    frozen = freeze_assays(loaded, assays, **how)
    settings = outer_loop(parameters, validate_every=max(5, meta_steps // 15), validation_tasks=32)
    bench = Bench(frozen, clusters, settings, labels, horizon, tuning_tasks, max_query)
    hashes = {assay.id: assay.sha256 for assay in assays}
    pieces = finished_parts(checkpoint_dir, parameters, hashes, loaded.sha256)
    parts = []
    for fold in folds:
        for seed in range(seeds):
            name = f"fold {fold} seed {seed}"
            parts.append(pieces.get(name, lambda f=fold, s=seed: measure(bench, splits[f], f, s)))
            say(f"{name}: done")
    large = size_assays(data_dir, size_ids, max(sizes) + max_query)
    sized = []
    if large:
        arms = dict(sizes=sizes, steps=horizon, epochs=epochs, max_query=max_query, seeds=seeds)

        def measure_sizes() -> list[dict]:
            around = freeze_assays(loaded, large, **how)
            return size_rows(frozen, around, settings, fixed=support, tasks=tuning_tasks, **arms)

        sized = pieces.get("sizes", measure_sizes)
        say("sizes: done")
    costs = pieces.get("embedding", lambda: embedding_cost(loaded, assays, encoding, pooling))
    gathered = {key: pd.DataFrame([row for part in parts for row in part[key]]) for key in PARTS}
    gathered |= {"sizes": pd.DataFrame(sized), "embedding": pd.DataFrame(costs)}
    return make_record(
        "speed",
        profile,
        parameters,
        assays=[*assays, *(a for a in large if a.id not in frozen.assays)],
        encoder=describe_encoder(frozen.predictor),
        device="cpu",
        seconds={
            "meta_training": float(gathered["costs"]["seconds"].sum()),
            "tuning": float(gathered["rates"]["seconds"].sum()),
        },
        numbers=speed_numbers(gathered, tasks_counted),
        tables=speed_tables(gathered),
    )


@dataclass(frozen=True, eq=False)
class Bench:
    """What all runs share."""

    frozen: Vectors
    clusters: dict[str, int]
    settings: MetaTraining
    labels: Sequence[int]
    horizon: int
    tuning_tasks: int
    max_query: int

    def usable(self, assay: EncodedAssay) -> list[int]:
        """Numbers of labels that leave this assay enough to predict."""
        return [k for k in self.labels if len(assay) >= k + MIN_QUERY]


def measure(bench: Bench, split: Split, fold: int, seed: int) -> dict[str, list[dict]]:
    """One fold and seed: learn the starts, tune, and follow them on every test assay."""
    frozen, predictor, horizon = bench.frozen, bench.frozen.predictor, bench.horizon
    run = {"fold": fold, "seed": seed}
    made: dict[str, list[dict]] = {key: [] for key in PARTS}
    starts: dict[str, Params] = {}
    for arm in STARTS:
        starts[arm], seconds = learn_start(frozen, split, bench.settings, arm, seed)
        made["costs"].append({"arm": arm, "seconds": seconds, **run})
    chosen = {}
    for steps, k in [(horizon, k) for k in bench.labels] + [(RAPID, RAPID)]:
        tasks = validation_tasks(
            frozen, split, support=k, query=16, n_tasks=bench.tuning_tasks, seed=seed
        )
        for arm in STARTS:
            began = clock()
            rate, _ = choose_rate(predictor, starts[arm], tasks, steps)
            chosen[arm, steps, k] = rate
            row = {"arm": arm, "steps": steps, "labels": k, "optimiser": rate[0], "lr": rate[1]}
            made["rates"].append({**row, "seconds": clock() - began, **run})
    for assay in [frozen.assays[name] for name in split.test]:
        usable = bench.usable(assay)
        about = {
            "assay": assay.assay.id,
            "property": assay.assay.property,
            "cluster": bench.clusters[assay.assay.wild_type],
            **run,
        }
        for k in usable:
            rng = task_generator(seed, assay.assay.id)
            task = draw_task(assay, k, rng, pool=max(usable), max_query=bench.max_query)
            if np.ptp(task.query.scores) == 0 or not task.label_scale.identified:
                made["left_out"].append({**about, "labels": k})
                continue
            paths = {
                arm: follow(predictor, start, task, chosen[arm, horizon, k], 2 * horizon)
                for arm, start in starts.items()
            }
            here = {**about, "labels": k}
            made["draws"] += arrivals(paths, horizon, here)
            made["curves"] += by_steps(paths, horizon, here)
            made["clock"] += by_seconds(paths, horizon, here)
            if k == RAPID:
                for arm, start in starts.items():
                    path = follow(predictor, start, task, chosen[arm, RAPID, RAPID], RAPID)
                    ranks = {f"after_{s}": float(path.ranks[s]) for s in (0, 1, 2, 5, 10)}
                    made["rapid"].append({**about, "arm": arm, **ranks})
    return made


def embedding_cost(
    encoder: Encoder, assays: Sequence[Assay], encoding: str, pooling: str
) -> list[dict]:
    """Seconds per variant that the frozen encoder takes, on assays of different lengths."""
    by_length = sorted(assays, key=lambda assay: len(assay.wild_type))
    places = np.unique(np.linspace(0, len(by_length) - 1, min(8, len(by_length))).astype(int))
    rows = []
    for place in places:
        assay = by_length[place]
        some = replace(assay, variants=assay.variants[:32], scores=assay.scores[:32])
        tokens = encode_assay(some, encoding, encoder.vocabulary, encoder.max_tokens).tokens
        began = clock()
        embed(encoder, tokens, pooling)
        seconds = (clock() - began) / len(tokens)
        row = {"assay": assay.id, "length": len(assay.wild_type)}
        rows.append({**row, "seconds_per_variant": seconds})
    return rows
