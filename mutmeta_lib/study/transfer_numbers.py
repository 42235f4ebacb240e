"""Tables and named numbers of the third arm, from results that are means over seeds.

Intervals resample protein clusters everywhere, all assays of one together.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from mutmeta_lib.study.gains import group_mean, paired_difference, paired_gain
from mutmeta_lib.study.intervals import row_number
from mutmeta_lib.study.transfer_assays import about_assays
from mutmeta_lib.study.transfer_failures import failure_table, signatures

ERRORS = ("mse", "mae", "relative_mse")
BASIS = ("mse", "mae")
"""Errors whose gain is reported."""


def report_tables(
    results: pd.DataFrame,
    assays: pd.DataFrame,
    nearest: pd.DataFrame,
    decided_at: int,
    ranks_only: Sequence[str],
) -> dict[str, pd.DataFrame]:
    """``results`` with errors of classes taken out, and everything that is computed from them."""
    full = about_assays(results, assays)
    full.loc[full["role"].isin(ranks_only), list(ERRORS)] = np.nan
    decided = full[full["shots"] == decided_at]
    failures = failure_table(full, assays.set_index("assay"), nearest, decided_at)
    return {
        "results": full[list(results.columns)],
        "summary": _summary(full),
        "differences": _differences(full),
        "gains": _gains(decided),
        "rapid": rapid_table(full, decided_at),
        "failures": failures,
        "signatures": signatures(failures),
    }


def _groups(table: pd.DataFrame) -> Iterator[tuple[dict, pd.DataFrame]]:
    """Per regime all assays together, then each property, then each role where there are more."""
    for regime, part in table.groupby("regime", sort=False):
        yield {"regime": regime, "group": "all"}, part
        for name, own in part.groupby("property"):
            yield {"regime": regime, "group": name}, own
            if own["role"].nunique() > 1:
                for role, some in own.groupby("role"):
                    # A role may be called as its property is: it is then a part of it.
                    part_of = f"{role} scores" if role == name else role
                    yield {"regime": regime, "group": part_of}, some


def _summary(full: pd.DataFrame) -> pd.DataFrame:
    """Mean Spearman correlation, NDCG and relative error per group, method and shots.

    ``common`` are the means over the assays that have every number of shots: those of a curve.
    """
    rows = []
    for where, part in _groups(full):
        most = part["shots"].max()
        everywhere = set(part.loc[part["shots"] == most, "assay"])
        for (method, shots), own in part.groupby(["method", "shots"], sort=False):
            for metric in ("spearman", "ndcg", "relative_mse"):
                found = group_mean(own, metric)
                rows.append({**where, "method": method, "shots": shots, "metric": metric, **found})
            if where["group"] == "all":
                common = group_mean(own[own["assay"].isin(everywhere)], "spearman")
                at = {"regime": where["regime"], "group": "common", "method": method}
                rows.append({**at, "shots": shots, "metric": "spearman", **common})
    return pd.DataFrame(rows)


def _differences(full: pd.DataFrame) -> pd.DataFrame:
    """MAML minus each other method in Spearman correlation, per group and shots."""
    rows = []
    for where, part in _groups(full):
        for shots, own in part.groupby("shots"):
            present = [name for name in pd.unique(own["method"]) if not name.endswith("_mse")]
            for other in present:
                if "maml" in present and other != "maml":
                    found = paired_difference(own, "spearman", "maml", other)
                    named = {"method": "maml", "baseline": other, "shots": shots}
                    rows.append({**where, **named, "metric": "spearman", **found})
    return pd.DataFrame(rows)


def _gains(decided: pd.DataFrame) -> pd.DataFrame:
    """MAML's gain in error over each other method.

    ``rates`` says what the rates were chosen for: ``error``, which decides, or ``ranks``.
    """
    rows = []
    for where, part in _groups(decided):
        present = set(part["method"])
        for other in [name for name in pd.unique(part["method"]) if not name.endswith("_mse")]:
            if other in ("maml", "maml_1", "maml_rank", "blosum") or "maml" not in present:
                continue
            for rates, ending in (("error", "_mse"), ("ranks", "")):
                ours = f"maml{ending}"
                theirs = f"{other}{ending}" if f"{other}{ending}" in present else other
                if ours not in present:
                    continue
                for metric in BASIS:
                    if part.loc[part["method"] == ours, metric].notna().sum() < 1:
                        continue
                    found = paired_gain(part, metric, ours, theirs)
                    named = {"method": "maml", "baseline": other, "rates": rates}
                    rows.append({**where, **named, "metric": metric, **found})
    return pd.DataFrame(rows)


def related_table(
    by_seed: pd.DataFrame, clusters: Mapping[str, int], decided_at: int
) -> pd.DataFrame:
    """What another assay of the same protein in meta-training changes in Spearman correlation.

    Paired: the same assay, seed and rows, in the regimes ``related`` and ``proteins``.
    """
    ten = by_seed[by_seed["shots"] == decided_at]
    draw = ["method", "assay", "seed"]
    apart = ten[ten["regime"] == "proteins"].set_index(draw)["spearman"]
    seen = ten[ten["regime"] == "related"].set_index(draw)["spearman"]
    shared = seen.index.intersection(apart.index)
    lead = (seen[shared] - apart[shared]).groupby(["method", "assay"]).mean().reset_index()
    lead["cluster"] = lead["assay"].map(clusters)
    return pd.DataFrame(
        [
            {"method": method, **group_mean(own, "spearman")}
            for method, own in lead.groupby("method", sort=False)
            if not method.endswith("_mse")
        ]
    )


def rapid_table(full: pd.DataFrame, decided_at: int, n_boot: int = 2000) -> pd.DataFrame:
    """One gradient step against all of them, and against no label, in the regime ``proteins``.

    ``share`` is the ratio of mean Spearman correlations; its interval resamples clusters.
    """
    part = full[full["regime"] == "proteins"]
    ten = part[part["shots"] == decided_at]
    if not {"maml", "maml_1"} <= set(ten["method"]) or 0 not in set(part["shots"]):
        return pd.DataFrame()
    blind = part[(part["shots"] == 0) & (part["method"] == "maml")].assign(method="none")
    rows = []
    for name in ("maml_1", "maml"):
        both = pd.concat([ten[ten["method"] == name], blind], ignore_index=True)
        found = paired_difference(both, "spearman", name, "none")
        rows.append({"what": f"{name} minus no label", **found})
    wide = ten.pivot(index="assay", columns="method", values="spearman")
    clusters = ten.drop_duplicates("assay").set_index("assay")["cluster"].reindex(wide.index)
    sums = wide[["maml_1", "maml"]].groupby(clusters).sum().to_numpy()
    drawn = np.random.default_rng(0).integers(len(sums), size=(n_boot, len(sums)))
    one, ten_steps = sums[drawn].sum(axis=1).T
    low, high = np.quantile(one / ten_steps, [0.025, 0.975])
    sizes = {"n_assays": len(wide), "n_units": len(sums)}
    share = sums[:, 0].sum() / sums[:, 1].sum()
    rows.append({"what": "share", "mean": share, "low": low, "high": high, **sizes})
    return pd.DataFrame(rows)


def name_numbers(tables: dict[str, pd.DataFrame]) -> dict[str, dict]:
    """Named numbers that a page may print; spaces in names become underscores."""
    numbers = {}

    def put(name: str, row: dict, unit: str) -> None:
        numbers[name.replace(" ", "_")] = row_number(row, unit)

    for row in tables["summary"].to_dict("records"):
        if row["metric"] == "spearman":
            put(f"{row['regime']}_{row['group']}_{row['method']}_{row['shots']}", row, "Spearman")
    for row in tables["differences"].to_dict("records"):
        name = f"{row['regime']}_{row['group']}_maml_minus_{row['baseline']}_{row['shots']}"
        put(name, row, "Spearman")
    for row in tables["gains"].to_dict("records"):
        ending = "" if row["rates"] == "error" else "_by_ranks"
        name = f"{row['regime']}_{row['group']}_gain_over_{row['baseline']}_{row['metric']}{ending}"
        put(name, row, "share of error")
    for row in tables["related"].to_dict("records"):
        put(f"related_seen_minus_not_{row['method']}", row, "Spearman")
    for row in tables["rapid"].to_dict("records"):
        unit = "" if row["what"] == "share" else "Spearman"
        put(f"rapid_{row['what']}", row, unit)
    for row in tables["signatures"].to_dict("records"):
        put(f"lead_over_{row['rival']}_with_{row['sign']}", row, "rank correlation")
    return numbers
