import numpy as np
import pytest

from mutmeta_lib.reproduction.protocol_resample import (
    resampled,
    resampled_difference,
    resampled_product,
)


def test_the_gain_is_the_share_of_error_saved():
    other = np.random.default_rng(0).uniform(0.5, 2, (5, 40))
    gain, low, high = resampled(0.71 * other, other)
    assert [gain, low, high] == pytest.approx([29, 29, 29])


def test_errors_are_averaged_over_seeds_and_ratios_geometrically_over_draws():
    values = np.array([[1.0, 8.0], [3.0, 8.0]])
    other = np.array([[1.0], [1.0]])
    gain, low, high = resampled(values, other)
    assert gain == pytest.approx(100 * (1 - np.sqrt(2.0 * 8.0)))
    assert low <= gain <= high


def test_the_interval_narrows_with_more_draws():
    rng = np.random.default_rng(1)
    widths = []
    for draws in (20, 500):
        values, other = rng.lognormal(size=(2, 5, draws))
        _, low, high = resampled(values, other)
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


def test_a_draw_without_ranks_is_left_out():
    values = np.array([[0.5, np.nan], [0.5, 0.9]])
    assert resampled_difference(values) == pytest.approx((0.5, 0.5, 0.5))


def test_a_ratio_of_ratios_is_what_one_gain_has_beyond_another():
    rng = np.random.default_rng(2)
    base, other = rng.lognormal(size=(2, 5, 40))
    factors = [(1, 0.6 * base), (-1, base), (-1, 0.8 * other), (1, other)]
    assert resampled_product(factors) == pytest.approx((25, 25, 25))


def test_the_parts_of_a_product_multiply():
    a, b, c = np.random.default_rng(3).lognormal(size=(3, 4, 30))
    kept = [1 - resampled(x, y)[0] / 100 for x, y in ((a, b), (b, c), (a, c))]
    assert kept[0] * kept[1] == pytest.approx(kept[2])
