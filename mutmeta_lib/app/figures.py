"""Figures from tidy tables: what is drawn comes as names of columns, what is said as words.

Intervals are the columns mean, low and high; where low or high is NaN, the point stands alone.
``panels`` names up to two columns: values of the first stand below one another, of the second side
by side. The words are title, subtitle, xlabel and ylabel (a text, or one for each panel); without a
subtitle, counts in the table say what the means are of. Every function returns a ``Figure``.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.container import Container
from matplotlib.figure import Figure

from mutmeta_lib.app.style import PALETTE as PALETTE
from mutmeta_lib.app.style import Look, count, label, looks, style
from mutmeta_lib.errors import DataError

DARK = "#444444"
ENDS = ["mean", "low", "high"]
Names = Sequence[str]


def curve(
    table: pd.DataFrame,
    x: str,
    by: str = "method",
    *,
    panels: Names = (),
    reference: tuple[float, str] | None = None,
    band: bool = False,
    log: bool = False,
    **words,
) -> Figure:
    """Means with intervals against labels, steps or sizes, one line per value of ``by``.

    Places are spaced evenly, so that 0 and 1 stay apart, and lines are set side by side so that no
    interval hides another. With ``band`` places are many: they stand where their numbers are, and
    intervals are bands. ``reference`` is a value to be marked, with its name.
    """
    table = _checked(table, [x, by, *panels], ENDS)
    places, numbers = list(pd.unique(table[x])), pd.api.types.is_numeric_dtype(table[x])
    places = sorted(places) if numbers else places
    with _drawn(table, panels, 2.3 if panels else 2.9, **words) as (figure, parts):
        for axis, rows in parts:
            for name, look, shift in _series(table[by], 0.1):
                own = rows[rows[by] == name].set_index(x)[ENDS].astype(float)
                if band:
                    own = own.sort_index().dropna(subset="mean")
                    shown = {"marker": look.marker, "markevery": max(1, len(own) // 12), "lw": 1.5}
                    shown |= {"color": look.colour, "label": look.label}
                    axis.plot(own["mean"], look.line, **shown)
                    shown = {"color": look.colour, "alpha": 0.15, "lw": 0}
                    axis.fill_between(own.index, own["low"], own["high"], **shown)
                else:
                    _intervals(axis, np.arange(len(places)) + shift, own.reindex(places), look)
            if reference:
                at, named = reference
                axis.axhline(at, label=named, color=DARK, lw=1, linestyle=(0, (1, 2)))
            if log:
                axis.set_yscale("log")
            if not band:
                ticks = [f"{place:,g}" if numbers else str(place) for place in places]
                axis.set_xticks(range(len(places)), ticks)
                axis.set_xlim(-0.5, len(places) - 0.5)
                axis.grid(visible=False, axis="x")
    return figure


def forest(
    table: pd.DataFrame,
    rows: str,
    by: str | None = None,
    *,
    panels: Names = (),
    reference: float | None = 0.0,
    marks: tuple[str, Mapping] | None = None,
    **words,
) -> Figure:
    """Means with intervals: a line of the figure per value of ``rows``, a marker per one of ``by``.

    With a ``reference`` a point is hollow whose interval holds it. ``marks`` is a name and values
    to be crossed in rows, such as claims. Columns least and most are drawn as a thin line behind.
    """
    kind = by or rows
    table = _checked(table, [*dict.fromkeys([rows, kind]), *panels], ENDS)
    names, n_series = list(pd.unique(table[rows])), table[kind].nunique()
    height = 0.4 + len(names) * max(0.36, 0.19 * n_series * bool(by))
    with _drawn(table, panels, height, legend=bool(by), **words) as (figure, parts):
        for axis, part in parts:
            if reference is not None:
                axis.axvline(reference, color=DARK, lw=1)
            for name, look, shift in _series(table[kind], 0.2 * bool(by)):
                own = part[part[kind] == name].set_index(rows).reindex(names)
                at = np.arange(len(names)) + shift
                if "least" in table:
                    axis.hlines(at, own["least"], own["most"], color=look.colour, lw=1, alpha=0.5)
                _intervals(axis, at, own[ENDS].astype(float), look, flat=True, mark=reference)
            if marks:
                claimed, values = marks
                at = [place for place, name in enumerate(names) if name in values]
                cross = {"color": "black", "ms": 9, "mew": 2, "label": claimed}
                axis.plot([values[names[place]] for place in at], at, "x", **cross)
            axis.set_yticks(range(len(names)), [label(name) for name in names])
            axis.set_ylim(len(names) - 0.4, -0.6)  # the first row at the top
            axis.grid(visible=False, axis="y")
    return figure


def histogram(
    table: pd.DataFrame, height: str, by: str, *, panels: Names = (), log: bool = False, **words
) -> Figure:
    """Bins from low to high: of the first value of ``by``, or where it is a panel, filled."""
    table = _checked(table, [], ["low", "high", height, by, *panels])
    alone = by in panels
    with _drawn(table, panels, 1.35, legend=not alone, **words) as (figure, parts):
        for axis, rows in parts:
            for nth, (name, look, _) in enumerate(_series(table[by])):
                own = rows[rows[by] == name]
                if own.empty:
                    continue
                edges = np.unique(own[["low", "high"]])
                bins = own.set_index("low")[height].reindex(edges[:-1], fill_value=0)
                filled = {"fill": True, "alpha": 1 if alone else 0.35}
                how = filled if alone or not nth else {"lw": 1.8}
                axis.stairs(bins, edges, color=look.colour, label=look.label, **how)
            if log:
                axis.set_yscale("log")
                axis.set_ylim(bottom=0.6 * table.loc[table[height] > 0, height].min())
    return figure


@contextmanager
def _drawn(
    table: pd.DataFrame,
    panels: Names,
    height: float,
    *,
    title: str,
    subtitle: str | None = None,
    xlabel: str | Mapping = "",
    ylabel: str | Mapping = "",
    legend: bool = True,
) -> Iterator[tuple[Figure, list[tuple[Axes, pd.DataFrame]]]]:
    """A figure and its axes (``height`` inches each) with their rows; then words and a legend."""
    of = [list(pd.unique(table[name])) for name in panels] + [[""]] * (2 - len(panels))
    with style():
        shape = {"sharex": "col", "sharey": "row", "squeeze": False}
        figure, axes = plt.subplots(len(of[0]), len(of[1]), **shape)
        parts = []
        for axis, names in zip(axes.flat, itertools.product(*of), strict=True):
            axis.set_title("\n".join(label(name) for name in names if name != ""), fontsize=10.5)
            where, words = axis.get_subplotspec(), (xlabel, ylabel)
            x, y = (w if isinstance(w, str) else next(w[n] for n in names if n in w) for w in words)
            told = {"xlabel": x if where.is_last_row() else ""}
            told["ylabel"] = y if where.is_first_col() else ""
            rows = table
            for column, name in zip(panels, names, strict=False):
                rows = rows[rows[column] == name]
            parts.append((axis, rows, told))
        yield figure, [(axis, rows) for axis, rows, _ in parts]
        found: dict[str, Any] = {}
        for axis, _, told in parts:
            axis.set(**told)
            if legend:
                found = dict(zip(*axis.get_legend_handles_labels()[::-1], strict=True)) | found
        # Lines without data, such as a reference, come last.
        names = sorted(found, key=lambda name: not isinstance(found[name], Container))
        columns = max(1, min(3, 76 // (7 + max(map(len, names), default=0))))
        if names:
            how = {"ncols": columns, "columnspacing": 1.0, "handletextpad": 0.5}
            entries = [found[name] for name in names]
            figure.legend(entries, names, loc="outside lower center", **how)
        lines = -(-len(names) // columns)
        figure.set_figheight(1.15 + 0.22 * lines + height * len(of[0]))
        subtitle = _averaged(table) if subtitle is None else subtitle
        # The empty second line makes the layout keep room for the subtitle.
        head = f"{title}\n" if subtitle else title
        figure.suptitle(head, x=0.01, ha="left", size=12.5, weight="bold")
        below = 1 - 20 / (72 * figure.get_figheight())
        figure.text(0.01, below, subtitle, size=10, color=DARK, va="top")


def _checked(table: pd.DataFrame, keys: Names, columns: Names) -> pd.DataFrame:
    """The table, if it has rows, the columns to be drawn, and its keys only once."""
    if missing := [name for name in (*keys, *columns) if name not in table]:
        raise DataError(f"the table has no column {missing}", f"it has {list(table)}")
    if table.empty:
        raise DataError("the table to be drawn has no row", "choose rows that it has")
    if keys and table.duplicated([*keys]).any():
        raise DataError(f"several rows share their {[*keys]}", "choose one row of each")
    return table


def _series(column: pd.Series, step: float = 0) -> Iterator[tuple[object, Look, float]]:
    """Every value of a column, its look, and an offset that keeps its markers off the others'."""
    found = looks(pd.unique(column))
    for nth, (name, look) in enumerate(found.items()):
        yield name, look, (nth - (len(found) - 1) / 2) * min(step, 0.7 / len(found))


def _intervals(
    axis: Axes,
    at: np.ndarray,
    own: pd.DataFrame,
    look: Look,
    *,
    flat: bool = False,
    mark: Any = None,
) -> None:
    """Points with their intervals, hollow where an interval holds the mark."""
    bars = np.nan_to_num(np.abs([own["mean"] - own["low"], own["high"] - own["mean"]]))
    how = {"xerr" if flat else "yerr": bars, "linestyle": "none" if flat else look.line}
    how |= {"color": look.colour, "marker": look.marker, "elinewidth": 1.6, "lw": 1.3}
    axis.errorbar(*((own["mean"], at) if flat else (at, own["mean"])), label=look.label, **how)
    if mark is not None:
        holds = ~((own["low"] > mark) | (own["high"] < mark)).to_numpy()
        shown = {"color": look.colour, "mfc": "white", "zorder": 3}
        axis.plot(own["mean"][holds], at[holds], look.marker, **shown)


def _averaged(table: pd.DataFrame) -> str:
    """What was averaged, and what the bars are."""
    if "n_assays" not in table:
        return ""
    some = table[table["n_assays"] > 0]
    counted = count(some["n_assays"], "assay") if len(some) else "no assay"
    for column, noun in {
        "n_clusters": "cluster",
        "n_proteins": "protein",
        "n_units": "cluster",
    }.items():
        if column in some and some[column].max() > 0:
            counted += f" of {count(some.loc[some[column] > 0, column], noun)}"
            break
    bars = "95 % interval" if table["low"].notna().any() else "no interval"
    return f"mean of {counted}, {bars}"
