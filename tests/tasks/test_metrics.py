"""Metrics against scipy and scikit-learn, closed forms, and cases worked by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau, rankdata, spearmanr
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from mutmeta_lib.tasks.metrics import METRICS, mae, mse, ndcg, relative_mse, spearman

score = st.integers(-20, 20).map(lambda i: i / 4)  # few distinct values: ties are common
pairs = st.lists(st.tuples(score, score), min_size=3, max_size=40).map(
    lambda rows: tuple(np.array(rows).T)
)
varied = pairs.filter(lambda pair: np.ptp(pair[1]) > 0)


@given(varied)
def test_errors_agree_with_scikit_learn(pair):
    predicted, measured = pair
    assert mse(predicted, measured) == pytest.approx(mean_squared_error(measured, predicted))
    assert mae(predicted, measured) == pytest.approx(mean_absolute_error(measured, predicted))
    assert relative_mse(predicted, measured) == pytest.approx(1 - r2_score(measured, predicted))


@given(varied.filter(lambda pair: np.ptp(pair[0]) > 0))
def test_spearman_agrees_with_scipy_and_with_pearson_on_ranks(pair):
    predicted, measured = pair
    value = spearman(predicted, measured)
    assert value == pytest.approx(spearmanr(predicted, measured).statistic)
    assert value == pytest.approx(
        np.corrcoef(rankdata(predicted), rankdata(measured))[0, 1], abs=1e-12
    )


def test_spearman_closed_form_without_ties():
    rng = np.random.default_rng(0)
    a, b = rng.permutation(12), rng.permutation(12)
    assert spearman(a, b) == pytest.approx(1 - 6 * ((a - b) ** 2).sum() / (12 * (12**2 - 1)))
    assert spearman(a, b) != pytest.approx(kendalltau(a, b).statistic)


def test_spearman_with_ties_by_hand():
    # ranks of (1, 1, 2) are (1.5, 1.5, 3), of (1, 2, 3) are (1, 2, 3): 1.5 / sqrt(1.5 * 2)
    assert spearman([1, 1, 2], [1, 2, 3]) == pytest.approx(math.sqrt(3) / 2)


def test_a_constant_prediction_has_spearman_zero_and_relative_error_of_at_least_one():
    measured = np.array([0.3, 1.0, -2.0, 4.0])
    assert spearman(np.full(4, 7.0), measured) == 0.0
    assert relative_mse(np.full(4, measured.mean()), measured) == pytest.approx(1.0)
    assert relative_mse(np.full(4, 7.0), measured) > 1


@pytest.mark.parametrize("metric", [spearman, ndcg, relative_mse])
def test_nothing_to_rank_is_nan_not_a_number_made_up(metric):
    assert math.isnan(metric([1.0, 2.0, 3.0], [5.0, 5.0, 5.0]))


@given(varied, st.floats(0.1, 10), st.floats(-5, 5))
def test_ranks_and_relative_error_do_not_depend_on_the_unit(pair, scale, shift):
    predicted, measured = pair
    for metric in (ndcg, relative_mse):
        moved = metric(
            *(
                (predicted, measured * scale + shift)
                if metric is ndcg
                else (predicted * scale + shift, measured * scale + shift)
            )
        )
        assert moved == pytest.approx(metric(predicted, measured), abs=1e-6)


def proteingym_ndcg(predicted, measured):
    """The definition, spelled out: no ties among predictions."""
    k = math.floor(len(measured) / 10)
    gains = (measured - measured.min()) / (measured.max() - measured.min())
    weights = 1 / np.log2(np.arange(2, k + 2))
    return (gains[np.argsort(-predicted)][:k] @ weights) / (np.sort(gains)[::-1][:k] @ weights)


@given(st.integers(10, 95), st.integers(0, 10_000))
def test_ndcg_is_the_definition_where_predictions_differ(n, seed):
    rng = np.random.default_rng(seed)
    predicted, measured = rng.normal(size=n), rng.normal(size=n).round(1)
    assert ndcg(predicted, measured) == pytest.approx(proteingym_ndcg(predicted, measured))


def test_ndcg_by_hand():
    # 20 variants, so the top two count; scores 0..19, gains 0..1
    measured = np.arange(20.0)
    predicted = measured.copy()
    assert ndcg(predicted, measured) == pytest.approx(1.0)
    predicted[[0, 19]] = predicted[[19, 0]]  # the worst variant is put first
    best = 1 + (18 / 19) / math.log2(3)
    assert ndcg(predicted, measured) == pytest.approx((18 / 19) / math.log2(3) / best)
    # 29 variants: still two (floor), below the cut nothing matters
    measured = np.arange(29.0)
    predicted = np.concatenate([measured[:27][::-1] - 100, measured[27:]])
    assert ndcg(predicted, measured) == pytest.approx(1.0)


def test_ndcg_shares_the_gains_of_tied_predictions():
    rng = np.random.default_rng(1)
    measured = rng.normal(size=30)
    predicted = np.repeat([0.0, 1.0], 15)  # the top three are drawn from 15 ties
    orders = [ndcg(predicted + 1e-6 * rng.permutation(30), measured) for _ in range(4000)]
    assert ndcg(predicted, measured) == pytest.approx(np.mean(orders), abs=0.01)
    assert ndcg(np.zeros(30), measured) < ndcg(measured, measured) == pytest.approx(1.0)


@pytest.mark.parametrize("name", list(METRICS))
def test_direction_is_told_rightly(name):
    rng = np.random.default_rng(2)
    measured = rng.normal(size=200)
    good, bad = (
        METRICS[name].function(measured + s * rng.normal(size=200), measured) for s in (0.2, 3)
    )
    assert (good > bad) == METRICS[name].higher_is_better


@pytest.mark.parametrize("name", list(METRICS))
def test_what_needs_a_scale_is_told_rightly(name):
    rng = np.random.default_rng(3)
    predicted, measured = rng.normal(size=50), rng.normal(size=50)
    function = METRICS[name].function
    moved = function(predicted * 10 + 3, measured)
    assert (moved != pytest.approx(function(predicted, measured))) == METRICS[name].needs_scale


@pytest.mark.parametrize("name", list(METRICS))
@pytest.mark.parametrize(
    ("predicted", "measured", "said"),
    [
        ([1, 2], [1, 2, 3], "one length"),
        ([[1, 2]], [[1, 2]], "vectors"),
        ([], [], "at least"),
        ([1, math.nan], [1, 2], "finite"),
        ([1, 2], [1, math.inf], "finite"),
    ],
)
def test_what_is_not_a_pair_of_finite_vectors_is_refused(name, predicted, measured, said):
    with pytest.raises(ValueError, match=said):
        METRICS[name].function(np.array(predicted), np.array(measured))
