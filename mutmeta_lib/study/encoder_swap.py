"""Long-term stability: swap the encoder under a meta-learned head. What is lost, what mends it?

A start is meta-trained on one encoder's vectors. New assays are then read through another encoder:
perturbed, rounded, a layer less, or one that knows nothing. Ridge regression, which is fitted anew
each time and remembers no encoder, shows how much of a loss is the vectors' own.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from mutmeta_lib.data.assays import Assay
from mutmeta_lib.data.selections import cap_assay
from mutmeta_lib.errors import DataError
from mutmeta_lib.learn.baselines import Ridge
from mutmeta_lib.learn.methods import GradientMethod, divergences
from mutmeta_lib.learn.training import MetaTraining
from mutmeta_lib.models.encoders import load_encoder
from mutmeta_lib.records.record import Record, number, recorded_parameters
from mutmeta_lib.study.evaluate import few_shot
from mutmeta_lib.study.frozen_heads import (
    freeze_assays,
    read_assays,
    rows_by_seed,
    split_around,
    tuned_starts,
)
from mutmeta_lib.study.intervals import interval_row, row_number
from mutmeta_lib.study.setting import (
    DEMO,
    describe_encoder,
    finished_parts,
    make_record,
    outer_loop,
)
from mutmeta_lib.study.swapped import swap
from mutmeta_lib.study.vectors import Vectors

SWAPS = (
    "same",
    "bfloat16",
    "int8",
    "noise 0.01",
    "noise 0.03",
    "noise 0.1",
    "noise 0.3",
    "one layer less",
    "shuffled",
)

REFERENCE = 10
"""Labels of the level that a swapped encoder has to get back to."""

LEVEL_WITHIN = 0.01
"""So much less Spearman correlation still counts as level."""


def swap_experiment(
    *,
    data_dir: str = "demo",
    selection: str = "sound",
    roles: Sequence[str] | None = None,
    per_protein: int = 0,
    test_ids: Sequence[str] = (),
    test_cap: int = 120,
    encoder: str = "tiny",
    encoding: str = "separator",
    pooling: str = "sites",
    swaps: Sequence[str] = SWAPS,
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
    tuning_tasks: int = 24,
    profile: str = "full",
    progress: Callable[[str], None] | None = None,
    checkpoint_dir: str | None = None,
    cache_dir: str | None = None,
) -> Record:
    """Swap the encoder under the head and count what is lost.

    Args:
        data_dir: ``demo`` or a data directory.
        selection: its assays; those of the tested clusters are not learned from.
        roles: kinds of assays of the selection; all when None.
        per_protein: assays per protein and property of the bundled data; 0 is all.
        test_ids: assays to test on, run through every encoder; the first one when there are none.
        test_cap: variants of each of them at most.
        encoder: ``tiny``, a local directory or a hub name; the original.
        encoding: how a variant is written as tokens.
        pooling: how hidden states become one vector.
        swaps: see ``swapped.swap``; ``same`` must be among them.
        shots: numbers of labels.
        seeds: number of seeds of starts and draws; noise is drawn once.
        meta_steps: outer steps of meta-training.
        tasks_per_step: tasks per outer step.
        support: support size in meta-training.
        query: query size in meta-training.
        inner_steps: inner steps in meta-training.
        inner_lr: inner rate in meta-training.
        meta_lr: Adam rate of the outer loop.
        adapt_steps: gradient steps.
        tuning_tasks: meta-validation tasks that rates are chosen on.
        profile: name of the profile, for the record.
        progress: called with one line of text per part.
        checkpoint_dir: finished parts are kept here.
        cache_dir: pooled vectors are kept here.

    Returns:
        A record: tables ``summary`` (``what`` is ``spearman`` or ``lost``), ``results``, ``moved``;
        numbers ``<method>_<shots>_<swap>``, ``lost_<method>_<shots>_<swap>`` (same minus swapped),
        ``recovered_<method>_<swap>`` (fewest labels at which the swapped encoder is level with
        the original at ten, up to 0.01; open when none of ``shots`` suffices, or ten is not among
        them) and ``moved_<swap>`` (distance of a variant's vector from its old place, relative to
        the spread of the assay's vectors).

    Raises:
        DataError: an assay of ``test_ids`` is not among those read, or too few proteins are left.

    """
    parameters = recorded_parameters(locals())
    say = progress or (lambda line: None)
    assays = read_assays(data_dir, selection, None, per_protein, roles)
    if unknown := sorted(set(test_ids) - {assay.id for assay in assays}):
        raise DataError(
            f"there is no assay {unknown[0]} to test on", "name assays of the selection and roles"
        )
    tested = [a for a in assays if a.id in test_ids] if test_ids else assays[:1]
    short = [cap_assay(assay, test_cap) for assay in tested]
    if data_dir == DEMO:
        assays = [a for a in assays if a.protein not in {t.protein for t in tested}]
    original = load_encoder(encoder)
    how = {"encoding": encoding, "pooling": pooling}
    settings = outer_loop(parameters, validate_every=max(5, meta_steps // 15), validation_tasks=32)
    hashes = sorted(assay.sha256 for assay in [*assays, *short])
    pieces = finished_parts(checkpoint_dir, parameters, hashes, original.sha256)
    pool = freeze_assays(original, assays, cache_dir=cache_dir, **how)
    _, clusters = split_around(assays, short, seed=0)
    read = {}
    for kind in swaps:
        read[kind] = freeze_assays(swap(original, kind), short, cache_dir=cache_dir, **how)
        say(f"{kind}: vectors ready")

    def one_seed(seed: int) -> list[dict]:
        return measure(pool, read, short, settings, shots, adapt_steps, tuning_tasks, seed)

    results, spent = rows_by_seed(pieces, seeds, one_seed, say)
    results["cluster"] = results["assay"].map({a.id: clusters[a.wild_type] for a in short})
    moved = distances(read)
    summary, numbers = report(results, swaps, shots)
    for kind, own in moved.groupby("swap", sort=False):
        numbers[f"moved_{_name(kind)}"] = number(
            own["moved"].mean(), own["moved"].min(), own["moved"].max(), len(own), "spread"
        )
    keys = ["swap", "method", "shots", "assay", "cluster"]
    per_assay = results.groupby(keys, as_index=False, sort=False)["spearman"].mean()
    return make_record(
        "swap",
        profile,
        parameters,
        assays=[*assays, *short],
        encoder=describe_encoder(pool.predictor),
        device="cpu",
        seconds={"on vectors": spent},
        numbers=numbers,
        tables={
            "summary": summary.round(5),
            "results": per_assay.round(5),
            "moved": moved.round(5),
        },
    )


def measure(
    pool: Vectors,
    read: dict[str, Vectors],
    short: Sequence[Assay],
    settings: MetaTraining,
    shots: Sequence[int],
    steps: int,
    tuning_tasks: int,
    seed: int,
) -> list[dict]:
    """Learn the start on the original, then adapt and score it on every encoder's vectors."""
    tuned = tuned_starts(pool, short, settings, steps=steps, n_tasks=tuning_tasks, seed=seed)
    rows = []
    for kind, frozen in read.items():
        methods = {
            name: GradientMethod(name, pool.predictor, start, *rate, steps)
            for name, (start, rate) in tuned.items()
        }
        methods["ridge"] = Ridge("ridge", frozen.features)
        with divergences():
            found = few_shot(methods, list(frozen.assays.values()), shots=shots, seeds=[seed])
        kept = found[["method", "assay", "shots", "seed", "spearman"]]
        rows += kept.assign(swap=kind).to_dict("records")
    return rows


def distances(read: dict[str, Vectors]) -> pd.DataFrame:
    """How far vectors moved, relative to how far variants of the assay are apart."""
    rows = []
    for kind, frozen in read.items():
        for name, assay in frozen.assays.items():
            before = np.asarray(read["same"].assays[name].tokens.states, dtype=float)
            after = np.asarray(assay.tokens.states, dtype=float)
            spread = np.sqrt(((before - before.mean(axis=0)) ** 2).sum(axis=1).mean())
            moved = np.sqrt(((after - before) ** 2).sum(axis=1).mean())
            rows.append({"swap": kind, "assay": name, "moved": moved / spread})
    return pd.DataFrame(rows)


def report(
    results: pd.DataFrame, swaps: Sequence[str], shots: Sequence[int]
) -> tuple[pd.DataFrame, dict[str, dict]]:
    """Means and losses with intervals over clusters, and labels that mend a loss."""
    keys = ["swap", "method", "shots", "assay"]
    means = results.groupby(keys).agg(spearman=("spearman", "mean"), cluster=("cluster", "first"))
    rows, made = [], {}
    for method in results["method"].unique():
        level = float("nan")
        if REFERENCE in shots:
            level = means.loc["same", method, REFERENCE]["spearman"].mean()
        for kind in swaps:
            enough = []
            for k in shots:
                own, same = means.loc[kind, method, k], means.loc["same", method, k]
                score = interval_row(own["spearman"], own["cluster"])
                lost = interval_row(same["spearman"] - own["spearman"], own["cluster"])
                made[f"{method}_{k}_{_name(kind)}"] = row_number(score)
                if kind != "same":
                    made[f"lost_{method}_{k}_{_name(kind)}"] = row_number(lost)
                if score["mean"] >= level - LEVEL_WITHIN:
                    enough.append(k)
                where = {"swap": kind, "method": method, "shots": k}
                rows += [{"what": "spearman", **where, **score}, {"what": "lost", **where, **lost}]
            mended = min(enough) if enough else float("nan")
            made[f"recovered_{method}_{_name(kind)}"] = number(
                mended, n=len(means.loc[kind, method, shots[0]]), unit="labels"
            )
    return pd.DataFrame(rows), made


def _name(kind: str) -> str:
    return kind.replace(" ", "_")
