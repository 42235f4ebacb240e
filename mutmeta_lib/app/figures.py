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
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.container import Container
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Patch

from mutmeta_lib.app.style import PALETTE, ROLES, TOKEN_KINDS, Look, count, label, looks, style
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


def distribution(
    table: pd.DataFrame, x: str, rows: str, by: str, *, panels: Names, **words
) -> Figure:
    """Values of each row as boxes (median, middle half, middle 90 %), sorted by median.

    They are coloured by ``by`` if that has few values; panels share no axis.
    """
    table = _checked(table, [], [x, rows, by, *panels])
    colours = {name: look.colour for name, look, _ in _series(table[by])}
    few = len(colours) <= len(PALETTE)
    handles = [Patch(color=colour, label=label(name)) for name, colour in colours.items() if few]
    sizes = table.groupby([*panels], sort=False)[rows].nunique().clip(lower=3).to_numpy()
    height = 0.75 + min(0.2, 7 / sizes.sum()) * sizes.mean()
    shape = {"height_ratios": sizes, "sharex": False, "sharey": False}
    boxes = {"x": x, "y": rows, "orient": "h", "width": 0.6, "linewidth": 0.9, "legend": False}
    boxes |= {"whis": (5, 95), "showfliers": False, "saturation": 1}
    boxes |= {"hue": by, "palette": colours} if few else {"color": PALETTE[0]}
    with _drawn(table, panels, height, handles=handles, shape=shape, **words) as (figure, parts):
        for axis, part in parts:
            order = part.groupby(rows)[x].median().sort_values(kind="stable").index
            sns.boxplot(part, order=order, ax=axis, **boxes)
            axis.set_yticks([])
            axis.set_ylim(len(order) - 0.4, -0.6)
            counted = f"{count([len(order)], rows)}, {count([len(part)], 'variant')}"
            axis.set_title(f"{axis.get_title('left')}: {counted}", fontsize=10)
    return figure


def split_overview(split: pd.DataFrame, **words) -> Figure:
    """Which proteins each fold trains on, validates on and tests on, with numbers of assays.

    ``split`` has a row per fold and assay: fold, role (of `ROLES`), assay and protein. More than 30
    proteins are counted by role.
    """
    split = _checked(split, [], ["fold", "role", "assay", "protein"])
    row = "protein" if split["protein"].nunique() <= 30 else "role"
    cells = split.groupby([row, "fold"]).agg({"role": "first", "assay": "nunique"}).unstack()
    tested = split[split["role"] == "test"].groupby("protein")["fold"].first()
    order = sorted(cells.index, key=lambda name: (tested.get(name, np.inf), name))
    cells = cells.loc[order if row == "protein" else [r for r in ROLES if r in cells.index]]
    numbers = cells["assay"].map(lambda n: count([n], "assay"), na_action="ignore").fillna("")
    told = [count([split[noun].nunique()], noun) for noun in ("assay", "protein", "fold")]
    words = {"subtitle": "{} of {}, {}".format(*told), "xlabel": "fold", "ylabel": row, **words}
    handles = [Patch(color=c, alpha=0.75, label=f"meta-{role}") for role, c in ROLES.items()]
    size = 0.6 + 0.3 * len(cells)
    with _drawn(split, (), size, handles=handles, **words) as (figure, [(axis, _)]):
        kinds = cells["role"].apply(lambda c: c.map([*ROLES].index, na_action="ignore"))
        how = {"cmap": ListedColormap([*ROLES.values()]), "vmin": 0, "vmax": 2, "alpha": 0.75}
        how |= {"annot": numbers, "annot_kws": {"size": 10, "color": "black"}, "fmt": ""}
        sns.heatmap(kinds.astype(float), linewidths=2, cbar=False, ax=axis, **how)
        axis.set_yticks(axis.get_yticks(), [label(name) for name in cells.index], rotation=0)
    return figure


def tokens(table: pd.DataFrame, **words) -> Figure:
    """Tokens (a row each: encoding, token and kind, of `TOKEN_KINDS`) as boxes, 12 to a line."""
    table = _checked(table, [], ["encoding", "token", "kind"])
    groups = list(table.groupby("encoding", sort=False))
    height = sum(-(-len(group) // 12) + 1.1 for _, group in groups)
    edge = {"edgecolor": "#888888", "lw": 0.6}
    used = [kind for kind in TOKEN_KINDS if kind in set(table["kind"])]
    handles = [Patch(facecolor=TOKEN_KINDS[kind], label=kind, **edge) for kind in used]
    words = {"subtitle": "", **words}
    with _drawn(table, (), 0.36 * height, handles=handles, **words) as (figure, [(axis, _)]):
        line = 0.0
        for encoding, group in groups:
            named = f"{encoding} ({count([len(group)], 'token')})"
            axis.text(0, line, named, va="center", fontweight="bold", fontsize=10)
            for nth, (token, kind) in enumerate(zip(group["token"], group["kind"], strict=True)):
                x, y = nth % 12, line + 1 + nth // 12
                box = {"facecolor": TOKEN_KINDS[kind], "boxstyle": "round,pad=0,rounding_size=0.12"}
                axis.add_patch(FancyBboxPatch((x + 0.04, y - 0.34), 0.92, 0.68, **box, **edge))
                size = 9 if len(token) > 1 else 10
                axis.text(x + 0.5, y, token, ha="center", va="center", fontsize=size)
            line += -(-len(group) // 12) + 1.1
        axis.set(xlim=(0, 12), ylim=(line - 0.4, -0.6))
        axis.set_axis_off()
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
    handles: Sequence[Patch] = (),
    shape: Mapping = {"sharex": "col", "sharey": "row"},
) -> Iterator[tuple[Figure, list[tuple[Axes, pd.DataFrame]]]]:
    """A figure and its axes (``height`` inches each) with their rows; then words and a legend."""
    of = [list(pd.unique(table[name])) for name in panels] + [[""]] * (2 - len(panels))
    with style():
        figure, axes = plt.subplots(len(of[0]), len(of[1]), squeeze=False, **shape)
        parts = []
        for axis, names in zip(axes.flat, itertools.product(*of), strict=True):
            axis.set_title("\n".join(label(name) for name in names if name != ""), fontsize=10.5)
            where, words = axis.get_subplotspec(), (xlabel, ylabel)
            x, y = (w if isinstance(w, str) else next(w[n] for n in names if n in w) for w in words)
            told = {"xlabel": x if where.is_last_row() or not shape["sharex"] else ""}
            told["ylabel"] = y if where.is_first_col() else ""
            rows = table
            for column, name in zip(panels, names, strict=False):
                rows = rows[rows[column] == name]
            parts.append((axis, rows, told))
        yield figure, [(axis, rows) for axis, rows, _ in parts]
        found = {handle.get_label(): handle for handle in handles}
        for axis, _, told in parts:
            axis.set(**told)
            if legend and not handles:
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
