"""Forests: one row per thing compared, a point with its interval on each."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mutmeta_lib.app.plots.style import (
    PALETTE,
    WIDTH,
    draw_intervals,
    draw_row,
    label,
    legend_below,
    look,
    name_rows,
    spread,
    style,
    titled,
)
from mutmeta_lib.app.plots.wording import averaged, count, metric_label, metric_name, of_metric
from mutmeta_lib.errors import DataError
from mutmeta_lib.tasks.metrics import METRICS


def paired_differences(
    differences: pd.DataFrame,
    metric: str = "spearman",
    *,
    shots: int | None = None,
    title: str | None = None,
) -> Figure:
    """Forest of paired differences, one row per baseline and number of shots.

    ``differences`` comes from ``evaluate.compare`` (several calls, concatenated); a column
    ``metric`` is respected. With ``shots`` only that number of labels is drawn. An interval that
    crosses zero is drawn hollow.
    """
    table = of_metric(differences, metric)
    if shots is not None:
        table = table[table["shots"] == shots]
    table = table.dropna(subset="mean")
    if table.empty:
        raise DataError(f"no difference in {metric} at {shots} shots", "ask for shots in the table")
    methods = list(pd.unique(table["method"]))
    if len(methods) != 1:
        raise DataError(f"the differences are of several methods: {methods}", "draw one at a time")
    several = table["shots"].nunique() > 1
    places, names, at = [], [], 0.0
    with style():
        rows = len(table) + (table["baseline"].nunique() if several else 0)
        figure, axis = plt.subplots(figsize=(WIDTH, 1.9 + (0.27 if several else 0.4) * rows))
        axis.axvline(0, color="#444444", lw=1)
        for baseline, group in table.groupby("baseline", sort=False):
            seen = look(baseline)
            if several:
                axis.text(
                    0.0,
                    at,
                    f" {seen.label}",
                    transform=axis.get_yaxis_transform(),
                    va="center",
                    fontweight="bold",
                    fontsize=10,
                    color="#222222",
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
                )
                at -= 1
            for row in group.sort_values("shots").itertuples():
                draw_row(axis, at, row, color=seen.colour, marker=seen.marker, markersize=7)
                places.append(at)
                names.append(count([row.shots], "shot") if several else seen.label)
                at -= 1
        axis.set_yticks(places, names)
        axis.set_ylim(at + 0.3, 0.7)
        axis.grid(visible=False, axis="y")
        ours = label(methods[0])
        better = METRICS[metric].higher_is_better if metric in METRICS else False
        sides = ("baseline better", f"{ours} better")
        left, right = sides if better else sides[::-1]
        axis.set_xlabel(f"difference in {metric_label(metric)}\n← {left}    {right} →", loc="right")
        at_shots = "" if several else f" at {count(table['shots'], 'shot')}"
        titled(figure, title or f"{ours} minus each baseline{at_shots}", averaged(table, "paired"))
    return figure


def encoding_scores(
    summary: pd.DataFrame, *, metric: str = "spearman", title: str | None = None
) -> Figure:
    """A metric per encoding, one panel per way of holding out, one marker per pooling.

    ``summary`` has columns encoding, pooling, hold_out, mean, low, high, n_assays, n_proteins.
    """
    encodings = list(pd.unique(summary["encoding"]))
    poolings = list(pd.unique(summary["pooling"]))
    panels = list(pd.unique(summary["hold_out"]))
    with style():
        figure, axes = plt.subplots(
            len(panels),
            1,
            sharex=True,
            squeeze=False,
            figsize=(WIDTH, 1.4 + len(panels) * (0.55 + 0.36 * len(encodings))),
        )
        for axis, hold_out in zip(axes[:, 0], panels, strict=True):
            shifts = spread(len(poolings), 0.22)
            for pooling, shift, colour, marker in zip(
                poolings, shifts, PALETTE, "osD^v", strict=False
            ):
                here = summary.query("hold_out == @hold_out and pooling == @pooling")
                here = here.set_index("encoding").reindex(encodings)
                draw_intervals(
                    axis,
                    np.arange(len(encodings)) + shift,
                    here["mean"],
                    here["low"],
                    here["high"],
                    horizontal=True,
                    color=colour,
                    marker=marker,
                    linestyle="none",
                    label=f"{pooling} pooling",
                )
            name_rows(axis, [name.replace("_", " ") for name in encodings])
            axis.set_title(f"held-out {hold_out}", fontsize=11)
        axes[-1, 0].set_xlabel(metric_label(metric))
        legend_below(figure, axes[0, 0], columns=3)
        titled(figure, title or f"{metric_name(metric)} per encoding", averaged(summary))
    return figure
