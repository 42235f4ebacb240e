import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from mutmeta_lib.app import plots
from mutmeta_lib.reproduction.query_draws import error_histogram, label_histogram, query_error_table


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def labels():
    rng = np.random.default_rng(0)
    return {
        name: rng.standard_normal(200)
        for name in ("soluprotmut_solubility_test", "binding_affinity_test")
    }


def joined(labels, make):
    return pd.concat([make(values).assign(table=name) for name, values in labels.items()])


def check(figure, panels):
    assert figure.get_figwidth() == pytest.approx(5.5)
    assert figure.get_suptitle().strip()
    assert len(figure.axes) == panels
    assert figure.axes[-1].get_xlabel()
    assert all(axis.get_ylabel() or axis.get_yticklabels() for axis in figure.axes)
    figure.canvas.draw()


def test_label_tails_draws_every_row(labels):
    figure = plots.label_tails(joined(labels, label_histogram))
    check(figure, 2)
    for axis in figure.axes:
        assert sum(bar.get_height() for bar in axis.patches) == 200
    # Tables keep their order, whatever that of the rows.
    assert figure.axes[0].get_title("left") == "binding_affinity"


def test_error_histograms_draw_every_draw_and_the_truth(labels):
    rng = np.random.default_rng(0)
    table = joined(labels, lambda y: error_histogram(y, size=16, draws=50, rng=rng))
    figure = plots.query_error_histograms(table.assign(query_rows=16))
    check(figure, 2)
    for axis in figure.axes:
        assert sum(bar.get_height() for bar in axis.patches) == pytest.approx(100)
        assert axis.lines[0].get_xdata()[0] == 1
    assert any("16 random test rows" in text.get_text() for text in figure.texts)


def test_error_intervals_have_a_tick_per_number_of_rows(labels):
    rng = np.random.default_rng(0)
    table = joined(
        labels,
        lambda y: query_error_table(y, sizes=(8, 16, 32), draws=50, correlation=0.5, rng=rng),
    )
    figure = plots.query_error_intervals(table)
    check(figure, 1)
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.get_xticklabels()] == ["8", "16", "32"]
    assert len(axis.containers) == 2


def test_signs_names_kinds_and_counts():
    rows = [
        {"kind": kind, "group": group, "rows": n, "mean": mean, "low": mean - 1, "high": mean + 1}
        for kind in ("one (here)", "two")
        for group, n, mean in (("to proline", 7, -1.0), ("to another residue", 1200, 0.0))
    ]
    figure = plots.signs(pd.DataFrame(rows))
    check(figure, 1)
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.get_yticklabels()] == ["one\n(here)", "two"]
    assert sorted(text.get_text() for text in axis.texts) == ["n = 1,200"] * 2 + ["n = 7"] * 2
