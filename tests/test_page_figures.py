"""Figures that are drawn from one record hold what it holds, and are not stale."""

import re
from itertools import pairwise

import draw_benchmark
import draw_chance
import draw_inner_loop
import draw_scorecard
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from draw_scorecard import INKS, PICTURES, write
from matplotlib.text import Text

from mutmeta_lib.study.benchmark import results

RECORD = draw_chance.read()
CHANCES, TIMES = draw_chance.chances(RECORD), draw_chance.times(RECORD)


def test_every_chance_is_that_of_the_record_and_of_its_own_figure():
    assert len(CHANCES) == 2 * len(draw_chance.METHODS) * len(draw_chance.SIZES)
    for row in CHANCES.itertuples():
        target, figure = {"b": ("binding", 29), "s": ("solubility", 94)}[row.target[0]]
        number = RECORD.numbers[f"{target}_{row.method}_over_{figure}_at_{row.size}"]
        found = [number[end] for end in ("value", "low", "high")]
        assert [row.chance, row.low, row.high] == pytest.approx(found, abs=1e-4)


def test_the_time_by_rows_and_the_words_are_those_of_the_record():
    words = draw_chance.in_words(CHANCES, TIMES)
    for target, short in zip(draw_chance.FIGURES, ("binding", "solubility"), strict=True):
        number = RECORD.numbers[f"{short}_by_rows_at_16"]["value"]
        assert TIMES.loc[target, "by_rows"] == pytest.approx(number)
        assert f"{number:.0f} % with the {TIMES.loc[target, 'rows']:,} training rows" in words
    for row in CHANCES[CHANCES["size"] == 16].itertuples():
        assert f"{draw_chance.METHODS[row.method]}, {row.chance:.0f} %" in words


BENCHMARK = draw_benchmark.read()
LINES, LEVELS = draw_benchmark.lines(BENCHMARK), draw_benchmark.levels(BENCHMARK)
MODULES = {"scorecard": draw_scorecard, "chance": draw_chance, "benchmark": draw_benchmark}
MODULES["inner_loop"] = draw_inner_loop
EACH = pytest.mark.parametrize("name", MODULES)
NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?|-?\d+")


def test_lines_and_words_are_means_over_assays_of_the_record():
    assert len(LINES) == len(draw_benchmark.LINES) * len(draw_benchmark.LABELS)
    first, second = (results(one).query("arm == read") for one in BENCHMARK)
    second = second[second["method"].isin(["maml", "multitask", "finetune"])]
    found = pd.concat([first, second]).groupby(["read", "method", "shots"])["spearman"].mean()
    words = draw_benchmark.in_words(LINES, LEVELS)
    for row in LINES.itertuples():
        assert row.mean == pytest.approx(found[row.read, row.method, row.shots], abs=1e-4)
        assert row.low < row.mean < row.high
        if row.shots in (0, 10, 100):
            assert f"{row.mean:.2f} with {row.shots}" in words
    assert f"ESM-2 650M {LEVELS['ESM-2 650M']:.2f}" in words


def parts(path):
    """The numbers of a drawing, and everything else."""
    text = path.read_text(encoding="utf-8")
    return [float(x) for x in NUMBER.findall(text)], NUMBER.sub("#", text)


@EACH
def test_the_committed_figure_is_drawn_from_the_committed_record(tmp_path, name):
    """After a change of a record: `make figures`. Same records, same matplotlib: same bytes."""
    drawn, again = (write(name, *MODULES[name].shown(), tmp_path / to) for to in ("one", "two"))
    assert [path.read_bytes() for path in drawn] == [path.read_bytes() for path in again]
    assert {path.name for path in drawn} == {path.name for path in PICTURES.glob(f"{name}*")}
    for path in drawn:
        ours, theirs = parts(path), parts(PICTURES / path.name)
        assert ours[1] == theirs[1], f"{path.name} is stale: run `make figures`"
        # Processors round differently in the last digit; a moved point is farther away.
        assert np.allclose(ours[0], theirs[0], atol=0.01), f"{path.name}: run `make figures`"


def cut_off(figure):
    """The texts that are not whole inside a figure."""
    figure.canvas.draw()
    width, height = figure.bbox.size
    shown = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    boxes = [(text, text.get_window_extent()) for text in shown]
    return [t for t, b in boxes if min(b.x0, b.y0) < 0 or b.x1 > width or b.y1 > height]


@EACH
@pytest.mark.parametrize("scheme", INKS)
def test_nothing_is_cut_off_and_names_of_lines_do_not_overlap(scheme, name):
    figure = MODULES[name].shown()[0](scheme)
    assert cut_off(figure) == []
    if name == "benchmark":
        boxes = [text.get_window_extent() for text in figure.axes[0].texts]
        boxes.sort(key=lambda box: box.y0)
        assert len(boxes) == len(draw_benchmark.LINES)
        assert all(below.y1 <= above.y0 + 1 for below, above in pairwise(boxes))
    plt.close(figure)
