"""The interval means what it says: coverage by simulation, groups kept together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mutmeta_lib.study.bootstrap import bootstrap_mean, bootstrap_ratio, effective_number

numbers = st.lists(st.floats(-100, 100), min_size=2, max_size=20).map(np.array)


def coverage(draw, n_simulations=500):
    hits = 0
    for simulation in range(n_simulations):
        values, groups = draw(np.random.default_rng(simulation))
        _, low, high = bootstrap_mean(values, groups, n_boot=500, seed=simulation)
        hits += low <= 0 <= high
    return hits / n_simulations


def test_coverage_is_about_95_percent():
    # 500 simulations: two standard errors are 2 points; the percentile interval is a touch narrow.
    assert 0.92 < coverage(lambda rng: (rng.normal(size=40), None)) < 0.97


def test_resampling_groups_covers_where_resampling_values_does_not():
    def draw(rng):
        groups = np.repeat(np.arange(30), 5)
        return rng.normal(size=30)[groups] + 0.3 * rng.normal(size=150), groups

    assert 0.90 < coverage(draw) < 0.98
    assert coverage(lambda rng: (draw(rng)[0], None)) < 0.75


def test_width_agrees_with_the_normal_interval():
    values = np.random.default_rng(1).normal(2, 3, size=400)
    mean, low, high = bootstrap_mean(values, n_boot=10_000)
    expected = stats.norm.interval(0.95, mean, stats.sem(values))
    assert (low, high) == pytest.approx(expected, abs=0.03)


def test_level_is_respected():
    values = np.random.default_rng(1).normal(size=400)
    _, low, high = bootstrap_mean(values, level=0.5, n_boot=10_000)
    assert high - low == pytest.approx(2 * 0.6745 * stats.sem(values), rel=0.05)


@given(numbers, st.floats(0.1, 10), st.floats(-10, 10))
def test_interval_moves_with_the_values(values, scale, shift):
    moved = bootstrap_mean(values * scale + shift, n_boot=50)
    assert moved == pytest.approx(
        [x * scale + shift for x in bootstrap_mean(values, n_boot=50)], abs=1e-8
    )


@given(numbers)
def test_mean_is_the_mean_and_interval_within_range(values):
    mean, low, high = bootstrap_mean(values, n_boot=50)
    assert mean == pytest.approx(values.mean())
    assert values.min() - 1e-9 <= low <= high <= values.max() + 1e-9


def test_seed_decides():
    values = np.random.default_rng(0).normal(size=10)
    assert bootstrap_mean(values, seed=1) == bootstrap_mean(values, seed=1)
    assert bootstrap_mean(values, seed=1) != bootstrap_mean(values, seed=2)


@pytest.mark.parametrize(
    ("values", "groups"), [([3.0], None), ([3.0, 4.0], ["a", "a"]), ([], None)]
)
def test_fewer_than_two_units_have_no_interval(values, groups):
    mean, low, high = bootstrap_mean(np.array(values), groups)
    assert np.isnan(mean) == (not values)
    assert np.isnan([low, high]).all()


def test_groups_of_one_are_the_values():
    values = np.random.default_rng(0).normal(size=10)
    assert bootstrap_mean(values, np.arange(10)) == bootstrap_mean(values)


@given(st.lists(st.sampled_from("abcde"), min_size=1, max_size=30))
def test_effective_number_lies_between_one_and_the_number(groups):
    groups = np.array(groups)
    assert 1 <= effective_number(groups) <= len(set(groups)) + 1e-9
    assert effective_number(np.tile(list("abcd"), 3)) == pytest.approx(4)


def test_effective_number_of_nothing_is_zero():
    assert effective_number(np.array([])) == 0.0


def test_a_ratio_of_proportional_values_has_no_spread():
    below = np.array([1.0, 2.0, 5.0])
    assert bootstrap_ratio(3 * below, below) == pytest.approx((3.0, 3.0, 3.0))


def test_a_cost_over_a_saving_that_may_not_exist_has_an_interval_without_an_end():
    value, low, high = bootstrap_ratio(np.ones(4), np.array([1.0, 1.0, 1.0, -2.5]))
    assert value == pytest.approx(8.0)
    assert 0 < low < value
    assert high == np.inf
    assert bootstrap_ratio(np.ones(3), -np.ones(3)) == (np.inf, np.inf, np.inf)


def test_a_ratio_of_one_group_has_no_interval():
    value, low, high = bootstrap_ratio(np.ones(3), np.ones(3), np.zeros(3))
    assert value == 1.0
    assert np.isnan([low, high]).all()
