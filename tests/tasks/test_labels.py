"""Label scales and normal scores: limits, and no leak."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy import toy_assay, toy_encoded

from mutmeta_lib.tasks.labels import LabelScale, with_normal_scores
from mutmeta_lib.tasks.tasks import draw_task, task_generator


def test_the_support_is_standardised():
    scores = np.array([1.0, 2.0, 4.0, 9.0])
    labels = LabelScale.fit(scores).to_labels(scores).numpy()
    assert labels.mean() == pytest.approx(0, abs=1e-6)
    assert labels.std(ddof=1) == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("scores", [[], [3.0], [2.0, 2.0, 2.0]])
def test_without_spread_no_scale_is_identified(scores):
    scale = LabelScale.fit(np.array(scores))
    assert not scale.identified
    assert (scale.location, scale.scale) == (np.mean(scores) if scores else 0, 1.0)


@pytest.mark.parametrize("shots", [0, 1, 2, 5])
def test_a_scale_reads_the_support_alone(shots):
    given = toy_encoded(1, encoding="mutant")[0]
    task = draw_task(given, shots, task_generator(0, "a"), pool=10)
    scores = given.assay.scores.copy()
    scores[np.setdiff1d(np.arange(len(scores)), task.support.rows)] += 1000
    moved = replace(given, assay=replace(given.assay, scores=scores))
    again = draw_task(moved, shots, task_generator(0, "a"), pool=10)
    assert again.label_scale == task.label_scale
    assert torch.equal(again.support.labels, task.support.labels)


@given(
    st.lists(st.integers(-(10**6), 10**6), min_size=5, max_size=30), st.sampled_from([2.0, -1.0])
)
def test_normal_scores_keep_order_and_ties_and_no_unit(values, factor):
    values = np.array(values) / 1000
    assay = replace(toy_assay(n=len(values)), scores=values)
    made = with_normal_scores(assay)
    order = np.sign(np.subtract.outer(values, values))
    np.testing.assert_array_equal(np.sign(np.subtract.outer(made.scores, made.scores)), order)
    turned = with_normal_scores(replace(assay, scores=factor * values)).scores
    np.testing.assert_allclose(turned, np.sign(factor) * made.scores, atol=1e-12)
    assert (made.variants, made.units) == (assay.variants, "normal score")


def test_normal_scores_tame_a_far_tail():
    scores = toy_assay(n=100).scores.copy()
    scores[0] = 1e9
    made = with_normal_scores(replace(toy_assay(n=100), scores=scores)).scores
    assert 2 < made.max() < 3
    assert made.std() == pytest.approx(1, abs=0.05)
