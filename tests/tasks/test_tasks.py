from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from toy import toy_assay, toy_encoded, toy_predictor

from mutmeta_lib.errors import DataError
from mutmeta_lib.seeds import stable_seed
from mutmeta_lib.tasks.tasks import (
    LabelScale,
    draw_task,
    encode_assay,
    sample_tasks,
    task_generator,
)

ASSAY = toy_encoded(1)[0]


@given(arrays(float, st.integers(2, 20), elements=st.floats(-1e3, 1e3)))
@settings(max_examples=100, deadline=None)
def test_label_scale_round_trip(scores):
    scale = LabelScale.fit(scores)
    back = scale.to_scores(scale.to_labels(scores).numpy())
    np.testing.assert_allclose(back, scores, rtol=1e-4, atol=1e-3 * scale.scale + 1e-6)


def test_label_scale_standardises_the_support():
    scores = np.array([1.0, 2.0, 4.0, 9.0])
    labels = LabelScale.fit(scores).to_labels(scores).numpy()
    assert labels.mean() == pytest.approx(0, abs=1e-6)
    assert labels.std(ddof=1) == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("scores", [[], [3.0], [2.0, 2.0, 2.0]])
def test_no_spread_no_scale(scores):
    scale = LabelScale.fit(np.array(scores))
    assert not scale.identified
    assert scale.scale == 1.0


def test_supports_are_nested_and_the_query_is_fixed():
    draws = [
        draw_task(ASSAY, k, task_generator(3, "x"), pool=10, max_query=20) for k in (0, 1, 5, 10)
    ]
    for smaller, larger in pairwise(draws):
        assert set(smaller.support.rows) <= set(larger.support.rows)
        assert np.array_equal(smaller.query.rows, larger.query.rows)
    assert not set(draws[-1].support.rows) & set(draws[-1].query.rows)
    assert len(draws[0].support) == 0


def test_query_labels_do_not_touch_the_label_scale():
    """Changing every query score leaves the support labels and the scale as they were."""
    assay = toy_assay(0)
    encoder = toy_predictor().encoder
    task = draw_task(ASSAY, 5, task_generator(0, "x"), pool=5)
    changed_scores = assay.scores.copy()
    changed_scores[task.query.rows] += 1000
    changed = encode_assay(
        type(assay)(**{**vars_of(assay), "scores": changed_scores}),
        "separator",
        encoder.vocabulary,
        encoder.max_tokens,
    )
    again = draw_task(changed, 5, task_generator(0, "x"), pool=5)
    assert again.label_scale == task.label_scale
    assert torch.equal(again.support.labels, task.support.labels)


def vars_of(assay):
    names = ("id", "protein", "property", "wild_type", "variants", "scores", "units", "sign")
    return {name: getattr(assay, name) for name in names}


def test_examples_line_up():
    task = draw_task(ASSAY, 4, task_generator(1, "x"), pool=4, max_query=6)
    query = task.query
    assert len(query) == len(query.tokens) == len(query.variants) == len(query.labels) == 6
    taken = query.take(np.array([2, 0]))
    assert taken.variants == (query.variants[2], query.variants[0])
    assert torch.equal(taken.labels, query.labels[[2, 0]])
    np.testing.assert_array_equal(query.scores, ASSAY.assay.scores[query.rows])


def test_too_small_assays_are_named():
    small = toy_encoded(1, n=8)[0]
    with pytest.raises(DataError, match=r"TOY0 has 8 variants.*fewer shots"):
        draw_task(small, 5, task_generator(0, "x"), pool=7)
    with pytest.raises(DataError, match="no meta-training assay has 20 variants"):
        sample_tasks([small], 2, support=10, query=10, rng=np.random.default_rng(0))
    with pytest.raises(DataError, match="6 shots do not fit a support pool of 5"):
        draw_task(ASSAY, 6, task_generator(0, "x"), pool=5)


def test_proteins_are_drawn_equally_however_many_assays_they_have():
    encoder = toy_predictor().encoder
    assays = [
        encode_assay(
            toy_assay(0, name=f"A{i}", protein="many", n=20), "mutant", encoder.vocabulary, 64
        )
        for i in range(9)
    ]
    assays.append(
        encode_assay(toy_assay(1, name="B", protein="one", n=20), "mutant", encoder.vocabulary, 64)
    )
    tasks = sample_tasks(assays, 400, support=2, query=2, rng=np.random.default_rng(0))
    share = np.mean([task.support.assay.assay.protein == "one" for task in tasks])
    assert 0.42 < share < 0.58
    for task in tasks[:20]:
        assert not set(task.support.rows) & set(task.query.rows)


def test_seeds_are_stable_across_machines():
    assert stable_seed("task", 0, "GB1") == stable_seed("task", 0, "GB1")
    assert stable_seed(1, 23) != stable_seed(12, 3)
