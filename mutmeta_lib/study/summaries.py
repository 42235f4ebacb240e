"""From tidy rows to means with intervals: assays are the unit that is resampled."""

from collections.abc import Iterator, Sequence

import pandas as pd

from mutmeta_lib.errors import DataError
from mutmeta_lib.study.bootstrap import bootstrap_mean, effective_number


def summarise(
    table: pd.DataFrame,
    metric: str,
    *,
    by: Sequence[str] = ("method", "shots"),
    n_boot: int = 2000,
    seed: int = 0,
    unit: str = "assay",
    level: float = 0.95,
) -> pd.DataFrame:
    """Mean of a metric per group with its bootstrap interval over assays.

    Seeds are averaged within an assay first; assays (``unit="assay"``), or all assays of a
    protein together (``unit="protein"``), are then resampled. The mean is over assays either way.
    The interval speaks of other assays like these, not of other seeds or meta-training runs.
    Correlations are averaged as they are: arithmetically, without a Fisher transform.

    Values that are not defined (errors without a label scale) are not averaged; ``n_undefined``
    counts the rows they stood in, and an assay without any defined value is not in ``n_assays``.

    Returns:
        One row per group: the columns of ``by``, mean, low, high (NaN with one unit, see
        ``bootstrap_mean``), n_assays, n_proteins, n_effective_proteins
        (``bootstrap.effective_number``: how many proteins the assays are worth), n_undefined.

    Raises:
        DataError: no such column, or one group holds two values for the same assay and seed
            (of two methods, say, or two numbers of shots).

    """
    _check_table(table, [metric, "assay", "protein", "seed", *by])
    _check_one_row_each(table, list(dict.fromkeys([*by, "assay", "seed"])))
    rows = [
        {
            **dict(zip(by, key, strict=True)),
            **_over_assays(group, metric, n_boot, seed, unit, level),
        }
        for key, group in _groups(table, by)
    ]
    return pd.DataFrame(rows)


def compare(
    table: pd.DataFrame,
    metric: str,
    method: str,
    baseline: str,
    *,
    by: Sequence[str] = ("shots",),
    n_boot: int = 2000,
    seed: int = 0,
    unit: str = "assay",
    level: float = 0.95,
) -> pd.DataFrame:
    """Paired difference ``method`` minus ``baseline`` per group, bootstrapped over assays.

    Both methods were scored on the same draws; the difference is taken draw by draw before seeds
    are averaged and assays resampled, so that what makes an assay hard for both cancels. For
    errors (lower is better) a negative difference favours ``method``. There is no p-value: look
    at the interval.

    Returns:
        The columns of ``summarise``, with method and baseline in front.

    Raises:
        DataError: a draw of one method is missing for the other, or none is there at all.

    """
    draw = list(dict.fromkeys([*by, "assay", "seed"]))
    _check_table(table, [metric, "method", "protein", *draw])
    sides = []
    for name in (method, baseline):
        side = table[table["method"] == name]
        if side.empty:
            raise DataError(f"the table holds no method '{name}'", "evaluate it first")
        _check_one_row_each(side, draw)
        sides.append(side.set_index(draw)[[metric, "protein"]])
    ours, theirs = sides
    unpaired = ours.index.symmetric_difference(theirs.index)
    if len(unpaired):
        first = ", ".join(f"{key} {value}" for key, value in zip(draw, unpaired[0], strict=True))
        raise DataError(
            f"{method} and {baseline} were not scored on the same draws "
            f"({len(unpaired)} without a partner, first: {first})",
            "evaluate both with the same assays, seeds and shots",
        )
    paired = ours.assign(**{metric: ours[metric] - theirs[metric].reindex(ours.index)})
    made = summarise(
        paired.reset_index(), metric, by=by, n_boot=n_boot, seed=seed, unit=unit, level=level
    )
    made.insert(0, "method", method)
    made.insert(1, "baseline", baseline)
    return made


def _check_table(table: pd.DataFrame, needed: Sequence[str]) -> None:
    missing = [column for column in needed if column not in table]
    if missing:
        raise DataError(
            f"the table has no column {', '.join(missing)}", f"it has {', '.join(table.columns)}"
        )


def _check_one_row_each(table: pd.DataFrame, draw: list[str]) -> None:
    repeated = table.duplicated(draw)
    if repeated.any():
        first = table.loc[repeated, draw].iloc[0]
        raise DataError(
            "the table has several rows for "
            + ", ".join(f"{key} {value}" for key, value in first.items()),
            "keep one row per assay and seed, or add what tells them apart to `by`",
        )


def _groups(table: pd.DataFrame, by: Sequence[str]) -> Iterator[tuple[tuple, pd.DataFrame]]:
    """Groups with text in order of first appearance and numbers in ascending order."""
    order = {
        column: {value: i for i, value in enumerate(pd.unique(table[column]))}
        for column in by
        if not pd.api.types.is_numeric_dtype(table[column])
    }
    grouped = list(table.groupby(list(by), sort=False, dropna=False))
    return iter(
        sorted(
            grouped,
            key=lambda item: [
                order[column][value] if column in order else value
                for column, value in zip(by, item[0], strict=True)
            ],
        )
    )


def _over_assays(
    group: pd.DataFrame, metric: str, n_boot: int, seed: int, unit: str, level: float
) -> dict[str, float]:
    if unit not in ("assay", "protein"):
        raise ValueError(f"unknown unit '{unit}', resample 'assay' or 'protein'")
    # Sorted by assay, so that the interval does not depend on the order of rows.
    means = group.groupby("assay").agg(value=(metric, "mean"), protein=("protein", "first"))
    means = means.dropna(subset="value")
    groups = means["protein"].to_numpy() if unit == "protein" else None
    mean, low, high = bootstrap_mean(
        means["value"].to_numpy(), groups, n_boot=n_boot, seed=seed, level=level
    )
    return {
        "mean": mean,
        "low": low,
        "high": high,
        "n_assays": len(means),
        "n_proteins": means["protein"].nunique(),
        "n_effective_proteins": effective_number(means["protein"].to_numpy()),
        "n_undefined": int(group[metric].isna().sum()),
    }
