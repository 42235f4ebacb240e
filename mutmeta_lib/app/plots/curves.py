"""Curves: a metric, a loss or a time against labels or steps."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mutmeta_lib.app.plots.style import (
    WIDTH,
    draw_method,
    legend_below,
    look,
    spread,
    style,
    titled,
)
from mutmeta_lib.app.plots.wording import averaged, count, metric_label, metric_name, of_metric

CHANCE = {"spearman": (0.0, "random order"), "relative_mse": (1.0, "mean of the scores")}
"""Metric -> the value that no knowledge at all gives, and its name."""


def few_shot_curves(
    summary: pd.DataFrame, metric: str = "spearman", *, title: str | None = None
) -> Figure:
    """A metric against the number of labels, one line per method, with intervals.

    ``summary`` comes from ``evaluate.summarise``; if it has a column ``metric``, its rows of this
    metric are drawn. Shots are spaced evenly, so that 0 and 1 stay apart; methods are set side by
    side so that no interval hides another. Values that are not defined are left out.
    """
    table = of_metric(summary, metric)
    shots = sorted(table["shots"].unique())
    methods = list(pd.unique(table["method"]))
    with style():
        figure, axis = plt.subplots(figsize=(WIDTH, 4.0 + 0.25 * (len(methods) // 2 + 1)))
        for method, shift in zip(methods, spread(len(methods), 0.62 / len(methods)), strict=True):
            rows = table[table["method"] == method].set_index("shots").reindex(shots)
            draw_method(axis, np.arange(len(shots)) + shift, rows, method, lw=1.3)
        if metric in CHANCE:
            _reference_line(axis, *CHANCE[metric])
        axis.set_xticks(range(len(shots)), [str(k) for k in shots])
        axis.set_xlim(-0.5, len(shots) - 0.5)
        axis.grid(visible=False, axis="x")
        axis.set_xlabel("labelled variants of the new assay (shots)")
        axis.set_ylabel(metric_label(metric))
        _log_if_wide(axis, table)
        legend_below(figure, axis)
        titled(figure, title or f"{metric_name(metric)} against labels", averaged(table))
    return figure


def training_curve(history: pd.DataFrame, *, title: str = "Meta-training") -> Figure:
    """Validation loss (points, thick) and training loss (thin) against meta-steps, per method.

    ``history`` has columns method, step, train_loss, validation_loss (NaN where not taken). Rows
    that share a method and a step are runs (seeds, folds): their mean is drawn with a band from
    the lowest to the highest. Training loss is a running median over a twentieth of the steps.
    Both are mean squared errors of labels scaled by their support set.
    """
    runs = history.groupby(["method", "step"]).size()
    with style():
        figure, axis = plt.subplots(figsize=(WIDTH, 4.1))
        for method in pd.unique(history["method"]):
            seen = look(method)
            rows = history[history["method"] == method].groupby("step")
            train = rows["train_loss"].mean()
            smooth = train.rolling(max(1, len(train) // 20), center=True, min_periods=1).median()
            axis.plot(smooth.index, smooth, color=seen.colour, lw=0.8, alpha=0.7)
            checked = rows["validation_loss"].agg(["mean", "min", "max"]).dropna()
            axis.plot(
                checked.index,
                checked["mean"],
                color=seen.colour,
                marker=seen.marker,
                linestyle=seen.line,
                lw=1.8,
                label=f"{seen.label}",
            )
            if runs.max() > 1:
                axis.fill_between(
                    checked.index,
                    checked["min"],
                    checked["max"],
                    color=seen.colour,
                    alpha=0.15,
                    lw=0,
                )
        axis.plot([], [], color="#777777", lw=0.8, label="thin: training tasks")
        axis.axhline(
            1, color="#444444", lw=1, linestyle=(0, (1, 2)), label="variance of the labels"
        )
        axis.set_xlabel("meta-step")
        axis.set_ylabel("query loss (no unit)")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        legend_below(figure, axis)
        band = "" if runs.max() == 1 else ", band: lowest to highest"
        titled(figure, title, f"validation tasks, {count(runs, 'run')} per method{band}")
    return figure


def timing_curve(
    seconds: pd.DataFrame,
    *,
    title: str = "Seconds to adapt, against labels",
    ylabel: str = "wall-clock time per assay (s)",
) -> Figure:
    """Seconds against the number of labels, both logarithmic, one line per method.

    ``seconds`` comes from ``evaluate.summarise(table, "seconds_adapt")``.
    """
    sizes = sorted(seconds["shots"].unique())
    methods = list(pd.unique(seconds["method"]))
    with style():
        figure, axis = plt.subplots(figsize=(WIDTH, 3.9 + 0.25 * ((len(methods) + 1) // 2)))
        for method, shift in zip(methods, spread(len(methods), 0.02), strict=True):
            rows = seconds[seconds["method"] == method].sort_values("shots")
            draw_method(axis, rows["shots"] * np.exp(shift), rows, method)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xticks(sizes, [str(size) for size in sizes])
        axis.minorticks_off()
        axis.set_xlabel("labelled variants of the new assay")
        axis.set_ylabel(ylabel)
        legend_below(figure, axis)
        titled(figure, title, averaged(seconds))
    return figure


def _reference_line(axis: Axes, value: float, name: str) -> None:
    axis.axhline(value, color="#444444", lw=1, linestyle=(0, (1, 2)), label=name)


def _log_if_wide(axis: Axes, table: pd.DataFrame) -> None:
    """Errors that span more than a factor of 20 are read on a logarithmic axis."""
    values = table[["mean", "low", "high"]].stack().dropna()
    if len(values) and values.min() > 0 and values.max() / values.min() > 20:
        axis.set_yscale("log")
