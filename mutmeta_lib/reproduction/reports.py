"""What the chapters show of their studies: tables of estimates, from the rows of a run.

Each function takes a `study.run.Result` and returns tables for its record; ``recorded`` calls it.
"""

from collections.abc import Sequence
from functools import cache
from itertools import combinations, product

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from mutmeta_lib.data.folders import LITERATURE
from mutmeta_lib.data.proteins import identity
from mutmeta_lib.data.variants import mutation_types
from mutmeta_lib.learn.baselines import Ridge
from mutmeta_lib.study.case import Where, prepare
from mutmeta_lib.study.estimates import bootstrap_ratio, contrast, estimate, with_groups
from mutmeta_lib.study.evaluate import hold_out_task
from mutmeta_lib.study.run import Result, average_seeds
from mutmeta_lib.study.study import Study

Tables = dict[str, pd.DataFrame]

SECONDS = ("seconds_adapt", "seconds_predict")
DECIDED_AT = 10
"""Labels at which rates are chosen and claims are judged."""
NAMES = {
    "transfer": {
        "summary": "{regime}_{group}_{method}_{shots}",
        "differences": "{regime}_{group}_maml_minus_{baseline}_{shots}",
        "gains": "{regime}_{group}_gain_over_{baseline}_{metric}_by_{rates}",
        "rapid": "rapid_{what}",
        "related": "related_seen_minus_not_{method}",
        "signatures": "lead_over_{rival}_with_{sign}",
    },
    "transfer_encodings": {
        "summary": "{group}_{encoding}_{pooling}_{method}_{shots}",
        "differences": "{group}_first_minus_{baseline}_{pooling}_{method}",
        "leads": "{group}_maml_minus_{baseline}_{encoding}_{pooling}",
    },
    "swap": {"summary": "{what}_{method}_{shots}_{swap}"},
    "held_out": {
        "summary": "{property}_{encoding}_{pooling}_{head}_{hold_out}",
        "differences": "{property}_separator_minus_{encoding}_{pooling}_{head}_{hold_out}",
    },
}
"""Record -> table -> the name that a row has as a number of the record."""

RIVALS = ("ridge", "finetune", "blosum")
SIGNS = ("identity", "length", "variants", "sites", "skewness", "ties", "blosum", "maml_0", "ridge")
"""What MAML's lead is set against: properties of the assay, and what controls make of it."""


def by_scan(found: Result) -> Tables:
    """Means, and MAML minus each other method; intervals over assays, as chapter 5 says."""
    how = {"metric": ("spearman", "ndcg", "relative_mse"), "over": "assay"}
    tables = {"summary": estimate(found.rows, **how)}
    if "maml" in set(found.rows["method"]):
        tables["differences"] = contrast(found.rows, column="method", reference="maml", **how)
    return tables


def by_hold_out(found: Result, first: str) -> Tables:
    """Means per encoding, and the first minus each other one; intervals over assays."""
    rows, by = found.rows.rename(columns={"regime": "hold_out"}), ("pooling", "hold_out")
    paired = contrast(rows, "spearman", "encoding", first, by=by, over="assay")
    return {
        "summary": estimate(rows, "spearman", by=("encoding", *by), over="assay"),
        "differences": paired.assign(encoding=paired["baseline"]),
    }


def transfer(found: Result) -> Tables:
    """Everything that the chapter on other proteins and properties shows."""
    rows = found.rows
    ranked, _ = _by_rates(rows)
    grouped, by = with_groups(ranked), ("regime", "group", "shots")
    whole, near = ranked[~ranked["role"].isin(LITERATURE)], nearest(found)
    failures = failure_table(ranked, found.assays, near)
    metrics = ("spearman", "ndcg", "relative_mse")
    return {
        **told(found, ("regime", "method", "assay", "shots", *metrics, "mse", *SECONDS)),
        "summary": estimate(grouped, metrics, by=("method", *by)),
        "differences": contrast(grouped, "spearman", "method", "maml", by=by),
        "gains": gains(rows[rows["shots"] == DECIDED_AT]),
        "trained_on": trained_on(found),
        "nearest": near,
        "related": related(whole[whole["shots"] == DECIDED_AT]),
        "rapid": rapid(whole[whole["regime"] == "proteins"]),
        "failures": failures,
        "signatures": signatures(failures[~failures["role"].isin(LITERATURE)]),
    }


def told(found: Result, columns: Sequence[str]) -> Tables:
    """Of a run's large tables what a record keeps: columns, chosen rates, means of the losses."""
    history = found.history.dropna(subset="validation_loss")
    by = [name for name in ("regime", "encoding", "pooling", "method", "step") if name in history]
    losses = history.groupby(by, sort=False)[["train_loss", "validation_loss"]]
    choices = found.choices
    return {
        "results": average_seeds(found.rows)[list(columns)],
        "choices": choices[choices["chosen"] != ""].drop(columns=["encoder", "depth"]),
        "history": losses.mean().assign(runs=losses.size()).reset_index(),
    }


def _by_rates(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Methods at the rate chosen for ranks, and at that for error; each under its own name."""
    for_error = rows["method"].str.endswith("_mse")
    names = rows["method"].str.removesuffix("_mse")
    return rows[~for_error], rows.assign(method=names)[for_error]


def gains(rows: pd.DataFrame) -> pd.DataFrame:
    """MAML's gain in error over each other method, with rates chosen for error and for ranks."""
    rows = rows[~rows["method"].isin(["maml_1", "maml_rank", "blosum"])]
    plain, chosen = _by_rates(rows)
    others = plain[~plain["method"].isin(chosen["method"])]
    how, parts = {"by": ("regime", "group"), "kind": "gain"}, []
    for rates, part in (("error", pd.concat([chosen, others])), ("ranks", plain)):
        part = with_groups(part.dropna(subset=["mse", "mae"]))
        made = contrast(part, ("mse", "mae"), "method", "maml", **how)
        parts.append(made.assign(rates=rates))
    return pd.concat(parts, ignore_index=True)


def trained_on(found: Result) -> pd.DataFrame:
    """How many assays meta-training had: median, fewest and most over splits and seeds.

    A row per regime and ``tested``: the property that is held out, or ``all``.
    """
    sizes = pd.DataFrame(
        {
            "regime": case.regime,
            "tested": case.name if case.regime == "properties" else "all",
            "train": len(case.split.train),
            "test": len(case.split.test),
        }
        for case in found.cases
    )
    ends = {"mean": ("train", "median"), "low": ("train", "min"), "high": ("train", "max")}
    how = ends | {"n_assays": ("test", "max"), "splits": ("train", "size")}
    return sizes.groupby(["regime", "tested"], sort=False).agg(**how).reset_index()


def related(rows: pd.DataFrame) -> pd.DataFrame:
    """What another assay of the same protein in meta-training changes, on the same draws."""
    both = rows[rows["regime"].isin(["related", "proteins"])]
    draws = both.groupby(["method", "assay", "seed"])["regime"].transform("nunique")
    if not (draws == 2).any():
        return pd.DataFrame()
    return contrast(both[draws == 2], "spearman", "regime", "related", by=("method",))


def rapid(rows: pd.DataFrame) -> pd.DataFrame:
    """One gradient step against all of them, and against no label."""
    if not {"maml", "maml_1"} <= set(rows["method"]) or 0 not in set(rows["shots"]):
        return pd.DataFrame()
    blind = rows[(rows["shots"] == 0) & (rows["method"] == "maml")].assign(method="no label")
    some = rows[(rows["shots"] == DECIDED_AT) & rows["method"].isin(["maml", "maml_1"])]
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
    sequences, alike = {assay.id: assay.wild_type for assay in found.measured}, cache(identity)
    rows = []
    for case in found.cases:
        trained = {sequences[id] for id in case.split.train}
        for id in case.split.test:
            pairs = (sorted((sequences[id], other)) for other in trained)
            most = max((alike(*pair) for pair in pairs), default=np.nan)
            rows.append((case.regime, case.seed, id, most))
    table = pd.DataFrame(rows, columns=["regime", "seed", "assay", "identity"])
    table = table.drop_duplicates(["regime", "seed", "assay"], keep="last")
    return table.groupby(["regime", "assay"], sort=False)["identity"].mean().reset_index()


def failure_table(rows: pd.DataFrame, assays: pd.DataFrame, near: pd.DataFrame) -> pd.DataFrame:
    """Per assay of the regime ``proteins``: Spearman of the main methods, and who won."""
    part = rows[rows["regime"] == "proteins"]
    if "maml" not in set(part["method"]):
        return pd.DataFrame()
    means = part.groupby(["shots", "assay", "method"])["spearman"].mean()
    table = means.loc[DECIDED_AT].unstack()
    names = ["maml", "multitask", "finetune", "ridge", "gp", "onehot", "onehot_blosum", "blosum"]
    table = table[[name for name in names if name in table]].copy()
    if 0 in set(part["shots"]):
        table["maml_0"] = means.loc[0].unstack()["maml"]
    rivals = [name for name in ("ridge", "blosum", "maml_0") if name in table]
    table["behind"] = table[rivals].max(axis=1) - table["maml"]
    table["best_rival"] = table[rivals].idxmax(axis=1)
    table["identity"] = near[near["regime"] == "proteins"].set_index("assay")["identity"]
    return table.join(assays.set_index("assay").drop(columns="several")).reset_index()


def signatures(failures: pd.DataFrame) -> pd.DataFrame:
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
            found = _correlation(lead[given], values[given], clusters)
            rows.append({"rival": rival, "sign": sign, **found})
    return pd.DataFrame(rows)


def _correlation(x: np.ndarray, y: np.ndarray, clusters: np.ndarray) -> dict:
    """Spearman correlation with its interval over clusters."""
    members = [np.flatnonzero(clusters == one) for one in np.unique(clusters)]
    picks = np.random.default_rng(0).integers(len(members), size=(1000, len(members)))
    drawn = []
    for rows in (np.concatenate([members[pick] for pick in one]) for one in picks):
        if np.ptp(x[rows]) and np.ptp(y[rows]):
            drawn.append(spearmanr(x[rows], y[rows]).statistic)
    low, high = np.quantile(drawn, [0.025, 0.975]) if drawn else (np.nan, np.nan)
    value = float(spearmanr(x, y).statistic)
    return {"mean": value, "low": low, "high": high, "n_assays": len(x), "n_units": len(members)}


def by_encoding(found: Result) -> Tables:
    """Means per encoding, the first minus each other one, and MAML minus each other method."""
    rows = with_groups(found.rows)
    decided, first = rows[rows["shots"] == DECIDED_AT], rows["encoding"].iloc[0]
    by = ("group", "pooling", "method")
    return {
        **told(found, ("encoding", "pooling", "method", "assay", "shots", "spearman")),
        "summary": estimate(rows, "spearman", by=("encoding", *by, "shots")),
        "differences": contrast(decided, "spearman", "encoding", first, by=by),
        "leads": leads(decided),
    }


def leads(rows: pd.DataFrame) -> pd.DataFrame:
    """MAML minus each other method, for every encoding and pooling of its own."""
    if "maml" not in set(rows["method"]):
        return pd.DataFrame()
    return contrast(rows, "spearman", "method", "maml", by=("group", "encoding", "pooling"))


def by_depth(found: Result) -> Tables:
    """Means per depth, differences between methods of one and depths of a method, and gains.

    Controls, which do not depend on the depth, stand beside every depth of their encoder.
    """
    rows = with_groups(found.rows)
    ranked, chosen = _by_rates(rows)
    controls = ranked["method"].isin(["ridge", "onehot"])
    learned = ranked[~controls]
    cells = learned[["encoder", "depth"]].drop_duplicates()
    shared = ranked[controls].drop(columns="depth").merge(cells, on="encoder")
    both = pd.concat([learned, shared], ignore_index=True)
    by, parts = ("encoder", "group", "shots"), [pd.DataFrame()]
    asked = [(both, "method", m, "depth") for m in ("fomaml", "multitask")]
    for one, other in combinations(pd.unique(cells["depth"]), 2):
        asked.append((learned[learned["depth"].isin([one, other])], "depth", other, "method"))
    for part, column, reference, within in asked:
        if reference in set(part[column]):
            made = contrast(part, "spearman", column, reference, by=(within, *by))
            names = {column: "a", "baseline": "b", within: "within"}
            parts.append(made.rename(columns=names))
    chosen = chosen[chosen["shots"] == DECIDED_AT].dropna(subset="mse")
    how = {"by": ("encoder", "depth", "group"), "kind": "gain"}
    return {
        "summary": estimate(both, "spearman", by=("depth", "method", *by)),
        "differences": pd.concat(parts, ignore_index=True),
        "gains": contrast(chosen, "mse", "method", "fomaml", **how),
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
            a, b = (one.vectors.assays[id].tokens.hidden for one in (reads["same"], other))
            spread = (a - a.mean(dim=0)).norm(dim=1).mean()
            far = float((a - b).norm(dim=1).mean() / spread)
            moved.append({"swap": swap, "assay": id, "moved": far})
    summary = pd.concat([score, lost], ignore_index=True)
    results = average_seeds(found.rows)[["swap", "method", "assay", "shots", "spearman"]]
    return {"results": results, "summary": summary, "moved": pd.DataFrame(moved)}


def held_out(study: Study, where: Where, found: Result) -> Tables:
    """Means per encoding, separator minus each other one, and ridge's errors by mutation type."""
    rows = with_groups(found.rows).drop(columns="property")
    rows = rows.rename(columns={"regime": "hold_out", "method": "head", "group": "property"})
    by = ("pooling", "head", "hold_out", "property")
    errors = typed_errors(study, where, found.assays)
    errors = errors.assign(saved=-errors["error"])  # positive favours the separator throughout
    first = {"column": "encoding", "reference": "separator"}
    made = {
        "differences": contrast(rows, "spearman", **first, by=by),
        "types": contrast(errors, "saved", **first, by=("hold_out", "type")),
    }
    made = {name: table.assign(encoding=table.pop("baseline")) for name, table in made.items()}
    columns = ["regime", "encoding", "pooling", "method", "assay", "spearman"]
    made["results"] = average_seeds(found.rows)[columns]
    return {"summary": estimate(rows, "spearman", by=("encoding", *by)), **made}


def typed_errors(study: Study, where: Where, assays: pd.DataFrame) -> pd.DataFrame:
    """Ridge's mean squared error on held-out variants by type of mutation, per assay and seed.

    In units of the training scores' variance, clipped at 25, on the first pooling.
    """
    clusters, rows = assays.set_index("assay")["cluster"], []
    first = [read for read in study.reads if read.pooling == study.reads[0].pooling]
    for read, seed, hold_out in product(first, range(study.seeds), ("variants", "sites")):
        data = prepare(study, read, where.device, where.cache_dir)
        method = Ridge("ridge", data.features)
        for id, assay in data.vectors.assays.items():
            task = hold_out_task(assay, hold_out, study.share, seed)
            predicted = method.predict(method.adapt(task.support, None), task.query)
            errors = np.minimum((predicted - task.query.labels.numpy()) ** 2, 25.0)
            about = {"encoding": read.encoding, "hold_out": hold_out, "seed": seed}
            about |= {"assay": id, "cluster": clusters[id]}
            kinds = [
                ["all", *(mutation_types(variant[0]) if len(variant) == 1 else ())]
                for variant in task.query.variants
            ]
            table = pd.DataFrame({"type": kinds, "error": errors}).explode("type")
            means = table.groupby("type", sort=False)["error"].mean()
            rows.append(means.reset_index().assign(**about))
    return pd.concat(rows, ignore_index=True)
