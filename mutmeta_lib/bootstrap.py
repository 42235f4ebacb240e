"""Intervals for a mean by resampling, with or without values that belong together."""

import numpy as np


def bootstrap_mean(
    values: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    n_boot: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float, float]:
    """Mean of ``values`` with its percentile bootstrap interval: ``(mean, low, high)``.

    With ``groups`` (one label per value) whole groups are resampled, because values of one group
    are not independent; the mean stays that of all values. Fewer than two groups say nothing of
    the spread between groups: the interval is then NaN, not zero wide. With a handful of groups
    the percentile interval is somewhat too narrow (Efron and Tibshirani, An Introduction to the
    Bootstrap, 1993, chapter 14), so it is to be read together with their number.

    The draws depend on ``seed``, ``n_boot`` and the number of groups alone, so intervals of two
    methods on the same assays rest on the same resamples.

    >>> bootstrap_mean(np.array([3.0]))
    (3.0, nan, nan)
    >>> bootstrap_mean(np.array([1.0, 1.0, 1.0]))
    (1.0, 1.0, 1.0)
    """
    values = np.asarray(values, dtype=float)
    if not len(values):
        return float("nan"), float("nan"), float("nan")
    _, group = np.unique(
        np.arange(len(values)) if groups is None else np.asarray(groups), return_inverse=True
    )
    sums, counts = np.bincount(group, weights=values), np.bincount(group)
    mean = float(values.mean())
    if len(counts) < 2:
        return mean, float("nan"), float("nan")
    drawn = np.random.default_rng(seed).integers(len(counts), size=(n_boot, len(counts)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return mean, float(low), float(high)


def effective_number(groups: np.ndarray) -> float:
    """How many groups of equal size would weigh as unevenly: (Σ nᵢ)² / Σ nᵢ².

    24 assays of one protein and one of another are worth little more than one protein.

    >>> effective_number(np.array(["a", "a", "b", "b"]))
    2.0
    >>> round(effective_number(np.array(["a"] * 24 + ["b"])), 2)
    1.08
    """
    counts = np.unique(np.asarray(groups), return_counts=True)[1]
    return float(counts.sum() ** 2 / (counts**2).sum()) if len(counts) else 0.0
