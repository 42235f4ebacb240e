"""Figures of the audit and of the protocol, drawn from the committed records."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from mutmeta_lib.app import plots
from mutmeta_lib.app.plots import reproduction as drawn
from mutmeta_lib.records.record import read_record
from mutmeta_lib.reproduction import protocol_estimates as estimates
from mutmeta_lib.reproduction.counts import KINDS

FULL = Path(__file__).parents[2] / "book" / "records" / "full"
CLAIMS = {"binding_affinity": 29, "soluprotmut_solubility": 94}
TEST = "binding_affinity_test"
TARGET = "binding_affinity"


@pytest.fixture(scope="module")
def tables():
    audit, protocol = (read_record(FULL / f"{name}.json") for name in ("audit", "protocol"))
    made = {name: audit.table(name) for name in ("proline", "labels", "errors", "queries")}
    for name in ("gains", "ratios", "times", "encodings", "shares"):
        made[name] = protocol.table(name).query("encoder == 'esm2'")
        if "against" not in made[name] or name in ("gains", "ratios"):
            made[name] = made[name].query("encoding == 'separator'")
    made["at 16"] = made["gains"].query("size == 16")
    made["encodings"] = made["encodings"].query("size == 16")
    made["shares"] = made["shares"].query("size == 16 and base == 'initial_adapted'")
    return made


FIGURES = {
    "signs": (lambda t: plots.signs(t["proline"]), 1),
    "label_tails": (lambda t: plots.label_tails(t["labels"]), 3),
    "query_error_histograms": (lambda t: plots.query_error_histograms(t["errors"]), 3),
    "query_error_intervals": (lambda t: plots.query_error_intervals(t["queries"]), 1),
    "gain_draws": (lambda t: plots.gain_draws(t["ratios"], CLAIMS), 3),
    "gain_intervals": (lambda t: plots.gain_intervals(t["at 16"], CLAIMS), 3),
    "gains_and_rows": (lambda t: plots.gains_and_rows(t["gains"]), 6),
    "spread_and_rows": (lambda t: plots.spread_and_rows(t["gains"]), 3),
    "encoding_gains": (lambda t: plots.encoding_gains(t["encodings"]), 6),
    "gain_shares": (lambda t: plots.gain_shares(t["shares"]), 3),
    "time_and_rows": (lambda t: plots.time_and_rows(t["times"]), 2),
}


@pytest.fixture
def figure(tables, request):
    yield FIGURES[request.param][0](tables)
    plt.close("all")


def shown(*names):
    return pytest.mark.parametrize("figure", names, indirect=True)


@pytest.mark.parametrize(
    ("figure", "panels"), [(n, count) for n, (_, count) in FIGURES.items()], indirect=["figure"]
)
def test_a_figure_fits_a_telephone_and_names_what_it_shows(figure, panels):
    assert figure.get_figwidth() == pytest.approx(5.5)
    assert figure.get_suptitle().strip()
    assert len(figure.axes) == panels
    assert figure.axes[-1].get_xlabel()
    assert figure.axes[0].get_ylabel() or figure.axes[0].get_yticklabels()
    figure.canvas.draw()


def segments(axis, series):
    """The ends of a series' intervals, in the order of its places."""
    _, _, (bars,) = axis.containers[series].lines
    return np.array(bars.get_segments())


@shown("gain_shares")
def test_intervals_are_those_of_the_table(figure, tables):
    own = tables["shares"].query("target == @TARGET and method == 'second_order'")
    own = own.set_index("part").loc[list(drawn.PARTS)]
    found = segments(figure.axes[0], list(drawn.ARMS).index("second_order"))
    np.testing.assert_allclose(found[:, :, 0], own[["low", "high"]])


@shown("gain_intervals")
def test_a_gain_is_drawn_as_a_ratio_of_errors_and_grows_to_the_right(figure, tables):
    own = tables["at 16"].query("target == @TARGET and method == 'released'")
    own = 1 - own.set_index("against").loc[list(drawn.COMPARISONS)][[*drawn.GAIN, "q2_5"]] / 100
    axis = figure.axes[0]
    np.testing.assert_allclose(segments(axis, 0)[:, :, 0], own[["high", "low"]])
    np.testing.assert_allclose(axis.containers[0].lines[0].get_xdata(), own["gain"])
    thin = np.array(axis.collections[0].get_segments())
    np.testing.assert_allclose(thin[:, :, 0].max(axis=1), own["q2_5"])
    low, high = axis.get_xlim()
    assert low > high


@shown("gains_and_rows")
def test_sizes_are_in_order(figure, tables):
    assert [text.get_text() for text in figure.axes[-2].get_xticklabels()] == ["8", "16", "32"]
    own = tables["gains"].query(
        "target == @TARGET and method == 'released' and against == 'same_rows'"
    )
    found = segments(figure.axes[0], 0)[:, :, 1]
    np.testing.assert_allclose(found, own.set_index("size").loc[[8, 16, 32], ["low", "high"]])


@shown("gain_draws", "gain_intervals")
def test_the_paper_s_gain_is_marked_where_there_is_one(figure):
    marked = ["the paper's gain" in a.get_legend_handles_labels()[1] for a in figure.axes]
    assert marked == [True, False, True]


@shown("label_tails", "query_error_histograms")
def test_bars_hold_every_row_and_every_draw(figure, tables):
    first = figure.axes[0]
    height = sum(bar.get_height() for bar in first.patches)
    labels = tables["labels"].query("table == @TEST")["rows"].sum()
    assert height == pytest.approx(labels if "How far" in figure.get_suptitle() else 100)
    assert first.get_title("left") == "binding_affinity"


@shown("signs")
def test_counts_are_written(figure, tables):
    assert len(figure.axes[0].get_yticklabels()) == len(KINDS)
    written = {text.get_text() for text in figure.axes[0].texts}
    assert written == {f"n = {n:,}" for n in tables["proline"]["rows"]}


def test_every_method_and_share_of_the_experiment_has_a_name():
    assert set(drawn.LEARNERS) == set(estimates.LEARNERS)
    assert set(drawn.PARTS) == set(estimates.PARTS)
    assert set(drawn.ARMS) == set(estimates.ARMS)
    assert set(drawn.COMPARISONS) < set(estimates.AGAINST)
