"""How good a prediction is: errors in score units, and ranks that need no common unit.

Every function takes ``(predicted, measured)``, two arrays of shape ``(n,)``, and returns a float.
Where measured scores are all equal there is nothing to rank and no variance: NaN.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr
from sklearn.metrics import ndcg_score


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
    return float(ndcg_score([gains], [predicted], k=top))


@dataclass(frozen=True)
class Metric:
    """A metric with its name on a page; ``needs_scale``: predictions in the scores' units."""

    label: str
    function: Callable[[np.ndarray, np.ndarray], float]
    needs_scale: bool


METRICS: dict[str, Metric] = {
    "spearman": Metric("Spearman correlation", spearman, False),
    "ndcg": Metric("NDCG, top 10 %", ndcg, False),
    "mse": Metric("Mean squared error", mse, True),
    "mae": Metric("Mean absolute error", mae, True),
    "relative_mse": Metric("MSE / variance of scores", relative_mse, True),
}
"""Name of the column in an evaluation table -> the metric."""
