import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from mutmeta_lib.app import plots

SIZES = (32, 8, 16)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def gains():
    rng = np.random.default_rng(0)
    rows = []
    for target in ("binding_affinity", "fireprot_dTm"):
        for size in SIZES:
            for method in ("released", "first_order", "second_order", "finetuned"):
                for against in ("reported", "same_rows", "same_labels"):
                    q = np.sort(rng.uniform(-200, 90, 5))
                    row = dict(zip(("q2_5", "q25", "q50", "q75", "q97_5"), q, strict=True))
                    row |= {"gain": float(size), "low": size - 3.0, "high": size + 2.0}
                    row |= {"target": target, "size": size, "method": method}
                    rows.append(row | {"against": against})
    return pd.DataFrame(rows)


def test_gains_and_rows_is_in_order_of_size_and_draws_the_interval(gains):
    figure = plots.gains_and_rows(gains)
    assert figure.get_figwidth() == pytest.approx(5.5)
    assert len(figure.axes) == 4
    figure.canvas.draw()
    axis = figure.axes[0]
    labels = figure.axes[-2].get_xticklabels()
    assert [label.get_text() for label in labels] == ["8", "16", "32"]
    points, _, (bars,) = axis.containers[0].lines
    assert points.get_ydata().tolist() == [8, 16, 32]
    assert [segment[:, 1].tolist() for segment in bars.get_segments()] == [
        [5, 10],
        [13, 18],
        [29, 34],
    ]


def test_spread_and_rows_shows_fine_tuning_beside_the_arms(gains):
    figure = plots.spread_and_rows(gains)
    assert len(figure.axes) == 2
    figure.canvas.draw()
    axis = figure.axes[0]
    assert "fine-tuning itself" in axis.get_legend_handles_labels()[1]
    assert len(axis.get_yticklabels()) == 3
    low, high = axis.get_xlim()
    assert low > high, "gains grow to the right"
    own = gains.query("target == 'binding_affinity' and method == 'finetuned'")
    own = own[own["against"] == "reported"].set_index("size").loc[[8, 16, 32]]
    drawn = [segment[:, 0] for segment in axis.collections[0].get_segments()]
    assert np.array(drawn) == pytest.approx(1 - own[["q97_5", "q2_5"]].to_numpy() / 100)
