"""Means with intervals over protein clusters: a row of a table, and the number that a page prints.

>>> row = interval_row(pd.Series([0.1, 0.3, float("nan")]), pd.Series([0, 1, 2]))
>>> row["mean"], row["n_assays"], row["n_proteins"]
(0.2, 2, 2)
>>> row_number(row)["n"]
2
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from mutmeta_lib.records.record import number
from mutmeta_lib.study.estimates import bootstrap_mean


def interval_row(values: pd.Series, clusters: pd.Series) -> dict[str, float]:
    """Mean of the values that are defined, one per assay, and its interval over clusters.

    Returns:
        mean, low, high (NaN with one cluster), n_assays, n_proteins (clusters).

    """
    there = values.notna().to_numpy()
    found, groups = values.to_numpy(dtype=float)[there], clusters.to_numpy()[there]
    mean, low, high = bootstrap_mean(found, groups)
    counted = {"n_assays": int(there.sum()), "n_proteins": len(np.unique(groups))}
    return {"mean": mean, "low": low, "high": high, **counted}


def row_number(row: Mapping[str, float], unit: str = "Spearman") -> dict:
    """The number of a row that has mean, low, high and n_assays."""
    return number(row["mean"], row["low"], row["high"], row["n_assays"], unit)


def mean_number(values: pd.Series, clusters: pd.Series, unit: str = "Spearman") -> dict:
    """The number of `interval_row`."""
    return row_number(interval_row(values, clusters), unit)
