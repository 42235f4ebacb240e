"""Figures of the protocol against the number of support and query rows."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mutmeta_lib.app.plots.protocol import METHODS, draw_arm, gain_axis
from mutmeta_lib.app.plots.style import (
    BLACK,
    WIDTH,
    legend_below,
    spread,
    style,
    titled,
)

FAIR = {"same_rows": "same query rows", "same_labels": "same labels and steps"}
"""Comparisons on equal terms -> how they are called."""

ARMS = ("released", "first_order", "second_order")
STRAYING = ("finetuned", "released", "second_order")


def gains_and_rows(
    gains: pd.DataFrame,
    *,
    title: str = "More rows, the same answer",
    subtitle: str = "",
) -> Figure:
    """Gain of every arm on equal terms, per target, against the rows of a draw.

    ``gains`` has columns target, size, method, against, gain, low, high, in %.
    """
    targets = list(dict.fromkeys(gains["target"]))
    sizes = sorted(set(gains["size"]))
    with style():
        figure, axes = plt.subplots(
            len(targets),
            len(FAIR),
            sharex=True,
            sharey="row",
            squeeze=False,
            figsize=(WIDTH, 1.9 + 1.7 * len(targets)),
        )
        for row, target in zip(axes, targets, strict=True):
            for axis, against in zip(row, FAIR, strict=True):
                part = gains[(gains["target"] == target) & (gains["against"] == against)]
                for arm, shift in zip(ARMS, spread(len(ARMS), 0.2), strict=True):
                    own = part[part["method"] == arm].set_index("size").loc[sizes]
                    draw_arm(axis, np.arange(len(sizes)) + shift, own, arm, elinewidth=2)
                axis.axhline(0, color=BLACK, lw=1, ls="--")
                axis.set_xticks(range(len(sizes)), [str(size) for size in sizes])
                axis.set_xlim(-0.5, len(sizes) - 0.5)
                axis.margins(y=0.08)
                axis.grid(axis="x", visible=False)
            row[0].set_ylabel(f"{target}\ngain (%)", fontsize=9)
        for top, bottom, name in zip(axes[0], axes[-1], FAIR.values(), strict=True):
            top.set_title(name, fontsize=10)
            bottom.set_xlabel("rows of a draw", fontsize=10)
        legend_below(figure, axes[0, 0], columns=1)
        titled(figure, title, subtitle)
    return figure


def spread_and_rows(
    gains: pd.DataFrame,
    *,
    title: str = "How far one draw strays",
    subtitle: str = "",
) -> Figure:
    """Range of the gain that single draws report, per target, by the rows of a draw.

    ``gains`` has columns target, size, method, against, q2_5, q25, q50, q75, q97_5, in %.
    """
    table = gains[gains["against"] == "reported"]
    targets = list(dict.fromkeys(table["target"]))
    sizes = sorted(set(table["size"]))
    with style():
        figure, axes = plt.subplots(
            len(targets), 1, sharex=True, squeeze=False, figsize=(WIDTH, 1.8 + 1.6 * len(targets))
        )
        for axis, target in zip(axes[:, 0], targets, strict=True):
            for method, shift in zip(STRAYING, spread(len(STRAYING), 0.22), strict=True):
                own = table[(table["target"] == target) & (table["method"] == method)]
                own = (
                    1
                    - own.set_index("size").loc[sizes][["q2_5", "q25", "q50", "q75", "q97_5"]] / 100
                )
                name, colour, marker = METHODS[method]
                where = np.arange(len(sizes)) + shift
                axis.hlines(where, own["q97_5"], own["q2_5"], color=colour, lw=1.3)
                axis.hlines(where, own["q75"], own["q25"], color=colour, lw=4)
                axis.plot(
                    own["q50"], where, marker, color=colour, mec="white", mew=0.8, ms=8, label=name
                )
            axis.axvline(1, color=BLACK, lw=1, ls="--")
            axis.set_yticks(range(len(sizes)), [str(size) for size in sizes])
            axis.set_ylim(len(sizes) - 0.5, -0.5)
            axis.set_ylabel("rows")
            axis.set_title(target, fontsize=10)
            gain_axis(axis, 0.02, 12)
        axes[-1, 0].set_xlabel("gain over fine-tuning in one draw (%); dashed: none")
        legend_below(figure, axes[0, 0])
        titled(figure, title, subtitle)
    return figure
