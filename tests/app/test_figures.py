"""The contract of every figure: its words, intervals and colours, and what it refuses."""

from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import same_color, to_hex
from matplotlib.text import Text

from mutmeta_lib.app import figures
from mutmeta_lib.app.style import LOOKS, MARKERS, PALETTE, looks
from mutmeta_lib.errors import DataError
from mutmeta_lib.learn.methods import METHODS

MEANS = pd.DataFrame(
    [
        {"group": group, "method": method, "shots": shots, "mean": mean}
        for group in ("stability", "fitness")
        for nth, method in enumerate(["maml", "finetune", "my_method"])
        for shots, mean in zip([0, 1, 10], [0.1 * nth - 0.05, 0.3, -0.4], strict=True)
    ]
).assign(low=lambda t: t["mean"] - 0.11, high=lambda t: t["mean"] + 0.13, n_assays=7, n_clusters=3)
BINS = pd.DataFrame({"low": [0, 1, 2] * 2, "rows": [5, 0, 2, 1, 7, 3]}).assign(
    high=lambda t: t["low"] + 1, method=["maml"] * 3 + ["ridge"] * 3
)
DRAWN = {
    "curve": (partial(figures.curve, x="shots", panels=["group"], reference=(0, "chance")), MEANS),
    "band": (partial(figures.curve, x="shots", panels=["group"], band=True), MEANS),
    "forest": (partial(figures.forest, rows="shots", by="method", panels=["group"]), MEANS),
    "claims": (
        partial(figures.forest, rows="method", panels=["group"], marks=("claim", {"maml": 0.4})),
        MEANS[MEANS["shots"] == 10].assign(least=-0.9, most=0.9),
    ),
    "histogram": (partial(figures.histogram, height="rows", by="method", log=True), BINS),
    "panels": (partial(figures.histogram, height="rows", by="method", panels=["method"]), BINS),
}
SAID = {"title": "A title", "subtitle": "its subtitle", "xlabel": "time (s)", "ylabel": "error (%)"}
EVERY = pytest.mark.parametrize("name", DRAWN)


@pytest.fixture(autouse=True)
def no_figure_stays():
    yield
    plt.close("all")


def draw(name, rows=slice(None), **words):
    function, table = DRAWN[name]
    figure = function(table.iloc[rows], **SAID | words)
    figure.canvas.draw()
    return figure


def texts(figure) -> list[str]:
    return [text.get_text().strip() for text in figure.findobj(Text) if text.get_visible()]


@EVERY
@pytest.mark.parametrize("rows", [slice(None), slice(1)], ids=["all", "one row"])
def test_words_are_there_legible_and_inside(name, rows):
    figure = draw(name, rows)
    assert {*SAID.values()} <= {*texts(figure)}
    edge = figure.bbox.expanded(1.01, 1.01)
    shown = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
    assert min(text.get_fontsize() for text in shown) >= 9
    for text in [*figure.texts, *(axis.title for axis in figure.axes)]:
        box = text.get_window_extent()
        assert edge.x0 <= box.x0 and box.x1 <= edge.x1, text  # noqa: PT018


@EVERY
def test_what_cannot_be_drawn_is_told_in_one_sentence(name):
    function, table = DRAWN[name]
    with pytest.raises(DataError, match="the table to be drawn has no row; choose rows"):
        draw(name, slice(0))
    column = "mean" if "mean" in table else "rows"
    with pytest.raises(DataError, match=f"the table has no column.*'{column}'.*; it has"):
        function(table.drop(columns=column), **SAID)
    if "mean" in table:
        with pytest.raises(DataError, match=r"several rows share their .*; choose one row"):
            function(pd.concat([table, table]), **SAID)


@pytest.mark.parametrize("name", ["curve", "band", "forest", "histogram"])
def test_series_have_the_colours_of_their_looks_and_a_legend(name):
    figure, table = draw(name), DRAWN[name][1]
    legend = texts(figure.legends[0])
    known = looks(pd.unique(table["method"]))
    for look in known.values():
        assert any(entry.startswith(look.label) for entry in legend), look
    marked = [line for axis in figure.axes for line in axis.lines if line.get_marker() in MARKERS]
    drawn = {(to_hex(line.get_color()).upper(), line.get_marker()) for line in marked}
    assert drawn <= {(look.colour, look.marker) for look in known.values()}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_look_of_its_own_in_every_company(name):
    look = looks(["my_method", "another", name, "maml"])[name]
    assert look == LOOKS[name] == looks([name])[name]
    assert look.label != name.replace("_", " ") or name == "mean"
    assert look.colour in PALETTE
    assert [other for other, its in LOOKS.items() if its[1:3] == look[1:3]] == [name]


def test_other_series_take_what_is_free():
    found = looks(["maml", "ridge", *range(12)])
    assert len({(look.colour, look.marker) for look in found.values()}) == 14
    assert {found[n].colour for n in range(6)}.isdisjoint({found["maml"][1], found["ridge"][1]})


def segments(axis, horizontal: bool) -> set[tuple]:
    """Place and ends, along the axis of values, of all lines that collections of the axis hold."""
    along = 0 if horizontal else 1
    held = [lines for lines in axis.collections if hasattr(lines, "get_segments")]
    lines = [line.round(6) for own in held for line in own.get_segments() if len(line)]
    return {(line[0, 1 - along], line[0, along], line[1, along]) for line in lines}


@pytest.mark.parametrize("name", ["curve", "forest", "claims"])
def test_intervals_are_those_of_the_table_and_beside_each_other(name):
    figure, (function, table) = draw(name), DRAWN[name]
    for axis, group in zip(figure.axes, ["stability", "fitness"], strict=True):
        rows = table[table["group"] == group].round(6)
        drawn = {line for line in segments(axis, name != "curve") if line[1:] != (-0.9, 0.9)}
        assert {line[1:] for line in drawn} == {*zip(rows["low"], rows["high"], strict=True)}
        assert len({line[0] for line in drawn}) == len(rows), "none hides another"
        behind = len(segments(axis, name != "curve")) - len(drawn)
        assert behind == (len(rows) if name == "claims" else 0)
    alone = function(table.assign(low=np.nan, high=np.nan), title="Alone")
    drawn = {line[1:] for line in segments(alone.axes[0], name != "curve")} - {(-0.9, 0.9)}
    assert all(low == high for low, high in drawn), "a point without interval stands alone"
    assert "mean of 7 assays of 3 clusters, no interval" in texts(alone)


def test_a_band_reaches_from_low_to_high():
    (axis, _), rows = draw("band").axes, MEANS[MEANS["group"] == "stability"]
    for band, (_, own) in zip(axis.collections, rows.groupby("method", sort=False), strict=True):
        corners = {tuple(corner) for corner in band.get_paths()[0].vertices.round(6)}
        for end in ("low", "high"):
            assert {*zip(own["shots"] * 1.0, own[end].round(6), strict=True)} <= corners


def test_points_are_hollow_whose_interval_holds_the_reference():
    axis = draw("forest").axes[0]
    own = {look.colour: name for name, look in looks(pd.unique(MEANS["method"])).items()}
    rows = MEANS[(MEANS["group"] == "stability") & (MEANS["low"] <= 0) & (MEANS["high"] >= 0)]
    found = [
        (own[line.get_color()], round(float(x), 6))
        for line in axis.lines
        if same_color(line.get_markerfacecolor(), "white")
        for x in line.get_xdata()
    ]
    assert sorted(found) == sorted(zip(rows["method"], rows["mean"].round(6), strict=True))
    (reference,) = {tuple(line.get_xdata()) for line in axis.lines if len(line.get_xdata()) == 2}
    assert reference == (0, 0)


def test_bins_are_those_of_the_table():
    drawn = [patch.get_data() for patch in draw("histogram").axes[0].patches]
    assert [data.values.tolist() for data in drawn] == [[5, 0, 2], [1, 7, 3]]
    assert all(data.edges.tolist() == [0, 1, 2, 3] for data in drawn)


def test_panels_have_units_of_their_own_and_without_a_subtitle_counts_say_what_means_are_of():
    units = {"stability": "kcal/mol", "fitness": "error (%)"}
    figure = draw("curve", subtitle=None, ylabel=units)
    assert [axis.get_ylabel() for axis in figure.axes] == [*units.values()]
    assert "mean of 7 assays of 3 clusters, 95 % interval" in texts(figure)
