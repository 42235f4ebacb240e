"""Figures from tidy tables. Each function returns a matplotlib ``Figure`` that pyplot knows.

In a notebook end the cell with ``plt.show()``. Widths are chosen so that text stays legible on a
telephone; ``style()`` gives the same looks to a figure made by hand.
"""

from mutmeta_lib.app.plots.checks import adaptation_curves, forest, shared_bill
from mutmeta_lib.app.plots.curves import few_shot_curves, timing_curve, training_curve
from mutmeta_lib.app.plots.data import score_distributions, split_overview, tokens_figure
from mutmeta_lib.app.plots.forests import encoding_scores, paired_differences
from mutmeta_lib.app.plots.reproduction import (
    encoding_gains,
    gain_draws,
    gain_intervals,
    gain_shares,
    gains_and_rows,
    label_tails,
    query_error_histograms,
    query_error_intervals,
    signs,
    spread_and_rows,
    time_and_rows,
)
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
    "encoding_gains",
    "encoding_scores",
    "few_shot_curves",
    "forest",
    "gain_draws",
    "gain_forest",
    "gain_intervals",
    "gain_shares",
    "gains_and_rows",
    "identity_scatter",
    "label",
    "label_tails",
    "lead_strip",
    "look",
    "methods_by_encoding",
    "methods_by_row",
    "paired_differences",
    "query_error_histograms",
    "query_error_intervals",
    "score_distributions",
    "shared_bill",
    "signature_forest",
    "signs",
    "split_overview",
    "spread_and_rows",
    "style",
    "time_and_rows",
    "timing_curve",
    "tokens_figure",
    "training_curve",
]
