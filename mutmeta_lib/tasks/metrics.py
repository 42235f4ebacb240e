"""How good a prediction is: errors in score units, and ranks that need no common unit.

Every function takes ``(predicted, measured)``, two arrays of shape ``(n,)``, and returns a float.
Where measured scores are all equal there is nothing to rank and no variance: NaN. Some take one
more fact of the task, which `METRICS` names.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

FEWEST = 10
"""Fewest variants at unseen sites whose ranks are compared."""
INTERVAL = 0.9
"""Share of measured scores that a method's interval should hold."""


def _pair(predicted: np.ndarray, measured: np.ndarray) -> np.ndarray:
    pair = np.asarray([predicted, measured], dtype=float)
    if pair.ndim != 2 or not pair.size or not np.isfinite(pair).all():
        raise ValueError("predicted and measured must be two vectors of one length, all finite")
    return pair


def mse(predicted: np.ndarray, measured: np.ndarray) -> float:
    """Mean squared error, in squared score units."""
    predicted, measured = _pair(predicted, measured)
    return float(np.mean((predicted - measured) ** 2))


def mae(predicted: np.ndarray, measured: np.ndarray) -> float:
    """Mean absolute error, in score units."""
    predicted, measured = _pair(predicted, measured)
    return float(np.mean(np.abs(predicted - measured)))


def relative_mse(predicted: np.ndarray, measured: np.ndarray) -> float:
    """Mean squared error over the variance (ddof 0) of the measured scores; no unit.

    1 is what predicting the mean of the measured scores gives; 1 minus this is R².
    """
    error, measured = mse(predicted, measured), np.asarray(measured, dtype=float)
    return error / float(np.var(measured)) if np.ptp(measured) else float("nan")


def spearman(predicted: np.ndarray, measured: np.ndarray) -> float:
    """Spearman's rank correlation; ties share their average rank.

    A constant prediction, whose correlation is undefined, scores 0 by our convention, so that a
    method that predicts the support mean is not left out of an average.

    >>> spearman([1.0, 2.0, 3.0], [10.0, 20.0, 90.0]), spearman([5.0, 5.0], [10.0, 20.0])
    (1.0, 0.0)
    """
    predicted, measured = _pair(predicted, measured)
    if np.ptp(measured) == 0 or np.ptp(predicted) == 0:
        return 0.0 if np.ptp(measured) else float("nan")
    from scipy.stats import spearmanr  # slow to import, here and below

    return float(np.clip(spearmanr(predicted, measured).statistic, -1.0, 1.0))


def ndcg(predicted: np.ndarray, measured: np.ndarray) -> float:
    """Normalised discounted cumulative gain of the predicted top 10 %, as ProteinGym defines it.

    The gain of a variant is its measured score, min-max scaled to [0, 1]; the k = floor(n / 10)
    variants of highest prediction are summed with weights 1 / log2(rank + 1) and divided by the
    same sum for the best order (``calc_ndcg`` in ``performance_DMS_benchmarks.py``; Notin et al.,
    NeurIPS 2023). At fewer than 10 variants k is 1, and variants with equal predictions share
    their gains (the expectation over their orders), where ProteinGym takes the order of the file.

    >>> ndcg([3.0, 2.0, 1.0], [0.5, 1.0, 0.0])
    0.5
    """
    predicted, measured = _pair(predicted, measured)
    if np.ptp(measured) == 0:
        return float("nan")
    gains = (measured - measured.min()) / np.ptp(measured)
    top = max(1, len(measured) // 10)
    from sklearn.metrics import ndcg_score

    return float(ndcg_score([gains], [predicted], k=top))


def _top(values: np.ndarray, k: int) -> np.ndarray:
    """Which are the k highest, ``(n,)``, sum k: those equal to the k-th share what is left."""
    kth = np.sort(values)[-k]
    above, equal = values > kth, values == kth
    return above + equal * (k - above.sum()) / equal.sum()


def _hits(predicted: np.ndarray, measured: np.ndarray, chosen: int, best: int) -> float:
    predicted, measured = _pair(predicted, measured)
    if np.ptp(measured) == 0:
        return float("nan")
    chosen = min(chosen, len(measured))
    return float(_top(predicted, chosen) @ _top(measured, max(1, best)) / chosen)


def hits_10(predicted: np.ndarray, measured: np.ndarray) -> float:
    """Share of the ten variants predicted best that are among the measured best 10 %.

    The best are ``floor(n / 10)`` variants, at least one. Of equal values at either edge each is
    counted in part (the expectation over their orders), so that a prediction that knows nothing
    scores 0.10; the most that fewer than 100 variants allow is ``floor(n / 10) / 10``.

    >>> round(hits_10(range(200), range(200)), 3), round(hits_10([0] * 200, range(200)), 3)
    (1.0, 0.1)
    """
    return _hits(predicted, measured, 10, len(measured) // 10)


def hits_5pct(predicted: np.ndarray, measured: np.ndarray) -> float:
    """Share of the 5 % predicted best that are among the measured best 5 %; chance is 0.05.

    Both are ``floor(n / 20)`` variants, at least one; equal values count as in `hits_10`.
    """
    k = max(1, len(measured) // 20)
    return _hits(predicted, measured, k, k)


def error_over_mean(predicted: np.ndarray, measured: np.ndarray, location: float) -> float:
    """Mean squared error over that of predicting ``location``, the support mean; no unit.

    Below 1 the method says more than the mean of its labels.
    """
    floor = mse(np.full(np.shape(measured), location), measured)
    return mse(predicted, measured) / floor if floor else float("nan")


def coverage(
    predicted: np.ndarray, measured: np.ndarray, deviation: np.ndarray | None = None
) -> float:
    """Share of the measured scores inside the 90 % interval, which is normal and two-sided.

    ``deviation`` are predictive standard deviations ``(n,)`` in score units, noise included; a
    method that has none has no coverage (NaN).

    >>> coverage([0.0, 0.0], [1.6, 1.7], [1.0, 1.0])
    0.5
    """
    predicted, measured = _pair(predicted, measured)
    if deviation is None:
        return float("nan")
    from scipy.stats import norm

    half = norm.ppf((1 + INTERVAL) / 2) * np.asarray(deviation, dtype=float)
    return float(np.mean(np.abs(measured - predicted) <= half))


def spearman_unseen(predicted: np.ndarray, measured: np.ndarray, unseen: np.ndarray) -> float:
    """`spearman` over the variants that ``unseen`` ``(n,)`` marks; NaN if these are under ten.

    Marked are those with no site that a variant of the support changes, all without labels.
    """
    predicted, measured = _pair(predicted, measured)
    if np.sum(unseen) < FEWEST:
        return float("nan")
    return spearman(predicted[unseen], measured[unseen])


@dataclass(frozen=True)
class Metric:
    """A metric with its name on a page.

    ``needs_scale``: predictions in the scores' units. ``takes``: what ``function`` is given after
    predicted and measured, of ``location`` (the support mean), ``deviation`` and ``unseen``.
    """

    label: str
    function: Callable[..., float]
    needs_scale: bool
    takes: tuple[str, ...] = ()


METRICS: dict[str, Metric] = {
    "spearman": Metric("Spearman correlation", spearman, False),
    "ndcg": Metric("NDCG, top 10 %", ndcg, False),
    "mse": Metric("Mean squared error", mse, True),
    "mae": Metric("Mean absolute error", mae, True),
    "relative_mse": Metric("MSE / variance of scores", relative_mse, True),
    "hits_10": Metric("Hit rate of the best ten", hits_10, False),
    "hits_5pct": Metric("Hit rate of the best 5 %", hits_5pct, False),
    "error_over_mean": Metric("MSE / that of the mean", error_over_mean, True, ("location",)),
    "coverage": Metric("Share inside the 90 % interval", coverage, True, ("deviation",)),
    "spearman_unseen": Metric("Spearman, unseen sites", spearman_unseen, False, ("unseen",)),
}
"""Name of the column in an evaluation table -> the metric."""
