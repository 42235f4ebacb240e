import numpy as np
import pytest

from mutmeta_lib.experiments.protocol_numbers import (
    AGAINST,
    compared,
    gain_row,
    resampled,
    resampled_difference,
    shown,
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


def result(scale, seed):
    rng = np.random.default_rng(seed)
    base = rng.lognormal(size=30)
    methods = {"released": scale, "finetuned": 1.0, "initial_adapted": 2.0, "mean": 4.0}
    methods["finetuned_slow"] = 3.0
    drawn = {
        name: {"mse": (factor * base).tolist(), "spearman": [0.5 / factor] * 30}
        for name, factor in methods.items()
    }
    whole = {name: {"mse": 10.0 * factor, "spearman": 0.1} for name, factor in methods.items()}
    return {"draws": {"16": drawn}, "whole": whole}


def test_each_comparison_takes_its_own_method_and_rows():
    results = [result(0.5, seed) for seed in range(3)]
    rows = {against: gain_row(results, 16, "released", against)[0] for against in AGAINST}
    assert rows["same_rows"]["gain"] == pytest.approx(50)
    assert rows["same_labels"]["gain"] == pytest.approx(75)
    assert rows["mean"]["gain"] == pytest.approx(87.5)
    assert rows["same_rows_slow"]["gain"] == pytest.approx(100 * 5 / 6)
    assert rows["same_rows"]["over_29"] == 100
    assert rows["same_rows"]["over_94"] == 0
    assert rows["same_rows"]["spearman"] == pytest.approx(0.5)
    single = np.array([r["draws"]["16"]["released"]["mse"] for r in results]) / 10
    reported = rows["reported"]
    assert reported["first"] == pytest.approx(100 * (1 - single[0, 0]))
    assert reported["over_94"] == pytest.approx(100 * np.mean(single <= 0.06))
    assert reported["q50"] == pytest.approx(100 * (1 - np.median(single)))
    assert (reported["seeds"], reported["draws"]) == (3, 30)


def test_the_histogram_holds_every_draw():
    _, bins = gain_row([result(0.5, 0)], 16, "released", "reported")
    assert bins["share"].sum() == pytest.approx(1)


def test_fine_tuning_is_compared_with_itself_once():
    assert compared().count(("finetuned", "reported")) == 1
    assert len(set(compared())) == len(compared())


def test_the_usual_size_is_shown_where_it_was_run():
    assert shown((8, 16, 32)) == 16
    assert shown((4, 8)) == 8
