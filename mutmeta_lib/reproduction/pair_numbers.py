"""What the transfer between two assays of a protein comes to, in numbers and tables."""

import pandas as pd

from mutmeta_lib.records.record import number
from mutmeta_lib.study.intervals import interval_row, mean_number

COMPARED = (
    ("scores_a", "maml"),
    ("scores_a", "ridge"),
    ("ridge_a", "ridge"),
    ("ridge_a", "scores_a"),
    ("maml_a", "maml"),
    ("finetune_a", "finetune"),
    ("maml", "ridge"),
    ("maml", "finetune"),
    ("maml_a", "finetune_a"),
)
"""Pairs of methods whose paired difference is taken."""


def pair_numbers(results: pd.DataFrame, known: pd.DataFrame) -> dict[str, dict]:
    """The named numbers; intervals resample protein clusters.

    ``<method>_<shots>`` mean Spearman on B, ``<one>_minus_<other>_<shots>`` paired differences,
    both also with ``_<kind>`` (spaces as underscores); ``agreement`` and ``agreement_<kind>``: rank
    correlation of the two assays on shared variants; ``labels_worth_<method>``: the fewest labels
    of B at which the method without A is level with A's word alone (open when never);
    ``undefined``: rows without a correlation, because the scores to rank are all equal;
    ``diverged``: adaptations that fell back to their start.
    """
    means = per_case(results)
    made: dict[str, dict] = {}
    for name, table in _by_kind(means):
        for (method, k), own in table.groupby(["method", "shots"]):
            made[f"{method}_{k}{name}"] = mean_number(own["spearman"], own["cluster"])
        wide = table.pivot(index=["a", "assay", "cluster", "shots"], columns="method")["spearman"]
        wide = wide.reset_index()
        for one, other in COMPARED:
            for k, own in wide.groupby("shots"):
                difference = own[one] - own[other]
                made[f"{one}_minus_{other}_{k}{name}"] = mean_number(difference, own["cluster"])
    for name, table in _by_kind(known):
        made[f"agreement{name}"] = mean_number(table["spearman"], table["cluster"])
    # The same pairs at every number of labels, those that have the most.
    full = means.groupby(["a", "assay"])["shots"].transform("max") == means["shots"].max()
    curve = means[full].groupby(["method", "shots"])["spearman"].mean()
    for method in ("maml", "ridge"):
        level = curve["scores_a"].iloc[0]
        enough = [k for k, value in curve[method].items() if value >= level]
        worth = min(enough) if enough else float("nan")
        made[f"labels_worth_{method}"] = number(worth, n=int(full.sum()), unit="labels")
    made["diverged"] = number(results["diverged"].sum(), n=len(results), unit="adaptations")
    made["undefined"] = number(results["spearman"].isna().sum(), n=len(results), unit="rows")
    made["pairs"] = number(len(known), n=known["cluster"].nunique(), unit="pairs")
    return made


def per_case(results: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds, one row per direction, method and number of labels."""
    keys = ["kind", "a", "assay", "cluster", "method", "shots"]
    return results.groupby(keys, as_index=False, sort=False)[["spearman", "n_query"]].mean()


def _by_kind(table: pd.DataFrame):
    yield "", table
    for kind, part in table.groupby("kind", sort=False):
        yield f"_{kind.replace(' ', '_')}", part


def pair_tables(results: pd.DataFrame, known: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """``pairs``, ``results`` (means over seeds), ``summary`` and ``differences`` per kind."""
    means = per_case(results)
    summary, differences = [], []
    for name, table in _by_kind(means):
        kind = name.strip("_").replace("_", " ") or "all"
        for (method, k), own in table.groupby(["method", "shots"], sort=False):
            where = {"kind": kind, "method": method, "shots": k}
            summary.append({**where, **interval_row(own["spearman"], own["cluster"])})
        wide = table.pivot(index=["a", "assay", "cluster", "shots"], columns="method")["spearman"]
        for k, own in wide.reset_index().groupby("shots"):
            for one, other in COMPARED:
                where = {"kind": kind, "method": one, "baseline": other, "shots": k}
                found = interval_row(own[one] - own[other], own["cluster"])
                differences.append({**where, **found})
    return {
        "pairs": known.round(4),
        "results": means.round(4),
        "summary": pd.DataFrame(summary).round(5),
        "differences": pd.DataFrame(differences).round(5),
    }
