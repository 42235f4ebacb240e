"""Figures of the audit and of the public code's protocol.

Gains are drawn on a logarithmic axis of error ratios, on which a gain and the loss that undoes it
are equally far from zero; its marks are gains.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from mutmeta_lib.app.plots.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    SKY,
    VERMILLION,
    WIDTH,
    draw_intervals,
    legend_below,
    spread,
    style,
    titled,
)

Looks = Mapping[str, tuple[str, str, str]]
"""Series -> how it is called, its colour and its marker."""

TABLES: Looks = {
    "binding_affinity_test": ("binding_affinity", BLUE, "o"),
    "fireprot_dTm_test": ("fireprot_dTm", GREEN, "s"),
    "soluprotmut_solubility_test": ("soluprotmut_solubility", VERMILLION, "^"),
}
GROUPS: Looks = {
    "to proline": ("to proline", VERMILLION, "o"),
    "to another residue": ("to another residue", GREY, "s"),
}
ARMS: Looks = {
    "released": ("as released", VERMILLION, "s"),
    "first_order": ("as described, first order", SKY, "^"),
    "second_order": ("as described, second order", BLUE, "o"),
}
ITSELF: Looks = {"finetuned": ("fine-tuning itself", GREY, "D")}
STRAYING: Looks = ITSELF | {arm: ARMS[arm] for arm in ("released", "second_order")}
WAYS: Looks = {
    "epochs": ("fine-tuning, whole epochs", VERMILLION, "^"),
    "steps": ("fine-tuning, fixed steps", VERMILLION, "v"),
    "meta": ("meta-training", BLUE, "o"),
}
COMPARISONS = {
    "reported": "as reported:\nown rows against all",
    "same_rows": "same query rows",
    "same_labels": "same labels\nand steps",
    "mean": "mean of the\nsupport labels",
}
LEARNERS = {
    "initial": "initial fit",
    "finetuned": "fine-tuning",
    "initial_adapted": "adapted, no\nmeta-training",
    "released": "as released",
    "first_order": "first order",
    "second_order": "second order",
}
PARTS = {
    "encoding": "encoding alone",
    "meta": "meta-training\nalone",
    "interaction": "beyond the two",
    "both": "both together",
}
GAIN = ("gain", "low", "high")
ONE_DRAW = "gain over fine-tuning in one draw (%); dashed: none"
GAINS = (99, 94, 75, 50, 29, 0, -100, -300, -900)
"""Marks of the axis of gains, in %."""


@contextmanager
def _panels(
    title: str, subtitle: str, height: float, rows: int = 1, columns: int = 1, **shared
) -> Iterator[tuple[Figure, np.ndarray]]:
    """A figure with its panels ``(rows, columns)``, titled and with one legend in the end."""
    with style():
        size = (WIDTH, height)
        figure, axes = plt.subplots(rows, columns, squeeze=False, figsize=size, **shared)
        yield figure, axes
        most = max(axes.flat, key=lambda axis: len(axis.get_legend_handles_labels()[1]))
        if most.get_legend_handles_labels()[1]:
            legend_below(figure, most)
        titled(figure, title, subtitle)


def _stacked(
    table: pd.DataFrame,
    names: tuple[str, Mapping[str, str]],
    draw: Callable[[Axes, pd.DataFrame], None],
    height: tuple[float, float],
    title: str,
    subtitle: str,
    xlabel: str,
) -> Figure:
    """One panel per value of a column, below one another; ``height`` is of the frame and a panel.

    ``names`` are the column, and of its values in order how they are called.
    """
    by, called = names
    called = {value: name for value, name in called.items() if value in set(table[by])}
    tall = height[0] + height[1] * len(called)
    with _panels(title, subtitle, tall, len(called), sharex=True) as (figure, axes):
        for axis, (value, name) in zip(axes[:, 0], called.items(), strict=True):
            draw(axis, table[table[by] == value])
            axis.set_title(name, fontsize=10)
        axes[-1, 0].set_xlabel(xlabel)
    return figure


def _targets(table: pd.DataFrame) -> tuple[str, dict[str, str]]:
    return "target", dict(zip(table["target"], table["target"], strict=True))


def _points(
    axis: Axes,
    table: pd.DataFrame,
    places: tuple[str, Mapping],
    series: tuple[str, Looks],
    ends: tuple[str, str, str],
    *,
    step: float = 0.24,
    ratio: bool = False,
    range: tuple[str, str] | None = None,
    horizontal: bool = True,
    elinewidth: float = 2.4,
) -> None:
    """Value and interval of every series at every place, side by side.

    ``places`` and ``series`` are a column and what to draw of it, with names or looks; ``ends``
    are the columns of value, low and high end, ``range`` those of a thin line behind. Gains may be
    drawn as error ratios.
    """
    (column, names), (kind, looks) = places, series
    for name, shift in zip(looks, spread(len(looks), step), strict=True):
        label, colour, marker = looks[name]
        own = table[table[kind] == name].set_index(column).loc[list(names)]
        own = own[[*ends, *(range or ())]]
        own = 1 - own / 100 if ratio else own
        where = np.arange(len(own)) + shift
        if range:
            axis.hlines(where, *(own[end] for end in range), color=colour, lw=1, alpha=0.45)
        value, *outer = (own[end] for end in ends)
        low, high = outer[::-1] if ratio else outer
        how = {"fmt": marker, "color": colour, "label": label, "elinewidth": elinewidth}
        how |= {"mec": "white", "mew": 0.6, "ms": 7}
        draw_intervals(axis, where, value, low, high, horizontal=horizontal, **how)
    if horizontal:
        axis.set_yticks(np.arange(len(names)), list(names.values()), fontsize=9)
        axis.set_ylim(len(names) - 0.4, -0.6)
    else:
        axis.set_xticks(np.arange(len(names)), list(names.values()))


def _gain_axis(axis: Axes, claim: float | None) -> None:
    """A logarithmic axis of error ratios, marked with gains, that grow to the right."""
    axis.axvline(1, color=BLACK, lw=1, ls="--")
    if claim is not None:
        axis.axvline(1 - claim / 100, color=ORANGE, lw=2.2, label="the paper's gain")
    low, high = 0.02, 12
    axis.set_xscale("log")
    marks = [gain for gain in GAINS if low <= 1 - gain / 100 <= high]
    names = [f"{gain}".replace("-", "−") for gain in marks]
    axis.set_xticks([1 - gain / 100 for gain in marks], names)
    axis.xaxis.set_minor_locator(NullLocator())
    axis.tick_params(axis="x", labelsize=9)
    axis.set_xlim(high, low)


def _number(value: float, _) -> str:
    return f"{value:g}"


def signs(proline: pd.DataFrame) -> Figure:
    """Mean label of substitutions to proline and of all others, per kind of measurement."""
    kinds = {kind: kind.replace(" (", "\n(") for kind in proline["kind"]}
    told = "labels of combined_ddG; 95 % intervals over rows"
    with _panels("Which way is up?", told, 1.9 + 0.8 * len(kinds)) as (figure, axes):
        axis, ends = axes[0, 0], ("mean", "low", "high")
        _points(axis, proline, ("kind", kinds), ("group", GROUPS), ends, step=0.42, elinewidth=1.6)
        for group, shift in zip(GROUPS, spread(2, 0.42), strict=True):
            rows = proline[proline["group"] == group].set_index("kind").loc[list(kinds)]
            for at, (mean, n) in enumerate(zip(rows["mean"], rows["rows"], strict=True)):
                above = {"xytext": (0, 5), "textcoords": "offset points", "ha": "center"}
                axis.annotate(f"n = {n:,}", (mean, at + shift), fontsize=8.5, **above)
        axis.axvline(0, color="#444444", lw=0.8)
        axis.set_xlabel("mean label (standard deviations of its source)")
    return figure


def label_tails(labels: pd.DataFrame) -> Figure:
    """How many rows of each test table have which label, on a logarithmic scale of counts."""

    def draw(axis: Axes, table: pd.DataFrame) -> None:
        _bars(axis, table, table["rows"])
        axis.set_yscale("log")
        axis.set_ylim(0.6, None)
        axis.set_ylabel("rows")
        axis.set_title(f"{int(table['rows'].sum()):,} rows", loc="right", fontsize=10)

    told = "test files; one bar is half a standard deviation wide"
    how = ("How far labels reach", told, "label (standard deviations)")
    return _stacked(labels, ("table", _called(TABLES)), draw, (1.3, 1.35), *how)


def query_error_histograms(errors: pd.DataFrame) -> Figure:
    """How often which mean squared error comes out over a few query rows of each test table."""

    def draw(axis: Axes, table: pd.DataFrame) -> None:
        _bars(axis, table, 100 * table["share"])
        axis.axvline(1, color=BLACK, lw=1.2, ls="--")
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(FuncFormatter(_number))
        axis.set_ylabel("% of draws")

    told = f"always saying the mean, scored on {int(errors['query_rows'].iloc[0])} random test rows"
    how = ("One error, many answers", told, "error relative to the error over all rows (dashed: 1)")
    return _stacked(errors, ("table", _called(TABLES)), draw, (1.3, 1.35), *how)


def _called(looks: Looks) -> dict[str, str]:
    return {name: look[0] for name, look in looks.items()}


def _bars(axis: Axes, table: pd.DataFrame, heights: pd.Series) -> None:
    """Bars from ``low`` to ``high`` in the colour of their test table."""
    colour = TABLES[table["table"].iloc[0]][1]
    edge = {"edgecolor": "white", "linewidth": 0.4, "align": "edge", "color": colour}
    axis.bar(table["low"], heights, table["high"] - table["low"], **edge)


def query_error_intervals(queries: pd.DataFrame) -> Figure:
    """Median and middle 95 % of the error over growing numbers of query rows, per test table."""
    looks = {name: look for name, look in TABLES.items() if name in set(queries["table"])}
    sizes = {size: str(size) for size in sorted(set(queries["query_rows"]))}
    told = "always saying the mean; median and middle 95 % of draws"
    with _panels("How many rows does an error need?", told, 4.2) as (figure, axes):
        axis, how = axes[0, 0], {"step": 0.2, "horizontal": False, "elinewidth": 1.6}
        ends = ("q50", "q2_5", "q97_5")
        _points(axis, queries, ("query_rows", sizes), ("table", looks), ends, **how)
        axis.axhline(1, color=BLACK, lw=1.2, ls="--")
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter(FuncFormatter(_number))
        axis.yaxis.set_minor_locator(NullLocator())
        axis.set_xlabel("query rows")
        axis.set_ylabel("error relative to\nthe error over all rows")
    return figure


def gain_draws(ratios: pd.DataFrame, claims: Mapping[str, float], *, subtitle: str = "") -> Figure:
    """How often a single draw shows which gain, per target, as the public code reports it.

    ``claims`` are the paper's gains in % by target, drawn as lines.
    """

    def draw(axis: Axes, table: pd.DataFrame) -> None:
        for method, (label, colour, _) in STRAYING.items():
            part = table[table["method"] == method]
            edges = [*part["low"], part["high"].iloc[-1]]
            filled = {"fill": True, "alpha": 0.35} if method in ITSELF else {"lw": 1.8}
            axis.stairs(100 * part["share"], edges, color=colour, label=label, **filled)
        axis.set_ylabel("% of draws")
        _gain_axis(axis, claims.get(table["target"].iloc[0]))

    how = ("One draw, many answers", subtitle, ONE_DRAW)
    return _stacked(ratios, _targets(ratios), draw, (2.2, 1.5), *how)


def gain_intervals(
    gains: pd.DataFrame, claims: Mapping[str, float], *, subtitle: str = ""
) -> Figure:
    """Gain per target, comparison and arm: interval of the mean, and range of single draws."""

    def draw(axis: Axes, table: pd.DataFrame) -> None:
        how = {"ratio": True, "range": ("q97_5", "q2_5"), "elinewidth": 3}
        _points(axis, table, ("against", COMPARISONS), ("method", ARMS), GAIN, **how)
        _gain_axis(axis, claims.get(table["target"].iloc[0]))

    xlabel = "gain (%); thin: 95 % of single draws; dashed: none"
    how = ("What remains when the comparison is fair", subtitle, xlabel)
    return _stacked(gains, _targets(gains), draw, (1.9, 2.3), *how)


def spread_and_rows(gains: pd.DataFrame, *, subtitle: str = "") -> Figure:
    """Range of the gain that single draws report, per target, by the rows of a draw."""

    def draw(axis: Axes, table: pd.DataFrame) -> None:
        sizes = {size: str(size) for size in sorted(set(table["size"]))}
        how = {"ratio": True, "range": ("q97_5", "q2_5"), "elinewidth": 4}
        _points(axis, table, ("size", sizes), ("method", STRAYING), ("q50", "q25", "q75"), **how)
        axis.set_ylabel("rows")
        _gain_axis(axis, None)

    table = gains[gains["against"] == "reported"]
    how = ("How far one draw strays", subtitle, ONE_DRAW)
    return _stacked(table, _targets(table), draw, (1.8, 1.6), *how)


def gain_shares(shares: pd.DataFrame, *, subtitle: str = "") -> Figure:
    """What encoding and meta-training save of the error alone and together, per target and arm."""

    def draw(axis: Axes, table: pd.DataFrame) -> None:
        _points(axis, table, ("part", PARTS), ("method", ARMS), GAIN)
        axis.axvline(0, color=BLACK, lw=1, ls="--")

    how = ("Two by two", subtitle, "error saved (%); dashed: none")
    return _stacked(shares, _targets(shares), draw, (1.9, 1.9), *how)


def gains_and_rows(gains: pd.DataFrame, *, subtitle: str = "") -> Figure:
    """Gain of every arm on equal terms, per target, against the rows of a draw."""
    fair = {"same_rows": "same query rows", "same_labels": "same labels and steps"}
    targets = list(dict.fromkeys(gains["target"]))
    sizes = {size: str(size) for size in sorted(set(gains["size"]))}
    size = (1.9 + 1.7 * len(targets), len(targets), 2)
    shared = {"sharex": True, "sharey": "row"}
    with _panels("More rows, the same answer", subtitle, *size, **shared) as (figure, axes):
        for row, target in zip(axes, targets, strict=True):
            for axis, against in zip(row, fair, strict=True):
                part = gains[(gains["target"] == target) & (gains["against"] == against)]
                how = {"step": 0.2, "horizontal": False, "elinewidth": 2}
                _points(axis, part, ("size", sizes), ("method", ARMS), GAIN, **how)
                axis.axhline(0, color=BLACK, lw=1, ls="--")
                axis.set_xlim(-0.5, len(sizes) - 0.5)
                axis.grid(axis="x", visible=False)
            row[0].set_ylabel(f"{target}\ngain (%)", fontsize=9)
        for top, bottom, name in zip(axes[0], axes[-1], fair.values(), strict=True):
            top.set_title(name, fontsize=10)
            bottom.set_xlabel("rows of a draw", fontsize=10)
    return figure


def encoding_gains(encodings: pd.DataFrame, *, subtitle: str = "") -> Figure:
    """Error saved and rank correlation gained by the first encoding, per target and method."""
    targets = list(dict.fromkeys(encodings["target"]))
    ranks = ("spearman", "spearman_low", "spearman_high")
    measures = {"less error (%)": GAIN, "higher rank\ncorrelation": ranks}
    size = (1.2 + 2.1 * len(targets), len(targets), 2)
    shared = {"sharex": "col", "sharey": True}
    with _panels("What the encoding changes", subtitle, *size, **shared) as (figure, axes):
        for row, target in zip(axes, targets, strict=True):
            own = encodings[encodings["target"] == target]
            one = {target: ("_", GREEN, "o")}  # a name that the legend leaves out
            for axis, (name, ends) in zip(row, measures.items(), strict=True):
                _points(axis, own, ("method", LEARNERS), ("target", one), ends)
                axis.axvline(0, color=BLACK, lw=1, ls="--")
                axis.set_title(target if ends is GAIN else " ", fontsize=10)
                if target == targets[-1]:
                    axis.set_xlabel(name, fontsize=10)
    return figure


def time_and_rows(times: pd.DataFrame, *, subtitle: str = "") -> Figure:
    """Processor seconds, and the error reached, against the number of rows of a data set."""
    rows = sorted(set(times["rows"]))
    told = ("Time follows the number of steps", subtitle)
    with _panels(*told, 5.4, 2, sharex=True) as (figure, axes):
        seconds, error = axes[:, 0]
        for axis, what in ((seconds, "seconds"), (error, "mse")):
            for way, (label, colour, marker) in WAYS.items():
                over = (
                    times[times["method"] == way].groupby("rows")[what].agg(["mean", "min", "max"])
                )
                how = {"ls": ":" if way == "steps" else "-", "color": colour, "label": label}
                ends = (over[end] for end in over)
                draw_intervals(axis, over.index, *ends, fmt=marker, **how)
            axis.set_xscale("log")
            axis.set_xticks(rows, [f"{n:,}" for n in rows])
            axis.xaxis.set_minor_locator(NullLocator())
        seconds.set_yscale("log")
        seconds.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        seconds.yaxis.set_minor_locator(NullLocator())
        seconds.yaxis.set_major_formatter(FuncFormatter(_number))
        seconds.set_ylabel("processor seconds")
        error.set_ylabel("error (sd²),\nsame query rows")
        error.set_xlabel("rows of a data set")
    return figure
