"""What a mean squared error over a handful of query rows can say: its sampling distribution.

Errors with a long tail make such an estimate unlike the error over the whole test set: most draws
miss the tail and look far too good, a few hit it and look far too bad.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

QUANTILES = {"q2_5": 0.025, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q97_5": 0.975}
EDGES = np.logspace(-2, 2, 41)
"""Bins of error ratios; what lies beyond goes into the outermost."""


def draw_errors(
    squared: np.ndarray, size: int, draws: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Mean squared errors over random query rows, drawn without replacement.

    ``squared`` holds the squared errors of one predictor ``(n,)``, or of several ``(k, n)`` on the
    same rows. Returns means, ``(draws,)`` or ``(k, draws)``, and the drawn rows, ``(draws, size)``.
    """
    how = {"size": size, "replace": False, "shuffle": False}
    rows = np.stack([rng.choice(squared.shape[-1], **how) for _ in range(draws)])
    return squared[..., rows].mean(axis=-1), rows


def skilled(labels: np.ndarray, correlation: float, rng: np.random.Generator) -> np.ndarray:
    """Predictions that correlate with the labels as asked, the best mean squared error they allow.

    They are ``m + r² (y - m) + r √(1 - r²) (y' - m)`` with m the mean label and y' the label of a
    random other row: their tail is that of labels, their error ``1 - r²`` of always saying m.
    """
    r, centred = correlation, labels - labels.mean()
    return labels.mean() + r**2 * centred + r * np.sqrt(1 - r**2) * rng.permutation(centred)


def query_error_table(
    labels: np.ndarray, *, sizes: Sequence[int], draws: int, correlation: float, seed: int
) -> pd.DataFrame:
    """How errors over few query rows spread, for a predictor without and one with skill.

    The one without always says the mean of all labels; `skilled` gives the other. Quantiles are of
    the error without skill, relative to that over all rows, so 1 is the truth. Shares of draws:

    - ``over_50``, ``over_94``: it looks more than 50 % or 94 % better than over all rows;
    - ``worse_same``: the skilled one looks worse than it on the same rows;
    - ``worse_apart``: the same, on rows drawn for each;
    - ``worse_whole``: on few rows it looks better than the skilled one over all rows;
    - ``has_largest``: the row of the largest deviation is among those drawn.
    """
    rng = np.random.default_rng(seed)
    without = (labels - labels.mean()) ** 2
    better = (labels - skilled(labels, correlation, rng)) ** 2
    whole, skilled_whole = without.mean(), better.mean()
    rows = []
    for size in sizes:
        (a, b), drawn = draw_errors(np.stack([without, better]), size, draws, rng)
        apart, _ = draw_errors(better, size, draws, rng)
        shares = {
            "over_50": a < 0.5 * whole,
            "over_94": a < 0.06 * whole,
            "worse_same": b > a,
            "worse_apart": apart > a,
            "worse_whole": a < skilled_whole,
            "has_largest": (drawn == without.argmax()).any(axis=1),
        }
        row = {"query_rows": size} | {q: np.quantile(a / whole, at) for q, at in QUANTILES.items()}
        rows.append(row | {name: np.mean(share) for name, share in shares.items()})
    return pd.DataFrame(rows).assign(skilled_relative=skilled_whole / whole)


def error_histogram(labels: np.ndarray, *, size: int, draws: int, seed: int) -> pd.DataFrame:
    """How often always saying the mean has which error over `size` rows, relative to all rows."""
    squared = (labels - labels.mean()) ** 2
    errors, _ = draw_errors(squared, size, draws, np.random.default_rng(seed))
    return ratio_histogram(errors / squared.mean())


def ratio_histogram(ratios: np.ndarray) -> pd.DataFrame:
    """The share of ratios in each bin of `EDGES`, from ``low`` to ``high``."""
    counts, _ = np.histogram(np.clip(ratios, EDGES[0], EDGES[-1]), EDGES)
    return pd.DataFrame({"low": EDGES[:-1], "high": EDGES[1:], "share": counts / ratios.size})


def label_histogram(labels: np.ndarray) -> pd.DataFrame:
    """How many labels lie in bins of half a standard deviation; empty bins are left out."""
    bins, counts = np.unique(np.floor(2 * labels).astype(int), return_counts=True)
    return pd.DataFrame({"low": bins / 2, "high": (bins + 1) / 2, "rows": counts})
