"""One contract for all metrics, against scipy and scikit-learn, closed forms and cases by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from mutmeta_lib.tasks.metrics import METRICS, spearman_unseen

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


def expected_hits(chosen, best):
    """Hits as the mean over many random orders of tied predictions and tied scores."""

    def hits(predicted, measured):
        rng, k, n = np.random.default_rng(0), chosen(len(measured)), len(measured)
        top = lambda values, size: np.lexsort((rng.random(n), -values))[:size]  # noqa: E731
        draws = [(top(predicted, k), top(measured, best(n))) for _ in range(4000)]
        return np.mean([len(np.intersect1d(*draw)) / k for draw in draws])

    return hits


REFERENCE = {
    "mse": lambda p, m: mean_squared_error(m, p),
    "mae": lambda p, m: mean_absolute_error(m, p),
    "relative_mse": lambda p, m: 1 - r2_score(m, p),
    "spearman": lambda p, m: np.ptp(p) and np.corrcoef(rankdata(p), rankdata(m))[0, 1],
    "ndcg": shared_gains,
    "hits_10": expected_hits(lambda n: min(10, n), lambda n: max(1, n // 10)),
    "hits_5pct": expected_hits(*2 * [lambda n: max(1, n // 20)]),
    "error_over_mean": lambda p, m: mean_squared_error(m, p) / np.mean((m - 0.5) ** 2),
    "coverage": lambda p, m: np.mean(np.abs(p - m) < 1.6448536 * 1.01),
}
REFERENCE["spearman_unseen"] = REFERENCE["spearman"]
SCALED_ALWAYS = ("mse", "mae", "error_over_mean", "coverage")


def value_of(name, predicted, measured):
    """The metric with a support mean of 0.5, a deviation of 1.01, and no site seen."""
    n = np.size(predicted)
    given = {"location": 0.5, "deviation": np.full(n, 1.01), "unseen": np.ones(n, bool)}
    return METRICS[name].function(predicted, measured, *map(given.get, METRICS[name].takes))


@each_metric
@settings(max_examples=30, deadline=None)
@given(pairs)
def test_values_are_those_of_another_implementation(name, pair):
    value = value_of(name, *pair)
    few = name == "spearman_unseen" and len(pair[0]) < 10
    if few or (np.ptp(pair[1]) == 0 and name not in SCALED_ALWAYS):
        assert math.isnan(value), "nothing to rank is no number made up"
    elif name == "error_over_mean" and (pair[1] == 0.5).all():
        assert math.isnan(value)
    else:
        near = 0.03 if name.startswith("hits") else 1e-9
        assert value == pytest.approx(REFERENCE[name](*pair), abs=near)


@each_metric
def test_the_need_of_a_scale_is_told_rightly(name):
    measured, noise = np.random.default_rng(2).normal(size=(2, 200))
    moved, kept = (value_of(name, p, measured) for p in (10 * noise + 3, noise))
    assert (moved != pytest.approx(kept)) == METRICS[name].needs_scale


@pytest.mark.parametrize("values", [np.arange(400.0), np.arange(400) % 7, np.arange(400) // 390])
@pytest.mark.parametrize(("name", "chance"), [("hits_10", 0.1), ("hits_5pct", 0.05)])
def test_hits_are_at_their_chance_level_for_who_knows_nothing(name, chance, values):
    assert value_of(name, np.zeros(400), values) == pytest.approx(chance)
    rng = np.random.default_rng(1)
    drawn = [value_of(name, rng.permutation(400), values) for _ in range(2000)]
    assert np.mean(drawn) == pytest.approx(chance, abs=0.01)
    assert value_of(name, np.arange(400), np.arange(400)) == 1
    assert value_of(name, -np.arange(400), np.arange(400)) == 0


def test_only_unseen_sites_are_ranked_and_no_interval_covers_nothing():
    measured = np.arange(40.0)
    predicted = np.where(measured < 20, measured, -measured)
    assert spearman_unseen(predicted, measured, measured < 20) == pytest.approx(1)
    assert spearman_unseen(predicted, measured, measured >= 20) == pytest.approx(-1)
    assert math.isnan(spearman_unseen(predicted, measured, measured < 9))
    assert math.isnan(METRICS["coverage"].function(predicted, measured, None))


@each_metric
@pytest.mark.parametrize(
    ("predicted", "measured"),
    [([1, 2], [1, 2, 3]), ([[1, 2]], [[1, 2]]), ([], []), ([1, np.nan], [1, 2]), ([1], [np.inf])],
)
def test_what_is_not_a_pair_of_finite_vectors_is_refused(name, predicted, measured):
    with pytest.raises(ValueError, match=r"two vectors of one length|inhomogeneous"):
        value_of(name, predicted, measured)
