"""Figures of what an encoding changes in the protocol, alone and together with meta-training."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mutmeta_lib.app.plots.protocol import draw_arm
from mutmeta_lib.app.plots.style import (
    BLACK,
    GREEN,
    WIDTH,
    draw_intervals,
    legend_below,
    spread,
    style,
    titled,
)

LEARNERS = {
    "initial": "initial fit",
    "finetuned": "fine-tuning",
    "initial_adapted": "adapted, no\nmeta-training",
    "released": "as released",
    "first_order": "first order",
    "second_order": "second order",
}
"""Method -> how it is called on the axis."""

MEASURES = {
    "gain": ("less error (%)", ("gain", "low", "high")),
    "spearman": ("higher rank\ncorrelation", ("spearman", "spearman_low", "spearman_high")),
}
"""Measure -> what the axis says, and the columns of value and interval."""

PARTS = {
    "encoding": "encoding alone",
    "meta": "meta-training\nalone",
    "interaction": "beyond the two",
    "both": "both together",
}
"""Share -> how it is called on the axis."""

ARMS = ("released", "first_order", "second_order")


def encoding_gains(
    encodings: pd.DataFrame, *, title: str = "What the encoding changes", subtitle: str = ""
) -> Figure:
    """Error saved and rank correlation gained by the first encoding, per target and method.

    ``encodings`` has columns target, method, gain, low, high (in %), spearman, spearman_low,
    spearman_high.
    """
    targets = list(dict.fromkeys(encodings["target"]))
    with style():
        figure, axes = plt.subplots(
            len(targets),
            len(MEASURES),
            sharex="col",
            sharey=True,
            squeeze=False,
            figsize=(WIDTH, 1.2 + 2.1 * len(targets)),
        )
        for row, target in zip(axes, targets, strict=True):
            own = encodings[encodings["target"] == target].set_index("method").loc[list(LEARNERS)]
            for axis, (_, columns) in zip(row, MEASURES.values(), strict=True):
                draw_intervals(
                    axis,
                    np.arange(len(own)),
                    *(own[column] for column in columns),
                    horizontal=True,
                    fmt="o",
                    color=GREEN,
                    elinewidth=2.4,
                )
                axis.axvline(0, color=BLACK, lw=1, ls="--")
            row[0].set_yticks(range(len(own)), list(LEARNERS.values()), fontsize=9)
            row[0].set_ylim(len(own) - 0.5, -0.5)
            row[0].set_title(target, fontsize=10)
            row[1].set_title(" ", fontsize=10)
        for axis, (name, _) in zip(axes[-1], MEASURES.values(), strict=True):
            axis.set_xlabel(name, fontsize=10)
        titled(figure, title, subtitle)
    return figure


def gain_shares(shares: pd.DataFrame, *, title: str = "Two by two", subtitle: str = "") -> Figure:
    """What encoding and meta-training save of the error alone and together, per target and arm.

    ``shares`` has columns target, method, part, gain, low, high, in %.
    """
    targets = list(dict.fromkeys(shares["target"]))
    with style():
        figure, axes = plt.subplots(
            len(targets), 1, sharex=True, squeeze=False, figsize=(WIDTH, 1.9 + 1.9 * len(targets))
        )
        for axis, target in zip(axes[:, 0], targets, strict=True):
            for arm, shift in zip(ARMS, spread(len(ARMS), 0.24), strict=True):
                own = shares[(shares["target"] == target) & (shares["method"] == arm)]
                own = own.set_index("part").loc[list(PARTS)]
                where = np.arange(len(own)) + shift
                draw_arm(axis, where, own, arm, horizontal=True, elinewidth=2.4)
            axis.axvline(0, color=BLACK, lw=1, ls="--")
            axis.set_yticks(range(len(PARTS)), list(PARTS.values()), fontsize=9)
            axis.set_ylim(len(PARTS) - 0.4, -0.6)
            axis.set_title(target, fontsize=10)
        axes[-1, 0].set_xlabel("error saved (%); dashed: none")
        legend_below(figure, axes[0, 0], columns=1)
        titled(figure, title, subtitle)
    return figure
