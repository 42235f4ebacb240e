"""Figures from tidy tables. Each function returns a matplotlib ``Figure`` that pyplot knows.

In a notebook end the cell with ``plt.show()``. Widths are chosen so that text stays legible on a
telephone; ``style()`` gives the same looks to a figure made by hand.
"""

from mutmeta_lib.app.plots.checks import adaptation_curves, forest, shared_bill
from mutmeta_lib.app.plots.curves import few_shot_curves, timing_curve, training_curve
from mutmeta_lib.app.plots.data import score_distributions, split_overview, tokens_figure
from mutmeta_lib.app.plots.forests import encoding_scores, paired_differences
from mutmeta_lib.app.plots.style import label, look, style
from mutmeta_lib.app.plots.transfer import (
    gain_forest,
    identity_scatter,
    lead_strip,
    methods_by_encoding,
    methods_by_row,
    signature_forest,
)

__all__ = [
    "adaptation_curves",
    "encoding_scores",
    "few_shot_curves",
    "forest",
    "gain_forest",
    "identity_scatter",
    "label",
    "lead_strip",
    "look",
    "methods_by_encoding",
    "methods_by_row",
    "paired_differences",
    "score_distributions",
    "shared_bill",
    "signature_forest",
    "split_overview",
    "style",
    "timing_curve",
    "tokens_figure",
    "training_curve",
]
