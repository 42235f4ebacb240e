"""Figures of the third arm show every row, and nothing outside their frame unsaid."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from mutmeta_lib.app import plots

SIZES = {"n_assays": 12, "n_units": 9}


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def check(figure):
    assert figure.get_figwidth() == pytest.approx(5.5)
    assert figure.get_suptitle().strip()
    (axis,) = figure.axes
    assert axis.get_xlabel()
    figure.canvas.draw()
    return axis


def marks(axis):
    return [container for container in axis.containers if len(container.lines[0].get_xdata())]


def test_gains_show_every_control_and_what_was_claimed():
    rows = [
        {"group": group, "baseline": baseline, "mean": 0.1, "low": -9.0, "high": 0.3, **SIZES}
        for group in ("fitness", "solubility")
        for baseline in ("finetune", "ridge", "mean")
    ]
    figure = plots.gain_forest(pd.DataFrame(rows), {"fitness": 0.29}, title="Gains")
    axis = check(figure)
    assert len(marks(axis)) == 3
    crosses = [line for line in axis.lines if line.get_marker() == "x"]
    assert crosses[0].get_xdata().tolist() == [0.29]
    assert axis.get_xlim()[0] >= -1.5


def test_encodings_have_a_row_each():
    rows = [
        {"encoding": name, "pooling": "sites", "method": method}
        | {"mean": 0.3, "low": 0.2, "high": 0.4, **SIZES}
        for name in ("separator", "unknown_text")
        for method in ("maml", "finetune")
    ]
    axis = check(plots.methods_by_encoding(pd.DataFrame(rows), title="Encodings"))
    labels = [text.get_text() for text in axis.get_yticklabels()]
    assert labels == ["separator\n(sites)", "unknown text\n(sites)"]


def test_identity_has_one_point_per_assay():
    points = pd.DataFrame(
        {
            "identity": np.linspace(0.1, 1, 10),
            "lead": np.linspace(-1, 1, 10),
            "regime": ["far"] * 6 + ["near"] * 4,
        }
    )
    axis = check(plots.identity_scatter(points, title="Identity"))
    assert sum(len(group.get_offsets()) for group in axis.collections) == 10


def test_signatures_are_named_and_in_order():
    rows = [
        {"rival": rival, "sign": sign, "mean": 0.2, "low": -0.1, "high": 0.5, **SIZES}
        for rival in ("ridge", "blosum")
        for sign in ("length", "identity")
    ]
    names = {"identity": "how near", "length": "how long", "ties": "not there"}
    axis = check(plots.signature_forest(pd.DataFrame(rows), names, title="Signatures"))
    assert [text.get_text() for text in axis.get_yticklabels()] == ["how near", "how long"]


def test_leads_show_every_assay_once_per_rival():
    failures = pd.DataFrame(
        {
            "property": ["fitness"] * 5,
            "role": ["fitness"] * 3 + ["other"] * 2,
            "maml": 0.5,
            "ridge": np.linspace(0.1, 0.9, 5),
            "finetune": 0.4,
        }
    )
    axis = check(plots.lead_strip(failures, ["ridge", "finetune"], title="Leads"))
    dots = [line for line in axis.lines if line.get_linestyle() == "None"]
    assert sum(len(line.get_xdata()) for line in dots) == 10
