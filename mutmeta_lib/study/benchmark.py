"""The book's benchmark: ranking the variants of unseen proteins, on all of ProteinGym's assays.

Every assay with 150 single variants (the list ``benchmark``) is tested once, in five rotations of
protein clusters. A rotation trains on nine tenths of the other clusters and chooses rates and the
number of steps on the rest. Every trained method has the same trunk, labels, steps and outer
rates to choose from.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd

from mutmeta_lib.records.record import Record, number, write_record
from mutmeta_lib.study.case import Where
from mutmeta_lib.study.estimates import contrast, means
from mutmeta_lib.study.run import Result, average_seeds, make_record, run
from mutmeta_lib.study.study import Read, Study

CONTROLS = (
    *("mean", "blosum", "onehot", "onehot_blosum", "ridge", "gp"),
    *("onehot_zero", "ridge_zero", "finetune"),
)
"""What a meta-learned ranker has to beat; ``onehot_zero`` and ``ridge_zero`` know its score."""
RANKERS = ("ranker", "ranker_1", "zero_label")
FAMILY = ("maml", "fomaml", "anil", "metasgd", "maml_rank", "r2d2", "deepkernel", "multitask")
"""MAML's family on the same trunk, and the joint start."""
SCORES = ("spearman", "ndcg", "hits_10", "hits_5pct", "error_over_mean", "coverage")
SCORES += ("spearman_unseen",)

BASE = Study(
    selection="benchmark",
    regime="rotations",
    n_folds=5,
    share=0.1,
    seeds=1,
    draws=5,
    shots=(0, 1, 5, 10, 20, 40, 100, 128),
    max_query=1000,
    meta_steps=600,
    solved_steps=600,
    support=10,
    query=54,
    outer_rates=((0.03, 2e-3), (0.1, 1e-3)),
    schedule="one_cycle",
    weight_decay=0.03,
    dropout=True,
    members=4,
    validate_every=50,
)
"""What all its studies share; settings were chosen on validation assays."""


def read_studies(data_dir: str, encoder: str) -> tuple[Study, ...]:
    """The main table: each read with the ranker, MAML, the joint start and all controls."""
    methods = (*RANKERS, "maml", "multitask", *CONTROLS)
    reads = (Read(encoder, "wild_type_pass"),), (Read("none", "no_encoder"),)
    return tuple(replace(BASE, data_dir=data_dir, methods=methods, reads=one) for one in reads)


def family_studies(data_dir: str, encoder: str) -> tuple[Study, ...]:
    """What the meta part adds: the rest of the family, on the read with an encoder."""
    methods = tuple(name for name in FAMILY if name not in ("maml", "multitask"))
    reads = (Read(encoder, "wild_type_pass"),)
    return (replace(BASE, data_dir=data_dir, methods=methods, reads=reads),)


STUDIES = {"benchmark": read_studies, "benchmark_family": family_studies}
"""By name: ``(data_dir, encoder)`` to studies that are run together."""


def benchmark(
    name: str,
    data_dir: str,
    encoder: str,
    *,
    path: str | Path | None = None,
    where: Where | None = None,
    profile: str = "full",
    **changes,
) -> Record:
    """Run the studies of a name, with ``changes`` to their fields, and make their record.

    Its table ``results`` has a row per assay, read, method and number of labels (means over
    draws of `SCORES`), ``means`` and ``contrasts`` what follows from it.
    """
    studies = [replace(one, **changes) for one in STUDIES[name](data_dir, encoder)]
    found = run(*studies, where=where)
    record = make_record(
        name,
        profile,
        {
            **studies[0].parameters(),
            "reads": [one for s in studies for one in s.parameters()["reads"]],
        },
        assays=found.measured,
        encoder=found.encoder,
        device=(where or Where()).device,
        seconds=found.seconds,
        numbers=_counts(found),
        tables=tables(found),
    )
    if path is not None:
        write_record(record, path)
    return record


def _counts(found: Result) -> Mapping[str, dict]:
    return {
        "assays": number(len(found.measured)),
        "clusters": number(found.assays["cluster"].nunique()),
        "variants": number(sum(map(len, found.measured))),
        "diverged_adaptations": number(found.diverged, n=len(found.rows), unit="adaptations"),
    }


def tables(found: Result) -> dict[str, pd.DataFrame]:
    """The tables of a record."""
    rows = average_seeds(found.rows).rename(columns={"encoding": "read"})
    by = ["read", "method", "shots"]
    contrasts = [
        contrast(part, "spearman", "method", "ranker", by=["read", "shots"])
        for part in [rows]
        if "ranker" in set(rows["method"])
    ]
    kept = {
        "results": rows[["assay", *by, *SCORES]].round(4),
        "means": means(rows, list(SCORES), by=by),
        "choices": found.choices,
        "assays": found.assays,
        "seconds": rows.groupby(by, sort=False)[["seconds_adapt", "seconds_predict"]]
        .mean()
        .reset_index(),
    }
    return kept | ({"contrasts": pd.concat(contrasts)} if contrasts else {})
