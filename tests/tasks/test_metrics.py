"""One contract for all metrics, against scipy and scikit-learn, closed forms and cases by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from mutmeta_lib.tasks.metrics import METRICS

score = st.integers(-20, 20).map(lambda i: i / 4)  # few distinct values: ties are common
pairs = st.lists(st.tuples(score, score), min_size=3, max_size=40).map(
    lambda rows: tuple(np.array(rows).T)
)
each_metric = pytest.mark.parametrize("name", METRICS)


def shared_gains(predicted, measured):
    """NDCG of the top tenth as an expectation over the orders of tied predictions."""
    k = max(1, math.floor(len(measured) / 10))
    gains = (measured - measured.min()) / np.ptp(measured)
    expected = np.array([gains[predicted == value].mean() for value in predicted])
    weights = 1 / np.log2(np.arange(2, k + 2))
    best = np.sort(gains)[::-1][:k] @ weights
    return expected[np.argsort(-predicted, kind="stable")][:k] @ weights / best


REFERENCE = {
    "mse": lambda p, m: mean_squared_error(m, p),
    "mae": lambda p, m: mean_absolute_error(m, p),
    "relative_mse": lambda p, m: 1 - r2_score(m, p),
    "spearman": lambda p, m: np.ptp(p) and np.corrcoef(rankdata(p), rankdata(m))[0, 1],
    "ndcg": shared_gains,
}


@each_metric
@given(pairs)
def test_values_are_those_of_another_implementation(name, pair):
    value = METRICS[name].function(*pair)
    if np.ptp(pair[1]) == 0 and name not in ("mse", "mae"):
        assert math.isnan(value), "nothing to rank is no number made up"
    else:
        assert value == pytest.approx(REFERENCE[name](*pair), abs=1e-9)


@each_metric
def test_the_need_of_a_scale_is_told_rightly(name):
    measured, noise = np.random.default_rng(2).normal(size=(2, 200))
    moved, kept = (METRICS[name].function(p, measured) for p in (10 * noise + 3, noise))
    assert (moved != pytest.approx(kept)) == METRICS[name].needs_scale


@each_metric
@pytest.mark.parametrize(
    ("predicted", "measured"),
    [([1, 2], [1, 2, 3]), ([[1, 2]], [[1, 2]]), ([], []), ([1, np.nan], [1, 2]), ([1], [np.inf])],
)
def test_what_is_not_a_pair_of_finite_vectors_is_refused(name, predicted, measured):
    with pytest.raises(ValueError, match=r"two vectors of one length|inhomogeneous"):
        METRICS[name].function(predicted, measured)
