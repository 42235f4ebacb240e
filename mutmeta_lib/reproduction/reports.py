"""What the chapters show of their studies: tables of estimates, from the rows of a run.

Each function takes a `study.run.Result` and returns tables for its record; ``recorded`` calls it.
"""

from collections.abc import Sequence
from functools import cache
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from mutmeta_lib.data.proteins import identity
from mutmeta_lib.data.variants import mutation_types
from mutmeta_lib.learn.baselines import Ridge
from mutmeta_lib.study.case import Where, prepare
from mutmeta_lib.study.estimates import (
    bootstrap_ratio,
    contrast,
    estimate,
    with_groups,
)
from mutmeta_lib.study.evaluate import hold_out_task
from mutmeta_lib.study.run import Result
from mutmeta_lib.study.study import Study

Tables = dict[str, pd.DataFrame]

ERRORS = ("mse", "mae", "relative_mse")
RANKS_ONLY = ("solubility classes",)
"""Roles of assays whose labels are classes: they are ranked, errors are not taken."""

RIVALS = ("ridge", "finetune", "blosum")
SIGNS = ("identity", "length", "variants", "sites", "skewness", "ties", "blosum", "maml_0", "ridge")
"""What MAML's lead is set against: properties of the assay, and what controls make of it."""


def by_scan(found: Result) -> Tables:
    """Means, and MAML minus each other method; intervals over assays, as chapter 5 says."""
    rows, metrics = found.rows, ("spearman", "ndcg", "relative_mse")
    tables = {"summary": estimate(rows, metrics, over="assay")}
    if "maml" in set(rows["method"]):
        tables["differences"] = contrast(rows, metrics, "method", "maml", over="assay")
    return tables


def by_hold_out(found: Result, first: str) -> Tables:
    """Means per encoding, and the first minus each other one; intervals over assays."""
    rows, by = found.rows.rename(columns={"regime": "hold_out"}), ("pooling", "hold_out")
    tables = {"summary": estimate(rows, "spearman", by=("encoding", *by), over="assay")}
    if first in set(rows["encoding"]):
        paired = contrast(rows, "spearman", "encoding", first, by=by, over="assay")
        tables["differences"] = paired.assign(encoding=paired["baseline"])
    return tables


def transfer(found: Result, decided_at: int = 10) -> Tables:
    """Everything that the chapter on other proteins and properties shows."""
    rows = found.rows.copy()
    rows.loc[rows["role"].isin(RANKS_ONLY), list(ERRORS)] = np.nan
    ranked = rows[~rows["method"].str.endswith("_mse")]
    grouped, by = with_groups(ranked), ("regime", "group", "shots")
    near = nearest(found)
    failures = failure_table(ranked, found.assays, near, decided_at)
    return {
        "summary": pd.concat(
            [
                estimate(grouped, ("spearman", "ndcg", "relative_mse"), by=("method", *by)),
                estimate(everywhere(ranked), "spearman", by=("method", *by)),
            ],
            ignore_index=True,
        ),
        "differences": contrast(grouped, "spearman", "method", "maml", by=by),
        "gains": gains(rows[rows["shots"] == decided_at]),
        "nearest": near,
        "related": related(ranked[ranked["shots"] == decided_at]),
        "rapid": rapid(ranked[ranked["regime"] == "proteins"], decided_at),
        "failures": failures,
        "signatures": signatures(failures),
    }


def everywhere(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of assays that have every number of shots: those of a curve."""
    most = rows.groupby("regime")["shots"].transform("max")
    there = set(map(tuple, rows.loc[rows["shots"] == most, ["regime", "assay"]].to_numpy()))
    kept = [pair in there for pair in zip(rows["regime"], rows["assay"], strict=True)]
    return rows[kept].assign(group="common")


def gains(rows: pd.DataFrame) -> pd.DataFrame:
    """MAML's gain in error over each other method, with rates chosen for error and for ranks."""
    rows = rows[~rows["method"].isin(["maml_1", "maml_rank", "blosum"])]
    plain = rows[~rows["method"].str.endswith("_mse")]
    chosen = rows[rows["method"].str.endswith("_mse")]
    chosen = chosen.assign(method=chosen["method"].str.removesuffix("_mse"))
    others = plain[~plain["method"].isin(chosen["method"])]
    parts = []
    for rates, part in (("error", pd.concat([chosen, others])), ("ranks", plain)):
        part = with_groups(part.dropna(subset=["mse", "mae"]))
        if "maml" in set(part["method"]):
            by = ("regime", "group")
            made = contrast(part, ("mse", "mae"), "method", "maml", by=by, kind="gain")
            parts.append(made.assign(rates=rates))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def related(rows: pd.DataFrame) -> pd.DataFrame:
    """What another assay of the same protein in meta-training changes, on the same draws."""
    draw = ["method", "assay", "seed"]
    seen, apart = (rows[rows["regime"] == name] for name in ("related", "proteins"))
    shared = seen.merge(apart[draw])[draw]
    both = pd.concat([seen, apart]).merge(shared)
    if both.empty:
        return pd.DataFrame()
    return contrast(both, "spearman", "regime", "related", by=("method",))


def rapid(rows: pd.DataFrame, decided_at: int) -> pd.DataFrame:
    """One gradient step against all of them, and against no label."""
    if not {"maml", "maml_1"} <= set(rows["method"]) or 0 not in set(rows["shots"]):
        return pd.DataFrame()
    blind = rows[(rows["shots"] == 0) & (rows["method"] == "maml")].assign(method="no label")
    some = rows[(rows["shots"] == decided_at) & rows["method"].isin(["maml", "maml_1"])]
    parts = []
    for name in ("maml_1", "maml"):
        pair = pd.concat([some[some["method"] == name], blind])
        made = contrast(pair, "spearman", "method", name, by=())
        parts.append(made.assign(what=f"{name} minus no label"))
    wide = some.groupby(["assay", "cluster", "method"])["spearman"].mean().unstack()
    clusters = wide.index.get_level_values("cluster")
    ends = bootstrap_ratio(wide["maml_1"], wide["maml"], clusters)
    sizes = {"n_assays": len(wide), "n_units": clusters.nunique()}
    share = dict(zip(("mean", "low", "high"), ends, strict=True)) | sizes
    return pd.concat([*parts, pd.DataFrame([{"what": "share", **share}])], ignore_index=True)


def nearest(found: Result) -> pd.DataFrame:
    """Identity of every test assay to the nearest meta-training protein, mean over seeds."""
    sequences = {assay.id: assay.wild_type for assay in found.measured}
    alike = cache(identity)
    rows = {
        (case.regime, case.seed, name): max(
            (
                alike(*sorted((sequences[name], other)))
                for other in {sequences[one] for one in case.split.train}
            ),
            default=np.nan,
        )
        for case in found.cases
        for name in case.split.test
    }
    table = pd.DataFrame([(*key, value) for key, value in rows.items()])
    table.columns = ["regime", "seed", "assay", "identity"]
    return table.groupby(["regime", "assay"], sort=False)["identity"].mean().reset_index()


def failure_table(
    rows: pd.DataFrame, assays: pd.DataFrame, near: pd.DataFrame, decided_at: int
) -> pd.DataFrame:
    """Per assay of the regime ``proteins``: Spearman of the main methods, and who won."""
    part = rows[rows["regime"] == "proteins"]
    if "maml" not in set(part["method"]):
        return pd.DataFrame()
    means = part.groupby(["shots", "assay", "method"])["spearman"].mean()
    table = means.loc[decided_at].unstack()
    names = ["maml", "multitask", "finetune", "ridge", "gp", "onehot", "blosum"]
    table = table[[name for name in names if name in table]].copy()
    if 0 in set(part["shots"]):
        table["maml_0"] = means.loc[0].unstack()["maml"]
    rivals = [name for name in ("ridge", "blosum", "maml_0") if name in table]
    table["behind"] = table[rivals].max(axis=1) - table["maml"]
    table["best_rival"] = table[rivals].idxmax(axis=1)
    table["identity"] = near[near["regime"] == "proteins"].set_index("assay")["identity"]
    return table.join(assays.set_index("assay").drop(columns="several")).reset_index()


def signatures(failures: pd.DataFrame, n_boot: int = 1000) -> pd.DataFrame:
    """Rank correlation, over assays, of MAML's lead with what might explain it."""
    rows = []
    for rival in [name for name in RIVALS if name in failures]:
        lead = (failures["maml"] - failures[rival]).to_numpy()
        for sign in [name for name in SIGNS if name in failures and name != rival]:
            values = failures[sign].to_numpy(dtype=float)
            given = np.isfinite(lead) & np.isfinite(values)
            if given.sum() < 4 or np.ptp(values[given]) == 0:
                continue
            clusters = failures["cluster"].to_numpy()[given]
            found = _correlation(lead[given], values[given], clusters, n_boot)
            rows.append({"rival": rival, "sign": sign, **found})
    return pd.DataFrame(rows)


def _correlation(x: np.ndarray, y: np.ndarray, clusters: np.ndarray, n_boot: int) -> dict:
    """Spearman correlation with its interval over clusters."""
    members = [np.flatnonzero(clusters == one) for one in np.unique(clusters)]
    picks = np.random.default_rng(0).integers(len(members), size=(n_boot, len(members)))
    drawn = []
    for rows in (np.concatenate([members[pick] for pick in one]) for one in picks):
        if np.ptp(x[rows]) and np.ptp(y[rows]):
            drawn.append(spearmanr(x[rows], y[rows]).statistic)
    low, high = np.quantile(drawn, [0.025, 0.975]) if drawn else (np.nan, np.nan)
    value = float(spearmanr(x, y).statistic)
    return {"mean": value, "low": low, "high": high, "n_assays": len(x), "n_units": len(members)}


def by_encoding(found: Result, decided_at: int = 10) -> Tables:
    """Means per encoding, the first minus each other one, and MAML minus each method of one."""
    rows = with_groups(found.rows.drop(columns="role"))
    decided, first = rows[rows["shots"] == decided_at], rows["encoding"].iloc[0]
    ours = "maml" if "maml" in set(rows["method"]) else rows["method"].iloc[0]
    cell = ("group", "encoding", "pooling")
    return {
        "summary": estimate(rows, "spearman", by=(*cell, "method", "shots")),
        "differences": contrast(
            decided, "spearman", "encoding", first, by=("group", "pooling", "method")
        ),
        "shares": contrast(decided, "spearman", "method", ours, by=cell),
    }


def by_depth(found: Result, decided_at: int = 10) -> Tables:
    """Means per depth, differences between methods of one and depths of a method, and gains.

    Controls, which do not depend on the depth, stand beside every depth of their encoder.
    """
    rows = found.rows.copy()
    rows.loc[rows["role"].isin(RANKS_ONLY), "mse"] = np.nan
    rows = with_groups(rows.drop(columns="role"))
    ranked = rows[~rows["method"].str.endswith("_mse")]
    controls = ranked["method"].isin(["ridge", "onehot"])
    cells = ranked.loc[~controls, ["encoder", "depth"]].drop_duplicates()
    shared = ranked[controls].drop(columns="depth").merge(cells, on="encoder")
    both = pd.concat([ranked[~controls], shared], ignore_index=True)
    by, parts = ("encoder", "group", "shots"), []
    for name in ("fomaml", "maml", "multitask"):
        if name in set(both["method"]):
            made = contrast(both, "spearman", "method", name, by=("depth", *by))
            parts.append(made.rename(columns={"method": "a", "baseline": "b", "depth": "within"}))
    for one, other in combinations(pd.unique(cells["depth"]), 2):
        pair = ranked[ranked["depth"].isin([one, other]) & ~controls]
        made = contrast(pair, "spearman", "depth", other, by=("method", *by))
        parts.append(made.rename(columns={"depth": "a", "baseline": "b", "method": "within"}))
    chosen = rows[rows["method"].str.endswith("_mse") & (rows["shots"] == decided_at)]
    chosen = chosen.assign(method=chosen["method"].str.removesuffix("_mse"))
    ours = [name for name in ("fomaml", "maml") if name in set(chosen["method"])]
    saved = [
        contrast(
            chosen.dropna(subset="mse"),
            *("mse", "method", name),
            by=("encoder", "depth", "group"),
            kind="gain",
        )
        for name in ours
    ]
    return {
        "summary": estimate(both, "spearman", by=("depth", "method", *by)),
        "differences": pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(),
        "gains": pd.concat(saved, ignore_index=True) if saved else pd.DataFrame(),
    }


def swapped(study: Study, where: Where, found: Result) -> Tables:
    """Spearman on every encoder, what is lost against the original, and how far vectors moved."""
    by = ("method", "shots")
    lost = contrast(found.rows, "spearman", "swap", "same", by=by)
    lost = lost.assign(swap=lost["baseline"], what="lost")
    score = estimate(found.rows, "spearman", by=("swap", *by)).assign(what="spearman")
    moved = []
    reads = {read.swap: prepare(study, read, where.device, where.cache_dir) for read in study.reads}
    for swap, other in reads.items():
        for id in other.vectors.assays if swap != "same" else ():
            a, b = (one.vectors.assays[id].tokens.states for one in (reads["same"], other))
            spread = (a - a.mean(dim=0)).norm(dim=1).mean()
            far = float((a - b).norm(dim=1).mean() / spread)
            moved.append({"swap": swap, "assay": id, "moved": far})
    summary = pd.concat([score, lost], ignore_index=True)
    return {"summary": summary, "moved": pd.DataFrame(moved)}


def held_out(study: Study, where: Where, found: Result) -> Tables:
    """Means per encoding, separator minus each other one, and ridge's errors by mutation type."""
    rows = with_groups(found.rows.drop(columns="role"))
    rows = rows.rename(columns={"regime": "hold_out", "method": "head"})
    by = ("pooling", "head", "hold_out", "group")
    made = {
        "summary": estimate(rows, "spearman", by=("encoding", *by)),
        "differences": contrast(rows, "spearman", "encoding", "separator", by=by),
        "types": contrast(
            typed_errors(study, where, found.assays),
            *("error", "encoding", "separator"),
            by=("hold_out", "type"),
        ),
    }
    for name in ("differences", "types"):
        made[name]["encoding"] = made[name].pop("baseline")
    # Positive favours the separator throughout: an error that it has less of.
    ends = made["types"][["mean", "high", "low"]].to_numpy()
    made["types"][["mean", "low", "high"]] = -ends
    return {name: table.rename(columns={"group": "property"}) for name, table in made.items()}


def typed_errors(study: Study, where: Where, assays: pd.DataFrame) -> pd.DataFrame:
    """Ridge's mean squared error on held-out variants by type of mutation, per assay and seed.

    In units of the training scores' variance, clipped at 25, on the first pooling.
    """
    clusters = dict(zip(assays["assay"], assays["cluster"], strict=True))
    rows = []
    for read in study.reads:
        if read.pooling != study.reads[0].pooling:
            continue
        data = prepare(study, read, where.device, where.cache_dir)
        method = Ridge("ridge", data.features)
        for seed in range(study.seeds):
            for hold_out in ("variants", "sites"):
                for assay in data.vectors.assays.values():
                    task = hold_out_task(assay, hold_out, study.share, seed)
                    predicted = method.predict(method.adapt(task.support, None), task.query)
                    errors = np.minimum((predicted - task.query.labels.numpy()) ** 2, 25.0)
                    about = {"encoding": read.encoding, "hold_out": hold_out, "seed": seed}
                    about |= {"assay": assay.assay.id, "cluster": clusters[assay.assay.id]}
                    for kind, values in _by_type(task.query.variants, errors).items():
                        rows.append({**about, "type": kind, "error": float(np.mean(values))})
    return pd.DataFrame(rows)


def _by_type(variants: Sequence, errors: np.ndarray) -> dict[str, list[float]]:
    groups: dict[str, list[float]] = {"all": list(errors)}
    for variant, error in zip(variants, errors, strict=True):
        for name in mutation_types(variant[0]) if len(variant) == 1 else ():
            groups.setdefault(name, []).append(error)
    return groups
