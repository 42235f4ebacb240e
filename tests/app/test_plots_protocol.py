import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from mutmeta_lib.app import plots
from mutmeta_lib.reproduction.protocol_numbers import AGAINST, CLAIMS, compared, gain_row

TARGETS = ("binding_affinity", "fireprot_dTm")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def tables():
    rng = np.random.default_rng(0)
    methods = {name for name, _ in compared()} | {name for name, _ in AGAINST.values()}
    gains, ratios = [], []
    for target in TARGETS:
        results = [
            {
                "draws": {
                    "16": {
                        name: {"mse": rng.lognormal(size=30), "spearman": rng.uniform(-1, 1, 30)}
                        for name in methods
                    }
                },
                "whole": {name: {"mse": 1.0, "spearman": 0.1} for name in methods},
            }
            for _ in range(3)
        ]
        for method, against in compared():
            row, bins = gain_row(results, 16, method, against)
            what = {"target": target, "method": method, "against": against}
            gains.append(what | row)
            ratios.append(pd.DataFrame(bins).assign(**what))
    return pd.DataFrame(gains), pd.concat(ratios)


def check(figure, panels):
    assert figure.get_figwidth() == pytest.approx(5.5)
    assert len(figure.axes) == panels
    figure.canvas.draw()


def test_gain_draws_marks_the_claim_where_there_is_one(tables):
    figure = plots.gain_draws(tables[1], CLAIMS)
    check(figure, 2)
    labels = [axis.get_legend_handles_labels()[1] for axis in figure.axes]
    assert "the paper's gain" in labels[0]
    assert "the paper's gain" not in labels[1]
    low, high = figure.axes[0].get_xlim()
    assert low > high, "gains grow to the right"


def test_gain_intervals_has_a_row_per_comparison(tables):
    figure = plots.gain_intervals(tables[0], CLAIMS)
    check(figure, 2)
    assert len(figure.axes[0].get_yticklabels()) == 4


def test_time_and_rows_shows_all_ways():
    times = pd.DataFrame(
        [
            {"rows": n, "method": way, "seconds": n / 100, "mse": 1.0, "seed": seed}
            for n in (100, 1000)
            for way in ("epochs", "steps", "meta")
            for seed in (0, 1)
        ]
    )
    figure = plots.time_and_rows(times)
    check(figure, 2)
    assert len(figure.axes[0].get_legend_handles_labels()[1]) == 3
