import numpy as np
import pytest

from mutmeta_lib.reproduction.query_draws import (
    draw_errors,
    error_histogram,
    label_histogram,
    query_error_table,
    skilled,
)


def tailed(n=400, seed=0):
    rng = np.random.default_rng(seed)
    labels = 0.2 * rng.standard_normal(n)
    labels[7] = 20.0
    return labels


def test_draws_are_means_of_rows_without_replacement():
    squared = np.arange(10.0)
    errors, rows = draw_errors(squared, 4, 50, np.random.default_rng(0))
    assert rows.shape == (50, 4)
    assert all(len(set(drawn)) == 4 for drawn in rows.tolist())
    assert errors == pytest.approx(squared[rows].mean(axis=1))
    whole, _ = draw_errors(squared, 10, 3, np.random.default_rng(0))
    assert whole == pytest.approx(squared.mean())


def test_all_predictors_see_the_same_rows():
    squared = np.stack([np.arange(10.0), 2 * np.arange(10.0)])
    (a, b), _ = draw_errors(squared, 3, 20, np.random.default_rng(0))
    assert b == pytest.approx(2 * a)


@pytest.mark.parametrize("size", [0, 11])
def test_more_rows_than_there_are_cannot_be_drawn(size):
    with pytest.raises(ValueError, match="cannot draw"):
        draw_errors(np.arange(10.0), size, 1, np.random.default_rng(0))


def test_the_skilled_predictor_has_the_skill_asked_for():
    labels = np.random.default_rng(1).standard_normal(20_000)
    predicted = skilled(labels, 0.6, np.random.default_rng(2))
    assert np.corrcoef(labels, predicted)[0, 1] == pytest.approx(0.6, abs=0.02)
    relative = np.mean((labels - predicted) ** 2) / labels.var()
    assert relative == pytest.approx(1 - 0.36, abs=0.02)


def test_the_share_of_draws_with_the_largest_row_is_what_counting_gives():
    table = query_error_table(
        tailed(), sizes=(16,), draws=4000, correlation=0.5, rng=np.random.default_rng(0)
    )
    assert table["has_largest"][0] == pytest.approx(16 / 400, abs=0.01)


def test_a_tail_makes_few_rows_look_too_good_and_even_labels_do_not():
    even = np.random.default_rng(0).standard_normal(400)

    def first(labels):
        rng = np.random.default_rng(0)
        table = query_error_table(labels, sizes=(16, 400), draws=500, correlation=0.5, rng=rng)
        assert table["q50"][1] == pytest.approx(1)
        assert table["worse_same"][1] in (0.0, 1.0)
        return table.iloc[0]

    with_tail, without = first(tailed()), first(even)
    assert with_tail["q50"] < 0.1
    assert with_tail["over_50"] > 0.9
    assert without["q50"] == pytest.approx(1, abs=0.1)
    assert without["over_94"] == 0
    assert without["worse_whole"] < 0.5 < with_tail["worse_whole"]


def test_histograms_hold_every_draw_and_every_label():
    labels = tailed()
    errors = error_histogram(labels, size=16, draws=300, rng=np.random.default_rng(0))
    assert errors["share"].sum() == pytest.approx(1)
    assert (errors["low"][1:].to_numpy() == errors["high"][:-1].to_numpy()).all()
    assert errors.loc[errors["high"] <= 1, "share"].sum() > 0.9
    counted = label_histogram(labels, width=0.5)
    assert counted["rows"].sum() == len(labels)
    assert (counted["low"].iloc[-1], counted["high"].iloc[-1]) == (20.0, 20.5)
    assert (counted["rows"] > 0).all()
