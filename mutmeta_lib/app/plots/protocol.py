"""Figures of the protocol: gains of single draws, gains over draws, and time against rows.

Gains are drawn on a logarithmic axis of error ratios, on which a gain and the loss that undoes it
are equally far from zero; its marks are gains.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from mutmeta_lib.app.plots.style import (
    BLACK,
    BLUE,
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

METHODS = {
    "released": ("as released", VERMILLION, "s"),
    "first_order": ("as described, first order", SKY, "^"),
    "second_order": ("as described, second order", BLUE, "o"),
    "finetuned": ("fine-tuning itself", GREY, "D"),
}
"""Method -> how it is called and drawn."""

COMPARISONS = {
    "reported": "as reported:\nown rows against all",
    "same_rows": "same query rows",
    "same_labels": "same labels\nand steps",
    "mean": "mean of the\nsupport labels",
}

GAINS = (99, 94, 75, 50, 29, 0, -100, -300, -900)
"""Marks of the axis, in %."""

DRAWN = ["gain", "low", "high", "q2_5", "q97_5"]


def draw_arm(
    axis: Axes, where: Sequence[float], rows: Mapping[str, Sequence[float]], arm: str, **options
) -> None:
    """An arm's ``gain``, ``low`` and ``high`` in its own look."""
    name, colour, marker = METHODS[arm]
    ends = (rows["gain"], rows["low"], rows["high"])
    draw_intervals(axis, where, *ends, fmt=marker, color=colour, label=name, **options)


def gain_axis(axis: Axes, low: float, high: float) -> None:
    """A logarithmic axis of error ratios from ``low`` to ``high``, marked with gains."""
    axis.set_xscale("log")
    marks = [gain for gain in GAINS if low <= 1 - gain / 100 <= high]
    names = [f"{gain}".replace("-", "−") for gain in marks]
    axis.set_xticks([1 - gain / 100 for gain in marks], names)
    axis.xaxis.set_minor_locator(NullLocator())
    axis.tick_params(axis="x", labelsize=9)
    axis.set_xlim(high, low)


def gain_draws(
    ratios: pd.DataFrame,
    claims: dict[str, dict[str, float]],
    *,
    title: str = "One draw, many answers",
    subtitle: str = "",
) -> Figure:
    """How often a single draw shows which gain, per target, as the public code reports it.

    Args:
        ratios: Columns target, method, against, low, high, share: bins of the error ratio.
        claims: Target -> ``{"accuracy": gain in %}``, drawn as a line.
        title: Title of the figure.
        subtitle: What was run, in smaller letters.

    """
    table = ratios[ratios["against"] == "reported"]
    targets = list(dict.fromkeys(table["target"]))
    with style():
        figure, axes = plt.subplots(
            len(targets), 1, sharex=True, squeeze=False, figsize=(WIDTH, 2.2 + 1.5 * len(targets))
        )
        for axis, target in zip(axes[:, 0], targets, strict=True):
            for method in ("finetuned", "released", "second_order"):
                part = table[(table["target"] == target) & (table["method"] == method)]
                name, colour, _ = METHODS[method]
                edges = [*part["low"], part["high"].iloc[-1]]
                filled = {"fill": True, "alpha": 0.35} if method == "finetuned" else {"lw": 1.8}
                axis.stairs(100 * part["share"], edges, color=colour, label=name, **filled)
            axis.axvline(1, color=BLACK, lw=1, ls="--")
            if "accuracy" in claims.get(target, {}):
                claim = claims[target]["accuracy"]
                axis.axvline(1 - claim / 100, color=ORANGE, lw=2.2, label="the paper's gain")
            axis.set_title(target, fontsize=10)
            axis.set_ylabel("% of draws")
            gain_axis(axis, 0.02, 12)
        axes[-1, 0].set_xlabel("gain over fine-tuning in one draw (%); dashed: none")
        legend_below(figure, max(axes[:, 0], key=lambda a: len(a.get_legend_handles_labels()[1])))
        titled(figure, title, subtitle)
    return figure


def gain_intervals(
    gains: pd.DataFrame,
    claims: dict[str, dict[str, float]],
    *,
    title: str = "What remains when the comparison is fair",
    subtitle: str = "",
) -> Figure:
    """Gain per target, comparison and arm: interval of the mean, and range of single draws.

    ``gains`` has columns target, method, against, gain, low, high, q2_5, q97_5, in %.
    """
    targets = list(dict.fromkeys(gains["target"]))
    arms = ("released", "first_order", "second_order")
    with style():
        figure, axes = plt.subplots(
            len(targets), 1, sharex=True, squeeze=False, figsize=(WIDTH, 1.9 + 2.3 * len(targets))
        )
        for axis, target in zip(axes[:, 0], targets, strict=True):
            for arm, shift in zip(arms, spread(len(arms), 0.24), strict=True):
                part = gains[(gains["target"] == target) & (gains["method"] == arm)]
                part = part.set_index("against").loc[list(COMPARISONS)]
                where = np.arange(len(part)) + shift
                ratio = 1 - part[DRAWN] / 100
                colour = METHODS[arm][1]
                axis.hlines(where, ratio["q97_5"], ratio["q2_5"], color=colour, lw=1, alpha=0.45)
                ratio = ratio.rename(columns={"low": "high", "high": "low"})
                draw_arm(axis, where, ratio, arm, horizontal=True, elinewidth=3)
            axis.axvline(1, color=BLACK, lw=1, ls="--")
            if "accuracy" in claims.get(target, {}):
                claim = claims[target]["accuracy"]
                axis.axvline(1 - claim / 100, color=ORANGE, lw=2.2, label="the paper's gain")
            axis.set_yticks(range(len(COMPARISONS)), list(COMPARISONS.values()), fontsize=9)
            axis.set_ylim(len(COMPARISONS) - 0.4, -0.6)
            axis.set_title(target, fontsize=10)
            gain_axis(axis, 0.02, 12)
        axes[-1, 0].set_xlabel("gain (%); thin: middle 95 % of single draws; dashed: none")
        legend_below(figure, max(axes[:, 0], key=lambda a: len(a.get_legend_handles_labels()[1])))
        titled(figure, title, subtitle)
    return figure


WAYS = {
    "epochs": ("fine-tuning, whole epochs", VERMILLION, "^", "-"),
    "steps": ("fine-tuning, fixed steps", VERMILLION, "v", ":"),
    "meta": ("meta-training", BLUE, "o", "-"),
}
"""Way of training -> how it is called and drawn."""


def time_and_rows(
    times: pd.DataFrame, *, title: str = "Time follows the number of steps", subtitle: str = ""
) -> Figure:
    """Processor seconds, and the error reached, against the number of rows of a data set.

    ``times`` has columns rows, method, seconds, mse, seed.
    """
    with style():
        figure, axes = plt.subplots(2, 1, sharex=True, figsize=(WIDTH, 5.4))
        for method, (name, colour, marker, line) in WAYS.items():
            by_rows = times[times["method"] == method].groupby("rows")
            for axis, what in zip(axes, ("seconds", "mse"), strict=True):
                mean, low, high = by_rows[what].mean(), by_rows[what].min(), by_rows[what].max()
                draw_intervals(
                    axis,
                    mean.index,
                    mean,
                    low,
                    high,
                    fmt=marker,
                    ls=line,
                    color=colour,
                    label=name,
                )
        rows = sorted(set(times["rows"]))
        for axis in axes:
            axis.set_xscale("log")
            axis.set_xticks(rows, [f"{n:,}" for n in rows])
            axis.xaxis.set_minor_locator(NullLocator())
        axes[0].set_yscale("log")
        axes[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes[0].yaxis.set_minor_locator(NullLocator())
        axes[0].yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
        axes[0].set_ylabel("processor seconds")
        axes[1].set_ylabel("error (sd²),\nsame query rows")
        axes[1].set_xlabel("rows of a data set")
        legend_below(figure, axes[0], columns=1)
        titled(figure, title, subtitle)
    return figure
