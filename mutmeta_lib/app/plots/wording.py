"""What figures say: names, units, and how many assays a mean is of."""

from collections.abc import Sequence

import pandas as pd

from mutmeta_lib.errors import DataError
from mutmeta_lib.tasks.metrics import METRICS


def of_metric(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The rows of a metric, where the table has several."""
    if "metric" not in table:
        return table
    chosen = table[table["metric"] == metric]
    if chosen.empty:
        raise DataError(
            f"the table has no metric '{metric}'", f"it has {sorted(set(table['metric']))}"
        )
    return chosen


def metric_name(metric: str) -> str:
    """A metric's name for readers."""
    return METRICS[metric].label if metric in METRICS else metric.replace("_", " ")


def metric_label(metric: str) -> str:
    """A metric's name with its unit, for an axis."""
    unit = METRICS[metric].unit if metric in METRICS else ""
    return f"{metric_name(metric)} ({unit or 'no unit'})"


def averaged(
    table: pd.DataFrame, kind: str = "", *, column: str = "n_proteins", noun: str = "protein"
) -> str:
    """What was averaged, and what the bars are; ``column`` counts the assays' ``noun``."""
    n_assays = table.loc[table["n_assays"] > 0, "n_assays"]
    counted = count(n_assays, "assay") if len(n_assays) else "no assay"
    if column in table and table[column].max() > 0:
        counted += f" of {count(table.loc[table[column] > 0, column], noun)}"
    bars = f"{kind} 95 % interval".strip() if table["low"].notna().any() else "no interval"
    return f"mean of {counted}, {bars}"


def count(values: Sequence[int], noun: str) -> str:
    """A count, or the range of counts, with its noun.

    >>> count([24, 24], "assay"), count([1], "protein"), count([18, 24], "assay")
    ('24 assays', '1 protein', '18 to 24 assays')
    """
    low, high = int(min(values)), int(max(values))
    number = str(high) if low == high else f"{low} to {high}"
    return f"{number} {noun}{'' if high == 1 else 's'}"
