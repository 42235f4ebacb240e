"""Means and paired contrasts with intervals: functions of a tidy table of results.

A table has one row per ``assay``, ``seed`` and whatever else was varied, and columns of metrics.
Seeds are averaged within an assay first; whole units (protein clusters, by default) are then
resampled, all assays of one together, because assays of one protein are not independent. The mean
is over assays either way, and Spearman correlations are averaged as they are, without a Fisher
transform. There is no p-value: look at the interval.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from mutmeta_lib.data.folders import LITERATURE
from mutmeta_lib.errors import DataError
from mutmeta_lib.records.record import number

PROTEINGYM = ("role", "protein")
"""ProteinGym's mean, where a role is its selection type: over the assays of a UniProt id within a
type, then over the ids of the type, then over types (Notin et al., NeurIPS 2023)."""
Ends = tuple[float, float, float]
"""A value with the low and high end of its interval; NaN where there is none."""


def bootstrap_mean(
    values: np.ndarray, groups: np.ndarray | None = None, *, n_boot: int = 2000, seed: int = 0
) -> Ends:
    """Mean of ``values`` with its 95 % percentile bootstrap interval.

    With ``groups`` (one label per value) whole groups are resampled; fewer than two have no
    interval (NaN), and with a handful it is somewhat too narrow (Efron and Tibshirani, An
    Introduction to the Bootstrap, 1993, chapter 14). Draws depend on ``seed``, ``n_boot`` and the
    number of groups alone: two methods on the same assays have the same resamples.

    >>> bootstrap_mean(np.array([3.0]))
    (3.0, nan, nan)
    >>> bootstrap_mean(np.array([1.0, 1.0, 1.0]))
    (1.0, 1.0, 1.0)
    """
    return _bootstrap(values, np.ones(len(values)), groups, "linear", n_boot, seed)


def bootstrap_ratio(
    numerators: np.ndarray, denominators: np.ndarray, groups: np.ndarray | None = None
) -> Ends:
    """Ratio of two sums over the same units with its 95 % percentile bootstrap interval.

    A resample whose denominators sum to zero or less gives an infinite ratio.

    >>> bootstrap_ratio(np.array([1.0, 1.0]), np.array([2.0, 2.0]))
    (0.5, 0.5, 0.5)
    """
    # Ranks in the place of interpolated quantiles: infinity minus infinity is not a number.
    return _bootstrap(numerators, denominators, groups, "nearest")


def _bootstrap(above, below, groups, quantile: str, n_boot: int = 2000, seed: int = 0) -> Ends:
    if not len(above):
        return float("nan"), float("nan"), float("nan")
    unit = np.arange(len(above)) if groups is None else np.unique(groups, return_inverse=True)[1]
    sums = np.stack([np.bincount(unit, np.asarray(side, dtype=float)) for side in (above, below)])
    ratio = float(_over(*sums.sum(axis=1, keepdims=True))[0])
    n = sums.shape[1]
    if n < 2:
        return ratio, float("nan"), float("nan")
    drawn = np.random.default_rng(seed).integers(n, size=(n_boot, n))
    low, high = np.quantile(_over(*sums[:, drawn].sum(axis=2)), [0.025, 0.975], method=quantile)
    return ratio, float(low), float(high)


def _nested(means: pd.DataFrame, n_boot: int = 2000, seed: int = 0) -> Ends:
    """The mean over ``outer`` of means over ``inner`` of ``value``, with its interval over units.

    A group of the outer level that a resample has nothing of is left out of that resample.
    """
    inner = means.groupby(["outer", "inner"], as_index=False).agg(
        value=("value", "mean"), unit=("unit", "first")
    )
    unit, n = np.unique(inner["unit"], return_inverse=True)[1], inner["unit"].nunique()
    outer = pd.get_dummies(inner["outer"]).to_numpy(float)
    drawn = np.random.default_rng(seed).integers(n, size=(n_boot, n)) if n > 1 else []
    times = np.array([np.ones(n), *(np.bincount(draw, minlength=n) for draw in drawn)])[:, unit]
    count = times @ outer
    total = (times * inner["value"].to_numpy()) @ outer
    ratios = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
    value, *draws = ratios.sum(axis=1) / (count > 0).sum(axis=1)
    low, high = np.quantile(draws, [0.025, 0.975]) if draws else (float("nan"),) * 2
    return float(value), float(low), float(high)


def _over(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full_like(above, np.inf), where=below > 0)


def estimate(
    rows: pd.DataFrame,
    metric: str | Sequence[str],
    *,
    by: Sequence[str] = ("method", "shots"),
    over: str = "cluster",
    within: tuple[str, str] | None = None,
) -> pd.DataFrame:
    """Mean of one or several columns per group, with its 95 % interval over units.

    Units are the values of ``over``: ``cluster``, ``protein`` or ``assay``. ``within``, such as
    `PROTEINGYM`, names two columns, outer and inner: assays are averaged within the inner, these
    within the outer, and these in the end. A row has metric, the columns of ``by``, mean, low, high
    (NaN with one unit), n_assays, n_units, n_proteins (clusters where the table has them), and
    n_undefined (rows without a value, which are not averaged). It is a DataError if a column is
    missing, or a group holds two values for one assay and seed.
    """
    made = []
    for name in [metric] if isinstance(metric, str) else metric:
        _check(rows, [name, "assay", over, *(within or ()), *by], by)
        for where, group in _groups(rows, by):
            made.append({"metric": name, **where, **_mean(group, name, over, within)})
    return pd.DataFrame(made)


def means(
    rows: pd.DataFrame, metric: str | Sequence[str], *, by: Sequence[str] = ("method", "shots")
) -> pd.DataFrame:
    """The means that a benchmark is quoted by, told apart in ``group``.

    ``all`` is the plain mean over assays, a property (or role) that over its own, and
    ``ProteinGym`` the mean of `PROTEINGYM`. Rows are as of `estimate`, over clusters.
    """
    plain = estimate(with_groups(rows), metric, by=["group", *by])
    nested = estimate(rows, metric, by=by, within=PROTEINGYM).assign(group="ProteinGym")
    return pd.concat([plain, nested], ignore_index=True)


def contrast(
    rows: pd.DataFrame,
    metric: str | Sequence[str],
    column: str,
    reference: Any,
    *,
    by: Sequence[str] = ("shots",),
    over: str = "cluster",
    kind: Literal["difference", "gain"] = "difference",
    within: tuple[str, str] | None = None,
) -> pd.DataFrame:
    r"""One value of a column against each other one, paired draw by draw.

    What makes an assay hard for both cancels. ``difference`` is ``reference`` minus the other;
    ``gain`` is the share of the other's error that is saved,

    .. math:: 1 - \exp\Bigl(\frac{1}{A} \sum_a \log
       \frac{\text{error}_\text{reference}(a)}{\text{error}_\text{other}(a)}\Bigr)

    over assays a, each averaged over seeds first: a ratio and its inverse count alike, and units
    cancel within an assay. ``within`` and rows are as of `estimate`, with ``column`` (always
    ``reference``) and ``baseline``, the other. It is a DataError if the reference is nowhere, two
    values were not tested on the same draws, or an error that a logarithm is taken of is not
    positive.
    """
    if reference not in set(rows[column]):
        raise DataError(f"the table holds no {column} '{reference}'", "evaluate it first")
    made = []
    for name in [metric] if isinstance(metric, str) else metric:
        _check(rows, [name, "assay", over, *(within or ()), *by], [*by, column])
        for where, group in _groups(rows, by):
            sides = dict(list(group.groupby(column, sort=False)))
            for other in [key for key in sides if key != reference and reference in sides]:
                units = (over, *(within or ()))
                paired = _paired(sides[reference], sides[other], name, column, units, kind)
                row = _mean(paired, name, over, within)
                if kind == "gain":
                    ends = {"mean": row["mean"], "low": row["high"], "high": row["low"]}
                    row |= {key: 1 - float(np.exp(value)) for key, value in ends.items()}
                made.append({"metric": name, **where, column: reference, "baseline": other, **row})
    return pd.DataFrame(made)


def _paired(
    ours: pd.DataFrame,
    theirs: pd.DataFrame,
    metric: str,
    column: str,
    units: Sequence[str],
    kind: str,
) -> pd.DataFrame:
    """One row per draw (or assay, for a gain) with the difference of the two in ``metric``."""
    draw = [name for name in ("assay", "seed") if name in ours]
    ours, theirs = ours.set_index(draw), theirs.set_index(draw)
    apart = ours.index.symmetric_difference(theirs.index)
    if len(apart):
        both = f"{ours[column].iloc[0]} and {theirs[column].iloc[0]}"
        first = ", ".join(map(str, apart.to_frame().iloc[0]))
        told = f"were not tested on the same draws ({len(apart)} without a partner, first: {first})"
        raise DataError(f"{both} {told}", "evaluate both with the same assays, seeds and shots")
    told = [name for name in dict.fromkeys((*units, "cluster", "protein")) if name in ours]
    values = ours[told].assign(ours=ours[metric], theirs=theirs[metric]).reset_index()
    if kind == "gain":
        how = {"ours": "mean", "theirs": "mean"} | dict.fromkeys(told, "first")
        values = values.groupby("assay", as_index=False).agg(how)
        if (values[["ours", "theirs"]] <= 0).any(axis=None):
            raise DataError(f"a {metric} is not positive, its logarithm is not defined", "look")
        values[["ours", "theirs"]] = np.log(values[["ours", "theirs"]])
    return values.assign(**{metric: values["ours"] - values["theirs"]})


def _mean(
    group: pd.DataFrame, metric: str, over: str, within: tuple[str, str] | None = None
) -> dict[str, float]:
    # Sorted by assay, so that the interval does not depend on the order of rows.
    outer, inner = within or ("assay", "assay")
    protein = next((name for name in ("cluster", "protein") if name in group), over)
    told = {"unit": over, "counted": protein, "outer": outer, "inner": inner}
    about = group.assign(**{key: group[name] for key, name in told.items()}).groupby("assay")
    means = about.agg(value=(metric, "mean"), **{key: (key, "first") for key in told})
    means = means.dropna(subset="value")
    ends = bootstrap_mean(means["value"].to_numpy(), means["unit"].to_numpy())
    mean, low, high = _nested(means) if within and len(means) else ends
    return {
        **{"mean": mean, "low": low, "high": high, "n_assays": len(means)},
        "n_units": means["unit"].nunique(),
        "n_proteins": means["counted"].nunique(),
        "n_undefined": int(group[metric].isna().sum()),
    }


def _check(rows: pd.DataFrame, needed: Sequence[str], keys: Sequence[str]) -> None:
    if missing := ", ".join(column for column in needed if column not in rows):
        raise DataError(f"the table has no column {missing}", f"it has {', '.join(rows.columns)}")
    draw = [*dict.fromkeys([*keys, "assay", *(["seed"] if "seed" in rows else [])])]
    if (repeated := rows.duplicated(draw)).any():
        first = rows.loc[repeated, draw].iloc[0]
        told = ", ".join(f"{key} {value}" for key, value in first.items())
        mend = "keep one row per assay and seed, or add what tells them apart to `by`"
        raise DataError(f"the table has several rows for {told}", mend)


def _groups(rows: pd.DataFrame, by: Sequence[str]) -> Iterator[tuple[dict, pd.DataFrame]]:
    """Groups with text in order of first appearance and numbers in ascending order."""
    if not by:
        yield {}, rows
        return
    texts = [column for column in by if not pd.api.types.is_numeric_dtype(rows[column])]
    order = {column: pd.Categorical(rows[column], pd.unique(rows[column])) for column in texts}
    for key, group in rows.assign(**order).groupby(list(by), observed=True, dropna=False):
        yield dict(zip(by, key, strict=True)), group


def with_groups(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows once for ``group`` all, by property, and by role if they have one.

    A role stands apart only where its property has several; one that is called as its property is
    becomes ``<role> scores``. Roles of `LITERATURE` stand apart alone, and are in no other group.
    """
    groups = []
    if "role" in rows:
        own = rows["role"].isin(LITERATURE)
        rows, apart = rows[~own], rows[own]
        some = rows[rows.groupby("property")["role"].transform("nunique") > 1]
        roles = some["role"].where(some["role"] != some["property"], some["role"] + " scores")
        groups = [some.assign(group=roles), apart.assign(group=apart["role"])]
    groups = [rows.assign(group="all"), rows.assign(group=rows["property"]), *groups]
    return pd.concat(groups, ignore_index=True)


def named(table: pd.DataFrame, template: str, unit: str = "Spearman") -> dict[str, dict]:
    """The rows of an estimate as named numbers of a record, such as ``{method}_{shots}``."""
    return {
        template.format(**row).replace(" ", "_").replace("-", "_"): number(
            row["mean"], row["low"], row["high"], row["n_assays"], unit
        )
        for row in table.to_dict("records")
    }


def verdict(claimed: float, gain: Mapping[str, float], difference: Mapping[str, float]) -> str:
    """The verdict on a claimed gain (such as 0.29), by the criteria written before the runs.

    ``gain`` is a row of `contrast` of that kind in error; ``difference`` one in Spearman
    correlation for the same two methods. Fewer than six protein clusters test no claim; an interval
    without a lower bound (-inf) holds zero.

    >>> wide = {"mean": 0.1, "low": -0.2, "high": 0.4, "n_assays": 9, "n_units": 9}
    >>> verdict(0.29, wide, wide)
    'not reproduced, not excluded'
    """
    if gain["n_units"] < 6 or np.isnan(gain["low"]):
        return "not testable here"
    if gain["low"] <= 0:
        return "not reproduced" + (", not excluded" if gain["high"] >= claimed else "")
    if gain["high"] < claimed or difference["mean"] <= 0:
        return "partly"
    return "reproduced"
