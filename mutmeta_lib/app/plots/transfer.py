"""Figures of the third arm: gains, encodings times methods, identity, signatures of failure."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mutmeta_lib.app.plots.style import (
    PALETTE,
    WIDTH,
    draw_method,
    label,
    legend_below,
    look,
    name_rows,
    spread,
    style,
    titled,
)
from mutmeta_lib.app.plots.wording import count


def _units(table: pd.DataFrame) -> str:
    """How many assays and clusters, and what the bars are."""
    assays, clusters = count(table["n_assays"], "assay"), count(table["n_units"], "cluster")
    return f"{assays} of {clusters}, 95 % interval over clusters"


def gain_forest(
    gains: pd.DataFrame, claimed: Mapping[str, float] | None = None, *, title: str
) -> Figure:
    """Gains in error per group (rows) and control (markers); the paper's as a cross.

    ``gains`` has columns group, baseline, mean, low, high, n_assays, n_units. What lies left of
    -1.5 is drawn at the edge.
    """
    groups = list(pd.unique(gains["group"]))
    baselines = list(pd.unique(gains["baseline"]))
    left = max(-1.5, min(-0.2, float(gains["low"].fillna(0).min()) - 0.05))
    with style():
        height = 1.8 + len(groups) * (0.3 + 0.17 * len(baselines))
        figure, axis = plt.subplots(figsize=(WIDTH, height))
        axis.axvline(0, color="#444444", lw=1)
        for baseline, shift in zip(baselines, spread(len(baselines), 0.16), strict=True):
            rows = gains[gains["baseline"] == baseline].set_index("group").reindex(groups)
            rows = rows[["mean", "low", "high"]].clip(lower=left)
            where, over = np.arange(len(groups)) + shift, f"over {label(baseline)}"
            draw_method(axis, where, rows, baseline, horizontal=True, label=over)
        marked = [(place, (claimed or {}).get(name)) for place, name in enumerate(groups)]
        places = [place for place, value in marked if value is not None]
        values = [value for _, value in marked if value is not None]
        if places:
            axis.plot(values, places, "x", color="#000000", ms=9, mew=2, label="the paper's gain")
        name_rows(axis, groups)
        axis.set_xlim(left=left)
        axis.set_xlabel(
            "share of the control's squared error that MAML saves\n(left of 0: MAML errs more)"
        )
        legend_below(figure, axis, columns=1)
        titled(figure, title, _units(gains))
    return figure


def methods_by_row(summary: pd.DataFrame, *, title: str) -> Figure:
    """Mean Spearman correlation, one line per value of ``row``, one marker per method.

    ``summary`` has columns row, method, mean, low, high, n_assays, n_units.
    """
    names = list(pd.unique(summary["row"]))
    methods = list(pd.unique(summary["method"]))
    with style():
        figure, axis = plt.subplots(figsize=(WIDTH, 2.0 + 0.72 * len(names)))
        for method, shift in zip(methods, spread(len(methods), 0.17), strict=True):
            rows = summary[summary["method"] == method].set_index("row").reindex(names)
            draw_method(axis, np.arange(len(names)) + shift, rows, method, horizontal=True)
        name_rows(axis, names)
        axis.set_xlabel("Spearman correlation (no unit)")
        legend_below(figure, axis)
        titled(figure, title, _units(summary))
    return figure


def methods_by_encoding(summary: pd.DataFrame, *, title: str) -> Figure:
    """As `methods_by_row`, one row per encoding and pooling."""
    names = summary["encoding"].str.replace("_", " ") + "\n(" + summary["pooling"] + ")"
    return methods_by_row(summary.assign(row=names), title=title)


def identity_scatter(points: pd.DataFrame, *, title: str) -> Figure:
    """MAML's lead against the identity to the nearest meta-training protein, one point per assay.

    ``points`` has columns identity (0 to 1), lead, regime.
    """
    with style():
        figure, axis = plt.subplots(figsize=(WIDTH, 3.9))
        axis.axhline(0, color="#444444", lw=1)
        for (regime, own), colour, marker in zip(
            points.groupby("regime", sort=False), PALETTE, "os^", strict=False
        ):
            axis.scatter(
                100 * own["identity"], own["lead"], s=26, alpha=0.75, color=colour, marker=marker,
                label=f"{regime} ({len(own)})", linewidths=0,
            )  # fmt: skip
        axis.set_xlabel("identity to the nearest meta-training protein (%)")
        axis.set_ylabel("lead in Spearman correlation")
        legend_below(figure, axis, columns=1)
        titled(figure, title, "one point per assay, mean over seeds")
    return figure


def signature_forest(signatures: pd.DataFrame, names: Mapping[str, str], *, title: str) -> Figure:
    """Rank correlations of MAML's lead with properties of assays, one marker per rival."""
    signs = [sign for sign in names if sign in set(signatures["sign"])]
    rivals = list(pd.unique(signatures["rival"]))
    with style():
        figure, axis = plt.subplots(figsize=(WIDTH, 1.9 + 0.5 * len(signs)))
        axis.axvline(0, color="#444444", lw=1)
        for rival, shift in zip(rivals, spread(len(rivals), 0.2), strict=True):
            rows = signatures[signatures["rival"] == rival].set_index("sign").reindex(signs)
            where, over = np.arange(len(signs)) + shift, f"lead over {label(rival)}"
            draw_method(axis, where, rows, rival, horizontal=True, label=over)
        name_rows(axis, [names[sign] for sign in signs])
        axis.set_xlim(-1, 1)
        axis.set_xlabel("rank correlation over assays")
        legend_below(figure, axis, columns=1)
        titled(figure, title, _units(signatures))
    return figure


def lead_strip(failures: pd.DataFrame, rivals: Sequence[str], *, title: str) -> Figure:
    """MAML's lead over each rival per role of assay: one dot per assay, the mean as a bar."""
    roles = list(pd.unique(failures.sort_values(["property", "role"])["role"]))
    rng = np.random.default_rng(0)
    with style():
        figure, axis = plt.subplots(figsize=(WIDTH, 1.9 + 0.62 * len(roles)))
        axis.axvline(0, color="#444444", lw=1)
        for rival, shift in zip(rivals, spread(len(rivals), 0.27), strict=True):
            seen = look(rival)
            for place, role in enumerate(roles):
                own = failures[failures["role"] == role]
                lead = (own["maml"] - own[rival]).to_numpy()
                jitter = place + shift + rng.uniform(-0.07, 0.07, len(lead))
                named = f"over {label(rival)}" if place == 0 else None
                axis.plot(
                    lead,
                    jitter,
                    seen.marker,
                    color=seen.colour,
                    ms=4,
                    alpha=0.6,
                    mew=0,
                    label=named,
                )
                where = [place + shift - 0.12, place + shift + 0.12]
                axis.plot([lead.mean()] * 2, where, color=seen.colour, lw=2.5)
        name_rows(axis, roles)
        axis.set_xlabel("MAML's lead in Spearman correlation (← MAML loses)")
        legend_below(figure, axis, columns=1)
        titled(figure, title, f"{count([len(failures)], 'assay')}, mean over seeds; bar: mean")
    return figure
