"""The book's benchmark: ranking the variants of unseen proteins, on all of ProteinGym's assays.

Every assay with 150 single variants (the list ``benchmark``) is tested once, in five rotations of
protein clusters. The ranker of the main table is trained as the one that is shipped: on all the
other clusters, with settings that are fixed. Where methods are compared with each other
(``benchmark_family``), the ranker among them, each trains on nine tenths of these clusters and
chooses rates and numbers of steps on the rest; all have the same trunk, labels, steps and rates to
choose from.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mutmeta_lib.data.folders import DEMO, read_list
from mutmeta_lib.errors import DataError
from mutmeta_lib.records.record import Record, number, write_record
from mutmeta_lib.study.case import Where
from mutmeta_lib.study.estimates import contrast, estimate, means, with_groups
from mutmeta_lib.study.published import few_shot, supervised, zero_label
from mutmeta_lib.study.run import Result, average_seeds, make_record, run
from mutmeta_lib.study.study import Read, Study
from mutmeta_lib.tasks.encodings import ENCODINGS

CONTROLS = (
    *("mean", "blosum", "onehot", "onehot_blosum", "ridge", "gp"),
    *("onehot_zero", "ridge_zero", "gp_zero"),
)
"""What a meta-learned ranker has to beat; those on ``_zero`` are given its zero-label score."""
RANKERS = ("ranker", "ranker_1")
FAMILY = ("maml", "fomaml", "anil", "metasgd", "maml_rank", "r2d2", "deepkernel", "multitask")
"""MAML's family on the same trunk, and the joint start."""
SCORES = ("spearman", "ndcg", "hits_10", "hits_5pct", "error_over_mean", "coverage")
SCORES += ("spearman_unseen",)
ARM = ["arm", "read", "swap"]
OVER = ["arm", "read", "shots"]
SECONDS = ["seconds_adapt", "seconds_predict"]

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
    decided_at=(10, 100),
    adapt_steps=(5, 10, 30),
)
"""What all its studies share; settings were chosen on validation assays."""

SHIPPED = replace(BASE, share=0.0, outer_rates=(BASE.outer_rates[0],), members=6)
"""How the ranker is trained that is shipped: nothing is left to choose, and nothing kept back."""

FEWER = (0, 5, 10, 20, 40, 100)
CAPPED = {"cap": 300, "draws": 1, "shots": (0, 10, 100)}
"""Where each variant costs a pass of the encoder: at most so many of an assay, 200 to predict."""
TRAINED = ("maml", "multitask")
ALONE = {
    "methods": ("ranker", "zero_label"),
    "members": 1,
    "draws": 2,
    "shots": (0, 10, 40, 100),
}
"""One network of the ranker, for what is varied."""
MULTIPLE = (
    *("METL_AVGFP", "METL_DLG4_2022_ABUNDANCE", "METL_DLG4_2022_BINDING", "METL_GRB2_ABUNDANCE"),
    *("METL_GRB2_BINDING", "METL_PAB1", "METL_TEM_1", "METL_UBE4B", "GB1_WU2016_4SITE"),
    *("TADBP_BOLOGNESI2019_MULTI", "ABETA42_SEUMA2021_NUCLEATION"),
)
"""Sets with multiple mutants, in the layout of the data card."""


def main_arms(data_dir: str, encoder: str) -> dict[str, Study]:
    """The main table: the ranker as shipped on each read, and all controls."""
    asked = {"data_dir": data_dir, "methods": ("ranker", "ranker_1", "zero_label", *CONTROLS)}
    return {read.encoding: replace(SHIPPED, reads=(read,), **asked) for read in _reads(encoder)}


def family_arms(data_dir: str, encoder: str) -> dict[str, Study]:
    """What the meta part adds: the family, fine-tuning and the ranker, all chosen alike.

    Two more arms have MAML and the joint start alone, at each pair of outer rates.
    """
    few = ("ranker", "ranker_1", "maml", "multitask", "finetune")
    several = few + tuple(name for name in FAMILY if name not in few)
    base, reads = replace(BASE, data_dir=data_dir, draws=2, shots=FEWER), _reads(encoder)
    arms = {
        read.encoding: replace(base, methods=methods, reads=(read,))
        for read, methods in zip(reads, (several, few), strict=True)
    }
    base = replace(base, methods=TRAINED, reads=reads[:1])
    for inner, outer in BASE.outer_rates:
        arms[f"inner rate {inner}, outer rate {outer}"] = replace(
            base, outer_rates=((inner, outer),)
        )
    return arms


def seeds_arms(data_dir: str, encoder: str) -> dict[str, Study]:
    """MAML, the joint start and one network of the ranker, meta-trained five times each."""
    five = replace(BASE, data_dir=data_dir, members=1, seeds=5, draws=1, shots=(0, 10, 100))
    read = _reads(encoder)[0]
    return {read.encoding: replace(five, methods=(*TRAINED, "ranker_1"), reads=(read,))}


def reads_arms(data_dir: str, encoder: str) -> dict[str, Study]:
    """Every read and text encoding, under MAML, the joint start and what learns from labels alone.

    All see the same variants, labels, rates and steps.
    """
    methods = (*TRAINED, "finetune", "ridge", "onehot_blosum")
    base = replace(BASE, data_dir=data_dir, methods=methods, **CAPPED)
    reads = (*_reads(encoder), *(Read(encoder, encoding) for encoding in ENCODINGS))
    return {read.encoding: replace(base, reads=(read,)) for read in reads}


def _reads(encoder: str) -> tuple[Read, Read]:
    return Read(encoder, "wild_type_pass"), Read("none", "no_encoder")


def ablation_arms(data_dir: str, encoder: str) -> dict[str, Study]:
    """One network of the ranker: fewer assays, properties left out or untold, multiple mutants."""
    read = Read(encoder, "wild_type_pass")
    alone = replace(SHIPPED, data_dir=data_dir, reads=(read,), **ALONE)
    untold = replace(read, swap="untold")
    listed = read_list(BASE.selection)["id"].tolist() if data_dir != DEMO else []
    several = replace(
        alone, selection="", ids=(*listed, *MULTIPLE), test_ids=MULTIPLE, regime="around", cap=3000
    )
    return {
        "all assays": replace(alone, reads=(read, untold)),
        "40 assays": replace(alone, train_most=40),
        "10 assays": replace(alone, train_most=10),
        "property left out": replace(alone, regime="properties"),
        **({"multiple mutants": several} if listed else {}),
    }


ARMS = {
    "benchmark": main_arms,
    "benchmark_family": family_arms,
    "benchmark_seeds": seeds_arms,
    "benchmark_reads": reads_arms,
    "benchmark_ablations": ablation_arms,
}
"""Name of a record -> ``(data_dir, encoder)`` to its studies, each with the name of its arm."""


def benchmark(
    name: str,
    data_dir: str,
    encoder: str,
    *,
    path: str | Path | None = None,
    where: Where | None = None,
    profile: str = "full",
    **changes: Any,
) -> Record:
    """Run the arms of a record, with ``changes`` to the fields of their studies.

    Its table ``results`` has the mean Spearman correlation over draws: a row per arm, read, swap,
    method and assay, a column per number of labels (see `results`). ``means`` are of all `SCORES`,
    by group of Spearman's alone, ``contrasts`` of the ranker and of MAML with each other method,
    ``over_joint`` of each method with the joint start, ``by_seed`` too where there are several.
    """
    if name not in ARMS:
        raise DataError(f"there is no benchmark '{name}'", f"choose from {', '.join(ARMS)}")
    arms = {arm: replace(s, **changes) for arm, s in ARMS[name](data_dir, encoder).items()}
    found = {arm: run(study, where=where) for arm, study in arms.items()}
    first = next(iter(found.values()))
    parameters = {arm: study.parameters() for arm, study in arms.items()}
    seconds = pd.DataFrame([one.seconds for one in found.values()]).sum().to_dict()
    record = make_record(
        name,
        profile,
        {"arms": parameters},
        data={a.id: a.sha256 for one in found.values() for a in one.measured},
        encoder=first.encoder,
        device=(where or Where()).device,
        seconds=seconds,
        numbers=_counts(found.values()),
        tables=tables(found) | _by_seed(arms, found),
    )
    if path is not None:
        write_record(record, path)
    return record


def _counts(found: Collection[Result]) -> dict[str, dict]:
    first = next(iter(found))
    adaptations = sum(len(one.rows) for one in found)
    return {
        "assays": number(len(first.measured)),
        "clusters": number(first.assays["cluster"].nunique()),
        "variants": number(sum(map(len, first.measured))),
        "diverged_adaptations": number(
            sum(one.diverged for one in found), n=adaptations, unit="adaptations"
        ),
    }


def tables(found: Mapping[str, Result]) -> dict[str, pd.DataFrame]:
    """The tables of a record."""
    joined = {
        table: pd.concat([getattr(one, table).assign(arm=arm) for arm, one in found.items()])
        for table in ("rows", "choices", "assays")
    }
    rows = average_seeds(joined["rows"]).rename(columns={"encoding": "read"})
    by = [*ARM, "method", "shots"]
    kept = {
        "results": _wide(rows),
        "means": pd.concat(
            [
                means(rows, "spearman", by=by),
                estimate(rows.assign(group="all"), list(SCORES[1:]), by=["group", *by]),
            ]
        ),
        "choices": joined["choices"],
        "assays": joined["assays"].drop(columns="arm").drop_duplicates("assay"),
        "seconds": rows.groupby(by, sort=False)[SECONDS].mean().reset_index(),
    }
    found = [
        contrast(with_groups(own), "spearman", "method", name, by=["group", *_but(by, "method")])
        for name in ("ranker", "maml")
        if len(own := rows[rows["arm"].isin(rows.loc[rows["method"] == name, "arm"])])
    ]
    if found:
        kept["contrasts"] = pd.concat(found)
    if (rows["method"] == "multitask").any():
        kept["over_joint"] = _over_joint(rows)
    return kept


def _by_seed(arms: Mapping[str, Study], found: Mapping[str, Result]) -> dict[str, pd.DataFrame]:
    """`_over_joint` of each meta-training, where a study has several."""
    made = [
        _over_joint(rows.assign(arm=arm).rename(columns={"encoding": "read"})).assign(seed=seed)
        for arm, one in found.items()
        if arms[arm].seeds > 1
        for seed, rows in one.rows.groupby(one.rows["seed"] // arms[arm].draws)
    ]
    return {"by_seed": pd.concat(made, ignore_index=True)} if made else {}


def _wide(rows: pd.DataFrame) -> pd.DataFrame:
    """Spearman correlations, a column per number of labels: a fifth of a long table."""
    wide = rows.pivot(index=[*ARM, "method", "assay"], columns="shots", values="spearman")
    return wide.rename(columns=str).round(4).reset_index()


def results(record: Record) -> pd.DataFrame:
    """The table ``results`` with a row per number of labels: ``shots`` and ``spearman``."""
    wide = record.table("results")
    long = wide.melt([*ARM, "method", "assay"], var_name="shots", value_name="spearman")
    return long.astype({"shots": int}).dropna(subset="spearman")


def _but(names: Sequence[str], *left_out: str) -> list[str]:
    return [name for name in names if name not in left_out]


def _over_joint(rows: pd.DataFrame) -> pd.DataFrame:
    """Each method minus the joint start of its arm, paired, at each number of labels."""
    rows = rows[rows["arm"].isin(rows.loc[rows["method"] == "multitask", "arm"])]
    made = [
        contrast(rows.query("method in ['multitask', @name]"), "spearman", "method", name, by=OVER)
        for name in rows["method"].unique()
        if name != "multitask"
    ]
    return pd.concat(made, ignore_index=True)


def beside_published(record: Record, reference_dir: str | Path) -> Record:
    """The record with tables of published numbers on the same assays (`published`).

    ``published`` has the mean of each model without labels, of supervised ones, and of FSFP on the
    assays that it shares; ``shared`` is the ranker's on these.
    """
    about = record.table("assays").set_index("assay")
    ids = sorted(set(results(record)["assay"]))
    zero = zero_label(reference_dir, ids).assign(protocol="zero_label", shots=0)
    most = supervised(reference_dir, ids).assign(protocol="supervised", shots=np.nan)
    some = few_shot(reference_dir, ids).query("shots in [20, 40, 100]")
    some = some.assign(protocol="few_shot", model=some["method"] + ", " + some["model"])
    shared = some["assay"].unique()
    rows = pd.concat([zero, some, most]).assign(cluster=lambda t: t["assay"].map(about["cluster"]))
    # A dimension that has no number, as the supervised rows' labels, is kept apart as text.
    rows["shots"] = [f"{k:.0f}" if k == k else "80 %" for k in rows["shots"]]
    ours = results(record).query("method in ['ranker', 'zero_label']")
    ours = ours[ours["assay"].isin(shared)]
    ours = ours.assign(cluster=ours["assay"].map(about["cluster"]))
    made = {
        "published": estimate(rows, "spearman", by=["protocol", "model", "shots"]),
        "shared": estimate(ours, "spearman", by=["arm", "read", "method", "shots"]),
    }
    tables = {name: table.round(5) for name, table in made.items()}
    return replace(record, tables=record.tables | tables)
