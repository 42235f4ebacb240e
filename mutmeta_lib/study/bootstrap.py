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


def bootstrap_ratio(
    numerators: np.ndarray,
    denominators: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    n_boot: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float, float]:
    """Ratio of two sums over the same units with its percentile bootstrap interval.

    Units, or whole groups of them, are resampled as in `bootstrap_mean`, numerator and denominator
    together. A resample whose denominators sum to zero or less gives an infinite ratio, so that a
    cost divided by a saving that may not exist has an interval without an end.

    >>> bootstrap_ratio(np.array([1.0, 1.0]), np.array([2.0, 2.0]))
    (0.5, 0.5, 0.5)
    """
    above, below = np.asarray(numerators, dtype=float), np.asarray(denominators, dtype=float)
    if not len(above):
        return float("nan"), float("nan"), float("nan")
    names = np.arange(len(above)) if groups is None else np.asarray(groups)
    _, group = np.unique(names, return_inverse=True)
    tops, bottoms = np.bincount(group, weights=above), np.bincount(group, weights=below)
    ratio = _over(above.sum(keepdims=True), below.sum(keepdims=True))[0]
    if len(tops) < 2:
        return float(ratio), float("nan"), float("nan")
    drawn = np.random.default_rng(seed).integers(len(tops), size=(n_boot, len(tops)))
    ratios = np.sort(_over(tops[drawn].sum(axis=1), bottoms[drawn].sum(axis=1)))
    # Ranks in the place of interpolated quantiles: infinity minus infinity is not a number.
    low, high = ((1 - level) / 2, (1 + level) / 2)
    at = [round(share * (n_boot - 1)) for share in (low, high)]
    return float(ratio), float(ratios[at[0]]), float(ratios[at[1]])


def _over(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full_like(above, np.inf), where=below > 0)


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
