"""Figures of the audit: signs of labels, their tails, and errors over a few query rows."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from mutmeta_lib.app.plots.style import (
    BLUE,
    GREEN,
    GREY,
    VERMILLION,
    WIDTH,
    draw_intervals,
    legend_below,
    spread,
    style,
    titled,
)

TARGETS = {
    "binding_affinity_test": ("binding_affinity", BLUE, "o"),
    "fireprot_dTm_test": ("fireprot_dTm", GREEN, "s"),
    "soluprotmut_solubility_test": ("soluprotmut_solubility", VERMILLION, "^"),
}
"""Test table -> its name, colour and marker."""


def signs(proline: pd.DataFrame, *, title: str = "Which way is up?") -> Figure:
    """Mean label of substitutions to proline and of all others, per kind of measurement.

    ``proline`` has columns kind, group, rows, mean, low, high.
    """
    kinds = list(dict.fromkeys(proline["kind"]))
    looks = (("to proline", VERMILLION, "o"), ("to another residue", GREY, "s"))
    with style():
        figure, axis = plt.subplots(figsize=(WIDTH, 1.9 + 0.8 * len(kinds)))
        for (group, colour, marker), shift in zip(looks, spread(2, 0.42), strict=True):
            table = proline[proline["group"] == group].set_index("kind").loc[kinds]
            where = [at + shift for at in range(len(kinds))]
            draw_intervals(
                axis,
                where,
                table["mean"],
                table["low"],
                table["high"],
                horizontal=True,
                fmt=marker,
                color=colour,
                label=group,
            )
            for at, mean, rows in zip(where, table["mean"], table["rows"], strict=True):
                axis.annotate(
                    f"n = {rows:,}",
                    (mean, at),
                    xytext=(0, 5),
                    textcoords="offset points",
                    ha="center",
                    fontsize=8.5,
                )
        axis.axvline(0, color="#444444", lw=0.8)
        axis.set_yticks(range(len(kinds)), [kind.replace(" (", "\n(") for kind in kinds])
        axis.set_ylim(len(kinds) - 0.4, -0.6)
        axis.set_xlabel("mean label (standard deviations of its source)")
        legend_below(figure, axis)
        titled(figure, title, "labels of combined_ddG; 95 % intervals over rows")
    return figure


def label_tails(labels: pd.DataFrame, *, title: str = "How far labels reach") -> Figure:
    """How many rows of each test table have which label, on a logarithmic scale of counts.

    ``labels`` has columns table, low, high, rows: one row per bin that is not empty.
    """

    def draw(axis: Axes, table: pd.DataFrame, colour: str) -> None:
        axis.bar(table["low"], table["rows"], table["high"] - table["low"], 0, align="edge")
        for bar in axis.patches:
            bar.set(color=colour, edgecolor="white", linewidth=0.4)
        axis.set_yscale("log")
        axis.set_ylim(0.6, None)
        axis.set_ylabel("rows")
        axis.set_title(f"{int(table['rows'].sum()):,} rows", loc="right", fontsize=10)

    figure = _panels(labels, draw, "label (standard deviations)")
    titled(figure, title, "test files; one bar is half a standard deviation wide")
    return figure


def query_error_histograms(
    errors: pd.DataFrame, *, title: str = "One error, many answers"
) -> Figure:
    """How often which mean squared error comes out over a few query rows of each test table.

    ``errors`` has columns table, query_rows, low, high, share.
    """

    def draw(axis: Axes, table: pd.DataFrame, colour: str) -> None:
        width = table["high"] - table["low"]
        axis.bar(table["low"], 100 * table["share"], width, align="edge", color=colour)
        axis.axvline(1, color="black", lw=1.2, ls="--")
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axis.set_ylabel("% of draws")

    rows = int(errors["query_rows"].iloc[0])
    figure = _panels(errors, draw, "error relative to the error over all rows (dashed: 1)")
    titled(figure, title, f"always saying the mean, scored on {rows} random test rows")
    return figure


def query_error_intervals(
    queries: pd.DataFrame, *, title: str = "How many rows does an error need?"
) -> Figure:
    """Median and middle 95 % of the error over growing numbers of query rows, per test table.

    ``queries`` has columns table, query_rows, q2_5, q50, q97_5.
    """
    names = [name for name in TARGETS if name in set(queries["table"])]
    with style():
        figure, axis = plt.subplots(figsize=(WIDTH, 4.2))
        for name, shift in zip(names, spread(len(names), 0.2), strict=True):
            text, colour, marker = TARGETS[name]
            table = queries[queries["table"] == name].sort_values("query_rows")
            draw_intervals(
                axis,
                [at + shift for at in range(len(table))],
                table["q50"],
                table["q2_5"],
                table["q97_5"],
                fmt=marker,
                color=colour,
                label=text,
            )
            axis.set_xticks(range(len(table)), [str(rows) for rows in table["query_rows"]])
        axis.axhline(1, color="black", lw=1.2, ls="--")
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
        axis.yaxis.set_minor_locator(NullLocator())
        axis.set_xlabel("query rows")
        axis.set_ylabel("error relative to\nthe error over all rows")
        legend_below(figure, axis, columns=2)
        titled(figure, title, "always saying the mean; median and middle 95 % of draws")
    return figure


def _panels(table: pd.DataFrame, draw, xlabel: str) -> Figure:
    """One panel per test table, below one another, with one x-axis."""
    names = [name for name in TARGETS if name in set(table["table"])]
    with style():
        figure, axes = plt.subplots(
            len(names), 1, sharex=True, squeeze=False, figsize=(WIDTH, 1.3 + 1.35 * len(names))
        )
        for axis, name in zip(axes[:, 0], names, strict=True):
            text, colour, _ = TARGETS[name]
            draw(axis, table[table["table"] == name], colour)
            axis.set_title(text, fontsize=10)
        axes[-1, 0].set_xlabel(xlabel)
    return figure
