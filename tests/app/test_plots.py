"""Every figure says what it shows (title, units, legend, intervals, n), and nothing is cut off."""

import io
from functools import cache, partial
from itertools import combinations

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from mutmeta_lib.app import plots
from mutmeta_lib.app.plots.style import LOOKS, PALETTE, look
from mutmeta_lib.errors import DataError
from mutmeta_lib.learn.methods import METHODS
from mutmeta_lib.study.estimates import contrast, estimate

ALL = ["maml", "multitask", "finetune", "ridge", "gp", "onehot", "blosum", "mean"]


mpl.use("agg")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@cache
def results(methods=tuple(ALL), shots=(0, 1, 5, 10, 20, 40), n_assays=12):
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "method": method,
            "assay": f"assay{a}",
            "protein": f"P{a // 4}",
            "seed": 0,
            "shots": k,
            "spearman": 0.3 - 0.03 * i + 0.03 * np.log1p(k) + rng.normal(0, 0.1),
            "relative_mse": np.exp(rng.normal(0, 0.5) + 6 / k) if k > 1 else np.nan,
            "seconds_adapt": 0.01 * (1 + i * k) * np.exp(rng.normal(0, 0.2)),
        }
        for a in range(n_assays)
        for k in shots
        for i, method in enumerate(methods)
    )


def summary(metric="spearman", **options):
    return estimate(results(**options), metric, over="assay")


def differences(**options):
    return contrast(results(**options), "spearman", "method", "maml", over="assay")


def history(runs=2):
    steps = range(1, 101)
    return pd.DataFrame(
        {
            "method": method,
            "seed": run,
            "step": step,
            "train_loss": 1 + np.exp(-step / 40),
            "validation_loss": 1.1 + 0.1 * run if step % 20 == 0 else np.nan,
        }
        for method in ("maml", "fomaml", "multitask")
        for run in range(runs)
        for step in steps
    )


def encodings():
    return pd.DataFrame(
        {
            "encoding": encoding,
            "pooling": pooling,
            "hold_out": hold_out,
            "mean": 0.4,
            "low": 0.3,
            "high": 0.5,
            "n_assays": 12,
            "n_proteins": 3,
        }
        for encoding in ("unknown_text", "unknown_site", "mutant", "wt_mutant_pair", "separator")
        for pooling in ("cls", "sites")
        for hold_out in ("variants", "sites")
    )


def scores(proteins=3, per_protein=4):
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "assay": f"{p}-{a}",
            "protein": f"A_PROTEIN_WITH_A_LONG_NAME_{p}",
            "property": ("fitness", "stability")[p % 2],
            "units": ("log2 enrichment", "kcal/mol")[p % 2],
            "score": score,
        }
        for p in range(proteins)
        for a in range(per_protein)
        for score in rng.normal(a, 1, 30)
    )


def split(proteins=4, folds=3):
    return pd.DataFrame(
        {
            "fold": fold,
            "role": ("test", "validation", "train")[min(2, (p - fold) % folds)],
            "protein": f"PROTEIN_{p:02}",
            "assay": f"{p}-{a}",
        }
        for fold in range(folds)
        for p in range(proteins)
        for a in range(1 + p % 3)
    )


def tokens():
    line = [("[CLS]", "special"), *[(letter, "residue") for letter in "MTYKLILNGKTLK"]]
    line += [("[SEP]", "separator"), ("A", "mutated site"), ("[UNK]", "unknown")]
    return pd.concat(
        pd.DataFrame(line, columns=["token", "kind"]).assign(encoding=name)
        for name in ("separator", "unknown_text")
    )


FIGURES = {
    "few-shot curves": (lambda: plots.few_shot_curves(summary()), "mean of 12 assays of 3"),
    "curves of an error": (
        lambda: plots.few_shot_curves(summary("relative_mse"), "relative_mse"),
        "mean of 12 assays of 3",
    ),
    "curves without interval": (
        lambda: plots.few_shot_curves(summary(n_assays=1)),
        "mean of 1 assay of 1 protein, no interval",
    ),
    "forest": (lambda: plots.paired_differences(differences(), shots=10), "paired 95 % interval"),
    "forest of all shots": (lambda: plots.paired_differences(differences()), "12 assays of 3"),
    "encodings": (lambda: plots.encoding_scores(encodings()), "12 assays of 3 proteins"),
    "training": (lambda: plots.training_curve(history()), "2 runs per method, band"),
    "training, one run": (lambda: plots.training_curve(history(1)), "1 run per method"),
    "timing": (
        lambda: plots.timing_curve(summary("seconds_adapt", shots=(10, 20, 40, 80))),
        "12 assays of 3 proteins, 95 %",
    ),
    "scores": (lambda: plots.score_distributions(scores()), "8 assays of 2 proteins, 240 variants"),
    "scores of many": (lambda: plots.score_distributions(scores(40, 3)), "60 assays of 20"),
    "split": (lambda: plots.split_overview(split()), "7 assays of 4 proteins, 3 folds"),
    "split of many": (lambda: plots.split_overview(split(60, 5)), "120 assays of 60 proteins"),
    "tokens": (lambda: plots.tokens_figure(tokens()), "separator (17 tokens)"),
}
WITH_INTERVALS = ["few-shot curves", "curves of an error", "forest", "encodings", "timing"]


@pytest.fixture(scope="module", params=FIGURES)
def drawn(request):
    make, said = FIGURES[request.param]
    figure = make()
    figure.canvas.draw()
    return figure, said


def texts(figure):
    return [
        text for text in figure.findobj(mpl.text.Text) if text.get_visible() and text.get_text()
    ]


def test_a_figure_says_what_it_shows(drawn):
    figure, said = drawn
    assert isinstance(figure, Figure)
    assert figure.get_suptitle().strip()
    assert figure.legends or "minus each baseline" in figure.get_suptitle()
    assert any(said in text.get_text() for text in texts(figure))
    for axis in figure.axes:
        if axis.axison and not axis.get_shared_x_axes().joined(axis, figure.axes[-1]):
            assert axis.get_xlabel()


def test_measured_axes_have_units(drawn):
    figure, _ = drawn
    counted = ("meta-step", "labelled variants", "fold")
    if not figure.axes[-1].axison:
        return
    label = figure.axes[-1].get_xlabel()
    assert label.startswith(counted) or "(" in label
    if figure.axes[0].get_ylabel() and not figure.axes[0].get_ylabel().startswith(
        ("assay", "fold", "protein")
    ):
        assert "(" in figure.axes[0].get_ylabel()


def test_no_text_is_cut_off_and_the_legend_covers_nothing(drawn):
    figure, _ = drawn
    for text in [*figure.texts, *(t for axis in figure.axes for t in shown(axis))]:
        box = text.get_window_extent()
        assert box.x0 >= -1, text
        assert box.x1 <= figure.bbox.x1 + 1, text
        assert box.y0 >= -1, text
        assert box.y1 <= figure.bbox.y1 + 1, text
    for legend in figure.legends:
        box = legend.get_window_extent()
        assert box.x0 >= -1
        assert box.x1 <= figure.bbox.x1 + 1
        assert not any(box.overlaps(axis.get_tightbbox()) for axis in figure.axes)


def shown(axis):
    """The texts of an axis that are drawn; ticks beyond its limits are not."""
    named = [axis.title, axis._left_title, axis.xaxis.label, axis.yaxis.label, *axis.texts]
    if axis.axison:
        named += [*tick_labels(axis.xaxis), *tick_labels(axis.yaxis)]
    return [text for text in named if text.get_text()]


def tick_labels(axis):
    low, high = sorted(axis.get_view_interval())
    labels = [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    return [label for label in labels if label.get_visible() and label.get_text()]


def test_texts_do_not_overlap(drawn):
    figure, _ = drawn
    for axis in figure.axes:
        boxes = [text.get_window_extent() for text in shown(axis)]
        if axis.axison:
            assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


def test_figures_fit_a_telephone_and_can_be_saved(drawn):
    figure, _ = drawn
    assert figure.get_figwidth() <= 6
    assert min(text.get_fontsize() for text in texts(figure)) >= 8
    file = io.BytesIO()
    figure.savefig(file, format="png")
    assert len(file.getvalue()) > 5000


@pytest.mark.parametrize("name", WITH_INTERVALS)
def test_intervals_are_drawn(name):
    figure = FIGURES[name][0]()
    bars = [c for axis in figure.axes for c in axis.containers if isinstance(c, ErrorbarContainer)]
    lengths = [
        np.ptp(segment, axis=0).max()
        for bar in bars
        for lines in bar[2]
        for segment in lines.get_segments()
        if len(segment) and np.isfinite(segment).all()
    ]
    assert lengths
    assert min(lengths) > 0


def test_interval_ends_are_those_of_the_table():
    table = pd.DataFrame(
        {"method": ["maml"] * 2, "shots": [0, 5], "mean": [0.2, 0.4], "low": [0.1, np.nan]}
    ).assign(high=[0.5, np.nan], n_assays=3, n_proteins=1)
    (bar,) = plots.few_shot_curves(table).axes[0].containers
    first, second = bar[2][0].get_segments()
    np.testing.assert_allclose(first[:, 1], [0.1, 0.5])
    np.testing.assert_allclose(second[:, 1], [0.4, 0.4])


def test_bands_are_drawn_for_several_runs_only():
    bands = [len(plots.training_curve(history(runs)).axes[0].collections) for runs in (2, 1)]
    assert bands == [3, 0]


def test_shots_are_spaced_evenly():
    axis = plots.few_shot_curves(summary()).axes[0]
    assert [text.get_text() for text in axis.get_xticklabels()] == ["0", "1", "5", "10", "20", "40"]
    assert set(np.diff(axis.get_xticks())) == {1}


def test_undefined_values_are_not_drawn():
    axis = plots.few_shot_curves(summary("relative_mse"), "relative_mse").axes[0]
    for bar in axis.containers:
        assert np.isfinite(bar[0].get_ydata()).tolist() == [False] * 2 + [True] * 4


def test_forest_marks_what_is_clear_and_points_the_right_way():
    table = pd.DataFrame(
        {"method": "maml", "baseline": ["ridge", "gp"], "shots": 5, "mean": [0.1, 0.1]}
    ).assign(low=[0.05, -0.1], high=[0.2, 0.2], n_assays=9, n_proteins=3)
    axis = plots.paired_differences(table, "spearman").axes[0]
    filled = [bar[0].get_markerfacecolor() for bar in axis.containers]
    assert filled == [LOOKS["ridge"].colour, "white"]
    assert axis.get_xlabel().endswith("MAML better →")
    axis = plots.paired_differences(table, "mse").axes[0]
    assert "← MAML better" in axis.get_xlabel()
    assert "score units²" in axis.get_xlabel()


def test_every_method_has_its_own_look_the_same_in_every_figure():
    assert set(METHODS) <= set(LOOKS)
    assert len({look[:2] for look in LOOKS.values()}) == len(LOOKS)
    assert len({look[1:] for look in LOOKS.values()}) == len(LOOKS)
    assert {look.colour for look in LOOKS.values()} <= set(PALETTE)
    for methods in (tuple(ALL), tuple(ALL[::-1]), tuple(ALL[:3])):
        axis = plots.few_shot_curves(summary(methods=methods)).axes[0]
        drawn = {bar.get_label(): bar[0].get_color() for bar in axis.containers}
        assert drawn == {look(name).label: look(name).colour for name in methods}


def test_the_eight_compared_methods_have_eight_colours():
    assert len({LOOKS[name].colour for name in ALL}) == 8
    assert len({LOOKS[name].marker for name in ALL}) == 8


def test_an_unknown_method_has_a_stable_look():
    assert look("my_method") == look("my_method")
    assert plots.label("my_method") == "my_method"
    assert plots.label("multitask") == "Fine-tuning from multi-task start"


def test_settings_outside_are_left_alone():
    before = dict(mpl.rcParams)
    plots.few_shot_curves(summary())
    with plots.style():
        assert mpl.rcParams["font.size"] == 11
    assert dict(mpl.rcParams) == before


def test_scores_of_other_units_have_their_own_axis():
    figure = plots.score_distributions(scores())
    assert [axis.get_xlabel() for axis in figure.axes] == [
        "score (log2 enrichment)",
        "score (kcal/mol)",
    ]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: plots.few_shot_curves(summary(), "ndcg"), "no metric 'ndcg'"),
        (lambda: plots.paired_differences(differences(), shots=7), "at 7 shots"),
        (
            lambda: plots.paired_differences(
                pd.concat([differences(), differences().assign(method="gp")])
            ),
            "several methods",
        ),
        (lambda: plots.split_overview(split().assign(role="exam")), "exam"),
        (lambda: plots.tokens_figure(tokens().assign(kind="odd")), "odd"),
    ],
)
def test_tables_that_cannot_be_drawn_are_refused(call, said):
    with pytest.raises(DataError, match=said):
        call()


def test_a_title_can_be_given():
    for draw in (
        partial(plots.few_shot_curves, summary()),
        partial(plots.paired_differences, differences()),
        partial(plots.training_curve, history()),
        partial(plots.split_overview, split()),
    ):
        assert draw(title="Mine").get_suptitle().strip() == "Mine"
