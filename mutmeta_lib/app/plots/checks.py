"""Figures of the checks on frozen encoders: adaptation step by step, its bill, and forests."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mutmeta_lib.app.plots.style import (
    PALETTE,
    WIDTH,
    draw_method,
    draw_row,
    legend_below,
    look,
    spread,
    style,
    titled,
)
from mutmeta_lib.app.plots.wording import averaged, count


def adaptation_curves(
    table: pd.DataFrame, along: str, metric: str, *, title: str, xlabel: str, ylabel: str
) -> Figure:
    """A metric along adaptation, one panel per number of labels, one line per start.

    ``table`` has columns labels, method, metric, mean, low, high, n_assays, n_clusters, and the one
    named by ``along``. Places are spaced evenly, so that the first steps can be told apart.
    """
    table = table[table["metric"] == metric]
    panels, places = sorted(table["labels"].unique()), sorted(table[along].unique())
    methods = list(pd.unique(table["method"]))
    with style():
        figure, axes = plt.subplots(
            len(panels), 1, sharex=True, squeeze=False, figsize=(WIDTH, 1.5 + 2.3 * len(panels))
        )
        for axis, labels in zip(axes[:, 0], panels, strict=True):
            axis.axhline(0, color="#444444", lw=1, linestyle=(0, (1, 2)))
            for method, shift in zip(methods, spread(len(methods), 0.12), strict=True):
                here = table[(table["labels"] == labels) & (table["method"] == method)]
                here = here.set_index(along).reindex(places)
                draw_method(axis, np.arange(len(places)) + shift, here, method, lw=1.3)
            axis.set_xticks(range(len(places)), [f"{place:g}" for place in places])
            axis.set_ylabel(ylabel)
            axis.set_title(count([labels], "label"), fontsize=11)
        axes[-1, 0].set_xlabel(xlabel)
        legend_below(figure, axes[0, 0], columns=1)
        titled(figure, title, averaged(table, column="n_clusters", noun="protein cluster"))
    return figure


def shared_bill(
    numbers: Mapping[str, dict], arms: Sequence[str], labels: int, tasks: Sequence[int], title: str
) -> Figure:
    """The share of time saved per new assay, by how many assays share meta-training.

    ``numbers`` holds ``saved_<arm>_<labels>_over_<n>`` and ``saved_<arm>_<labels>`` (meta-training
    left out). Shares below -100 % (twice the time and more) are drawn at the lower edge.
    """
    names = [f"{n:,}" for n in tasks] + ["not\ncounted"]
    with style():
        figure, axis = plt.subplots(figsize=(WIDTH, 4.2))
        axis.axhline(0, color="#444444", lw=1, linestyle=(0, (1, 2)))
        for arm, shift in zip(arms, spread(len(arms), 0.16), strict=True):
            keys = [f"saved_{arm}_{labels}_over_{n}" for n in tasks] + [f"saved_{arm}_{labels}"]
            ends = [[numbers[key][end] for key in keys] for end in ("value", "low", "high")]
            low = [-np.inf if value is None else value for value in ends[1]]
            value, low, high = (
                100 * np.clip(np.array(v, dtype=float), -1, 1) for v in (ends[0], low, ends[2])
            )
            rows = {"mean": value, "low": low, "high": high}
            draw_method(axis, np.arange(len(keys)) + shift, rows, arm)
        axis.set_xticks(range(len(names)), names)
        axis.set_ylim(-110, 105)
        axis.set_xlabel("new assays that share the bill of meta-training")
        axis.set_ylabel("time saved per new assay (%)")
        legend_below(figure, axis, columns=1)
        titled(
            figure, title, f"{count([labels], 'label')}; at the lower edge: twice the time or more"
        )
    return figure


def forest(
    table: pd.DataFrame, rows: str, colours: str, *, title: str, xlabel: str, columns: int = 2
) -> Figure:
    """Means with intervals: one line of the figure per value of ``rows``, one colour per other.

    An interval that holds zero is drawn hollow. ``table`` has mean, low, high, n_assays and
    n_proteins (clusters) beside the two named columns.
    """
    names, kinds = list(pd.unique(table[rows])), list(pd.unique(table[colours]))
    with style():
        height = 2.0 + len(names) * max(0.34, 0.19 * len(kinds))
        figure, axis = plt.subplots(figsize=(WIDTH, height))
        axis.axvline(0, color="#444444", lw=1)
        for place, kind in enumerate(kinds):
            seen = look(str(kind))
            known = seen.label != str(kind)
            colour = seen.colour if known else PALETTE[place % len(PALETTE)]
            marker = seen.marker if known else "osD^vPX*"[place % 8]
            here = table[table[colours] == kind].set_index(rows).reindex(names)
            shift = spread(len(kinds), min(0.2, 0.7 / len(kinds)))[place]
            for at, row in enumerate(here.itertuples()):
                draw_row(axis, at + shift, row, color=colour, marker=marker)
            label = seen.label if known else str(kind).replace("_", " ")
            axis.plot([], [], color=colour, marker=marker, linestyle="none", label=label)
        axis.set_yticks(range(len(names)), [str(name).replace("_", " ") for name in names])
        axis.set_ylim(len(names) - 0.4, -0.6)
        axis.grid(visible=False, axis="y")
        axis.set_xlabel(xlabel)
        legend_below(figure, axis, columns=columns)
        titled(figure, title, averaged(table, noun="protein cluster"))
    return figure
