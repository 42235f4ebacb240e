"""Tables and named numbers of the comparison of depths, from results that are means over seeds."""

from collections.abc import Iterable
from itertools import permutations

import pandas as pd

from mutmeta_lib.study.gains import group_mean, paired_difference, paired_gain
from mutmeta_lib.study.intervals import row_number
from mutmeta_lib.study.transfer_assays import about_assays

CONTROLS = ("ridge", "onehot")
"""Methods that do not depend on the depth: run once per encoder, compared at every depth."""


def depth_tables(
    results: pd.DataFrame, assays: pd.DataFrame, decided_at: int
) -> dict[str, pd.DataFrame]:
    """Means per cell, differences and gains between methods of a depth and depths of a method.

    Args:
        results: one row per encoder, depth, method, assay and shots.
        assays: the table of ``describe_assays``; errors of classes (a role that ends in
            ``classes``) are not taken.
        decided_at: the number of labels at which differences are taken.

    """
    full = about_assays(results, assays)
    full.loc[full["role"].str.endswith("classes"), "mse"] = float("nan")
    full = with_controls(full)
    summary, differences, gains = [], [], []
    for group in ("all", *sorted(full["property"].unique())):
        part = full if group == "all" else full[full["property"] == group]
        ranks = part[~part["method"].str.endswith("_mse")]
        for cell, own in ranks.groupby(["encoder", "depth", "method", "shots"], sort=False):
            where = dict(zip(("encoder", "depth", "method", "shots"), cell, strict=True))
            summary.append({"group": group, **where, **group_mean(own, "spearman")})
        for (encoder, depth, shots), own in ranks.groupby(
            ["encoder", "depth", "shots"], sort=False
        ):
            where = {"group": group, "encoder": encoder, "within": depth, "shots": shots}
            differences += _differences(own, where, _pairs(own["method"]))
        learned = ranks[~ranks["method"].isin(CONTROLS)]
        for (encoder, method, shots), own in learned.groupby(
            ["encoder", "method", "shots"], sort=False
        ):
            where = {"group": group, "encoder": encoder, "within": method, "shots": shots}
            pairs = permutations(pd.unique(own["depth"]), 2)
            differences += _differences(own.assign(method=own["depth"]), where, pairs)
        decided = part[part["shots"] == decided_at]
        for (encoder, depth), own in decided.groupby(["encoder", "depth"], sort=False):
            gains += _gains(own, {"group": group, "encoder": encoder, "depth": depth})
    kept = ["encoder", "depth", "method", "assay", "shots", "spearman", "mse", "seconds_adapt"]
    return {
        "results": results[kept],
        "summary": pd.DataFrame(summary),
        "differences": pd.DataFrame(differences),
        "gains": pd.DataFrame(gains),
    }


def with_controls(table: pd.DataFrame) -> pd.DataFrame:
    """The table with an encoder's controls at each of its depths."""
    controls = table["method"].isin(CONTROLS)
    cells = table.loc[~controls, ["encoder", "depth"]].drop_duplicates()
    shared = table[controls].drop(columns="depth").merge(cells, on="encoder")
    return pd.concat([table[~controls], shared], ignore_index=True)


def _differences(rows: pd.DataFrame, where: dict, pairs: Iterable[tuple[str, str]]) -> list[dict]:
    return [
        {**where, "a": a, "b": b, **paired_difference(rows, "spearman", a, b)} for a, b in pairs
    ]


def _gains(rows: pd.DataFrame, where: dict) -> list[dict]:
    """MAML's gain in squared error, rates chosen for error on both sides."""
    present = set(rows.loc[rows["mse"].notna(), "method"])
    return [
        {**where, "method": ours.removesuffix("_mse"), "baseline": other}
        | paired_gain(rows, "mse", ours, f"{other}_mse")
        for ours in sorted(present)
        if ours.endswith("maml_mse")
        for other in ("finetune", "multitask")
        if f"{other}_mse" in present
    ]


def _pairs(methods: pd.Series) -> list[tuple[str, str]]:
    """MAML minus each other method, and the jointly trained start minus fine-tuning."""
    present = list(pd.unique(methods))
    ours = [name for name in present if name.endswith("maml")]
    pairs = [(a, b) for a in ours for b in present if a != b]
    return pairs + [("multitask", "finetune")] * ({"multitask", "finetune"} <= set(present))


def depth_numbers(tables: dict[str, pd.DataFrame]) -> dict[str, dict]:
    """Named numbers, such as ``esm2_last_1_all_fomaml_minus_finetune_10``."""
    named = {}
    for row in tables["summary"].to_dict("records"):
        cell = f"{row['encoder']}_{row['depth']}_{row['group']}_{row['method']}_{row['shots']}"
        named[cell] = row_number(row)
    for row in tables["differences"].to_dict("records"):
        pair = f"{row['a']}_minus_{row['b']}"
        cell = f"{row['encoder']}_{row['within']}_{row['group']}_{pair}_{row['shots']}"
        named[cell] = row_number(row)
    for row in tables["gains"].to_dict("records"):
        cell = f"{row['encoder']}_{row['depth']}_{row['group']}_gain_over_{row['baseline']}"
        percent = {key: 100 * row[key] for key in ("mean", "low", "high")}
        named[cell] = row_number({**row, **percent}, "%")
    return {name.replace(" ", "_").replace("-", "_"): value for name, value in named.items()}
