"""The scorecard shows each number once, in both colour schemes, and cuts nothing off unsaid."""

import io

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from mutmeta_lib.app.plots.scorecard import INKS, scorecard

mpl.use("agg")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def ranking():
    lead = {"lead": 0.05, "lead_low": -0.01, "lead_high": 0.09}
    rows = [
        ("maml", "MAML", True, 0.2, 0.15, 0.25),
        ("maml", "MAML", False, 0.1, 0.05, 0.15),
        ("ridge", "ridge", True, 0.15, 0.1, 0.2),
    ]
    table = pd.DataFrame(rows, columns=["method", "name", "known", "value", "low", "high"])
    return table.assign(**lead)


def claims():
    rows = [
        ("A: 29 %", 29, "not reproduced", "unseen", True, 1.6, -0.8, 3.5),
        ("A: 29 %", 29, "not reproduced", "otherwise", False, 94.0, np.nan, np.nan),
        ("B: 55 %", 55, "not testable here", "unseen", True, -228.0, -np.inf, -99.0),
    ]
    names = ["claim", "claimed", "verdict", "name", "decides", "value", "low", "high"]
    return pd.DataFrame(rows, columns=names)


@pytest.fixture(params=sorted(INKS))
def figure(request):
    return scorecard(ranking(), claims(), counted="12 assays", scheme=request.param)


def test_both_panels_have_titles_units_and_a_key(figure):
    words = [text.get_text() for text in figure.texts]
    assert "Ten labels of an unseen protein" in words
    assert "12 assays" in words
    upper, lower = figure.axes
    assert "Spearman" in upper.get_xlabel()
    assert "%" in lower.get_xlabel()
    (key,) = figure.legends
    assert "95 % interval" in " ".join(text.get_text() for text in key.get_texts())


def test_each_number_and_verdict_is_written(figure):
    upper, lower = ([text.get_text() for text in axis.texts] for axis in figure.axes)
    assert "+0.050 [−0.010, 0.090]" in upper
    for told in ("1.6 % [−0.8, 3.5]", "94 %", "−228 % [−∞, −99]"):
        assert lower.count(told) == 1
    assert lower.count("not reproduced") == 1
    assert lower.count("not testable here") == 1


def test_what_decides_is_filled_and_the_rest_is_hollow(figure):
    lower = figure.axes[1]
    points = [line for line in lower.lines if line.get_marker() == "o"]
    filled = {
        line.get_xdata()[0]: line.get_markerfacecolor() == line.get_color() for line in points
    }
    assert filled == {1.6: True, 94.0: False}
    arrows = [line for line in lower.lines if line.get_marker() == "<"]
    assert len(arrows) == 1


def test_the_paper_s_figures_are_lines(figure):
    lines = [line for line in figure.axes[1].lines if line.get_linewidth() == 2.4]
    assert [line.get_xdata()[0] for line in lines] == [29, 55]


def test_nothing_is_cut_off(figure):
    figure.canvas.draw()
    width, height = figure.bbox.size
    for text in figure.findobj(mpl.text.Text):
        if text.get_text() and text.get_visible():
            box = text.get_window_extent()
            assert box.x0 >= 0, text
            assert box.y0 >= 0, text
            assert box.x1 <= width, text
            assert box.y1 <= height, text


@pytest.mark.parametrize("scheme", sorted(INKS))
def test_words_stand_out_from_the_ground(scheme):
    """At least 4.5 to 1, as WCAG 2 asks of small letters; marks 3 to 1."""

    def light(colour):
        parts = np.array(to_rgb(colour))
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    def contrast(a, b):
        high, low = sorted((light(a), light(b)), reverse=True)
        return (high + 0.05) / (low + 0.05)

    ink = INKS[scheme]
    for colour in (ink.text, ink.faint, ink.ours):
        assert contrast(colour, ink.paper) >= 4.5
    assert contrast(ink.theirs, ink.paper) >= 3


@pytest.mark.parametrize("scheme", sorted(INKS))
def test_the_same_tables_give_the_same_bytes(scheme):
    def drawn():
        file = io.BytesIO()
        with plt.rc_context({"svg.hashsalt": "x"}):
            figure = scorecard(ranking(), claims(), counted="12", scheme=scheme)
            figure.savefig(file, format="svg", metadata={"Date": None})
        return file.getvalue()

    assert drawn() == drawn()
