"""Figures of the checks say what they show."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from mutmeta_lib.app import plots


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def curves():
    return pd.DataFrame(
        [
            {"labels": k, "method": m, "step": s, "metric": "spearman", "mean": 0.1 * s}
            | {"low": 0.1 * s - 0.1, "high": 0.1 * s + 0.1, "n_assays": 5, "n_clusters": 4}
            for k in (10, 40)
            for m in ("maml", "finetune")
            for s in (0, 1, 5)
        ]
    )


def test_adaptation_has_a_panel_per_number_of_labels():
    figure = plots.adaptation_curves(
        curves(), "step", "spearman", title="T", xlabel="steps", ylabel="Spearman"
    )
    assert [axis.get_title("left") for axis in figure.axes] == ["10 labels", "40 labels"]
    assert [tick.get_text() for tick in figure.axes[-1].get_xticklabels()] == ["0", "1", "5"]
    assert "5 assays of 4 protein clusters" in " ".join(text.get_text() for text in figure.texts)


def test_a_bill_without_a_lower_end_is_drawn_at_the_edge():
    numbers = {
        "saved_maml_10_over_1": {"value": -40.0, "low": None, "high": -20.0},
        "saved_maml_10": {"value": 0.5, "low": 0.2, "high": 0.7},
    }
    axis = plots.shared_bill(numbers, ("maml",), 10, [1], "T").axes[0]
    assert axis.lines[1].get_ydata().tolist() == [-100, 50]


def test_an_interval_with_zero_is_hollow():
    table = pd.DataFrame(
        [
            {"row": "first", "kind": "a", "mean": 0.2, "low": 0.1, "high": 0.3},
            {"row": "second", "kind": "a", "mean": 0.0, "low": -0.1, "high": 0.1},
        ]
    ).assign(n_assays=3, n_proteins=3)
    axis = plots.forest(table, "row", "kind", title="T", xlabel="x").axes[0]
    points = [line for line in axis.lines if line.get_marker() == "o" and len(line.get_xdata())]
    assert [line.get_markerfacecolor() for line in points][1] == "white"
    assert points[0].get_markerfacecolor() != "white"
