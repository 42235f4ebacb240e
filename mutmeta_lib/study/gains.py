r"""The gain of one method over another in squared error, and paired differences, by cluster.

.. math:: \text{gain} = 1 - \exp\Bigl(\frac{1}{A} \sum_a \log
   \frac{\text{MSE}_\text{method}(a)}{\text{MSE}_\text{other}(a)}\Bigr)

over assays a, each averaged over seeds first: the share of the other's error that is saved. The
geometric mean makes a ratio and its inverse count alike. Units cancel within an assay.
"""

import numpy as np
import pandas as pd

from mutmeta_lib.errors import DataError
from mutmeta_lib.study.estimates import bootstrap_mean


def paired_gain(
    table: pd.DataFrame,
    metric: str,
    method: str,
    other: str,
    *,
    unit: str = "cluster",
    n_boot: int = 2000,
    seed: int = 0,
) -> dict[str, float]:
    """Gain of ``method`` over ``other`` in an error, with its interval over units.

    Args:
        table: one row per method and assay, with columns method, assay, ``unit`` and ``metric``.
        metric: an error, larger than zero; assays where either is not defined are left out.
        method: the one that may be better.
        other: what it is compared with.
        unit: the column whose values are resampled, all assays of one together.
        n_boot: resamples.
        seed: of the resamples.

    Returns:
        mean (the gain), low, high (NaN with one unit), n_assays, n_units.

    Raises:
        DataError: a method is missing, or has two rows for an assay, or an error is not positive.

    """
    sides = _sides(table, metric, method, other, unit)
    values = sides.dropna()
    if (values[["ours", "theirs"]] <= 0).any(axis=None):
        raise DataError(f"a {metric} is not positive, its logarithm is not defined", "look at it")
    logs = np.log(values["ours"]) - np.log(values["theirs"])
    row = _row(logs, values["unit"], n_boot, seed)
    mean, low, high = (1 - float(np.exp(row[name])) for name in ("mean", "high", "low"))
    return {**row, "mean": mean, "low": low, "high": high}


def paired_difference(
    table: pd.DataFrame,
    metric: str,
    method: str,
    other: str,
    *,
    unit: str = "cluster",
    n_boot: int = 2000,
    seed: int = 0,
) -> dict[str, float]:
    """Mean of ``method`` minus ``other`` over assays; arguments and result as for the gain."""
    values = _sides(table, metric, method, other, unit).dropna()
    return _row(values["ours"] - values["theirs"], values["unit"], n_boot, seed)


def group_mean(
    table: pd.DataFrame, metric: str, *, unit: str = "cluster", n_boot: int = 2000, seed: int = 0
) -> dict[str, float]:
    """Mean of a metric over the rows of one method, one per assay, with its interval over units."""
    values = table.dropna(subset=[metric])
    return _row(values[metric], values[unit], n_boot, seed)


def _row(values: pd.Series, units: pd.Series, n_boot: int, seed: int) -> dict[str, float]:
    mean, low, high = bootstrap_mean(values.to_numpy(), units.to_numpy(), n_boot=n_boot, seed=seed)
    sizes = {"n_assays": len(values), "n_units": units.nunique()}
    return {"mean": mean, "low": low, "high": high, **sizes}


def _sides(table: pd.DataFrame, metric: str, method: str, other: str, unit: str) -> pd.DataFrame:
    """Columns ours, theirs and unit, one row per assay, in order of assay."""
    sides = []
    for name in (method, other):
        rows = table[table["method"] == name]
        if rows.empty:
            raise DataError(f"the table holds no method '{name}'", "evaluate it first")
        if rows["assay"].duplicated().any():
            twice = rows.loc[rows["assay"].duplicated(), "assay"].iloc[0]
            raise DataError(
                f"{name} has several rows for assay {twice}", "average them, or take one group"
            )
        sides.append(rows.set_index("assay")[[metric, unit]])
    ours, theirs = sides
    if missing := sorted(set(ours.index) ^ set(theirs.index)):
        raise DataError(
            f"{method} and {other} were not tested on the same assays (first: {missing[0]})",
            "evaluate both on all of them",
        )
    made = pd.DataFrame({"ours": ours[metric], "theirs": theirs[metric], "unit": ours[unit]})
    return made.sort_index()


FEWEST_CLUSTERS = 6
"""Fewer independent protein clusters test no claim about a property (criteria of the book)."""


def verdict(claimed: float, gain: dict[str, float], difference: dict[str, float]) -> str:
    """The verdict on a claimed gain, by the criteria written down before the runs.

    Args:
        claimed: the gain that the paper states, such as 0.29.
        gain: of ``paired_gain``.
        difference: of ``paired_difference`` in Spearman correlation, for the same two methods.

    >>> wide = {"mean": 0.1, "low": -0.2, "high": 0.4, "n_assays": 9, "n_units": 9}
    >>> verdict(0.29, wide, wide)
    'not reproduced, not excluded'
    """
    if gain["n_units"] < FEWEST_CLUSTERS or not np.isfinite(gain["low"]):
        return "not testable here"
    if gain["low"] <= 0:
        return "not reproduced" + (", not excluded" if gain["high"] >= claimed else "")
    if gain["high"] < claimed or difference["mean"] <= 0:
        return "partly"
    return "reproduced"
