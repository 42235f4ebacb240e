"""Tasks: nested supports, one query set, no label of the query in the scale, equal proteins."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy import toy_assay, toy_encoded

from mutmeta_lib.errors import DataError
from mutmeta_lib.tasks.tasks import (
    LabelScale,
    draw_task,
    encode_assay,
    sample_tasks,
    task_generator,
    towards_normal,
    with_normal_scores,
)
from mutmeta_lib.tasks.vocabulary import TINY_VOCABULARY

ASSAY = toy_encoded(1)[0]


def draw(shots, assay=ASSAY, seed=0, pool=10, **more):
    return draw_task(assay, shots, task_generator(seed, "x"), pool=pool, **more)


def test_supports_are_nested_and_the_query_is_fixed():
    draws = [draw(k, max_query=20) for k in (0, 1, 5, 10)]
    for smaller, larger in pairwise(draws):
        assert set(smaller.support.rows) < set(larger.support.rows)
        assert np.array_equal(smaller.query.rows, larger.query.rows)
    assert not set(draws[-1].support.rows) & set(draws[-1].query.rows)
    assert [len(task.support) for task in draws] == [0, 1, 5, 10]
    assert len(draws[0].query) == 20
    assert len(draw(5).query) == len(ASSAY) - 10
    assert set(draw(10, seed=1).support.rows) != set(draws[-1].support.rows)


@pytest.mark.parametrize("shots", [0, 1, 2, 5])
def test_query_labels_do_not_touch_the_label_scale(shots):
    task = draw(shots)
    scores = ASSAY.assay.scores.copy()
    scores[np.setdiff1d(np.arange(len(scores)), task.support.rows)] += 1000
    again = draw(shots, replace(ASSAY, assay=replace(ASSAY.assay, scores=scores)))
    assert again.label_scale == task.label_scale
    assert torch.equal(again.support.labels, task.support.labels)
    assert not torch.equal(again.query.labels, task.query.labels)


def test_examples_line_up():
    task = draw(4, max_query=6)
    for part in (task.support, task.query):
        assert len(part) == len(part.tokens) == len(part.labels)
        np.testing.assert_array_equal(part.scores, ASSAY.assay.scores[part.rows])
        assert part.variants == tuple(ASSAY.assay.variants[row] for row in part.rows)
        back = task.label_scale.to_scores(part.labels.numpy())
        np.testing.assert_allclose(back, part.scores, rtol=1e-5, atol=1e-5)
    assert task.support.labels.mean() == pytest.approx(0, abs=1e-6)
    assert task.support.labels.std() == pytest.approx(1, rel=1e-6)
    taken = task.query.take(np.array([2, 0]))
    np.testing.assert_array_equal(taken.rows, task.query.rows[[2, 0]])
    assert torch.equal(taken.labels, task.query.labels[[2, 0]])


def test_too_small_assays_are_named():
    small = toy_encoded(1, n=8)[0]
    with pytest.raises(DataError, match=r"TOY0 has 8 variants.*fewer shots"):
        draw(5, small, pool=7)
    with pytest.raises(DataError, match="no meta-training assay has 20 variants"):
        sample_tasks([small], 2, support=10, query=10, rng=np.random.default_rng(0))
    with pytest.raises(DataError, match="6 shots do not fit a support pool of 5"):
        draw(6, pool=5)


def test_proteins_are_drawn_equally_however_many_assays_they_have():
    made = [toy_assay(0, name=f"A{i}", protein="many", n=20) for i in range(9)]
    made.append(toy_assay(1, name="B", protein="one", n=20))
    assays = [encode_assay(assay, "mutant", TINY_VOCABULARY, 64) for assay in made]
    tasks = sample_tasks(assays, 400, support=2, query=3, rng=np.random.default_rng(0))
    names = [task.support.assay.assay.id for task in tasks]
    assert 0.42 < np.mean([name == "B" for name in names]) < 0.58
    assert set(names) == {assay.id for assay in made}
    for task in tasks[:20]:
        assert (len(task.support), len(task.query)) == (2, 3)
        assert not set(task.support.rows) & set(task.query.rows)


@pytest.mark.parametrize("scores", [[], [3.0], [2.0, 2.0, 2.0]])
def test_without_spread_no_scale_is_identified(scores):
    scale = LabelScale.fit(np.array(scores))
    assert not scale.identified
    assert (scale.location, scale.scale) == (np.mean(scores) if scores else 0, 1.0)


@given(st.lists(st.integers(-(10**6), 10**6), min_size=5, max_size=30), st.sampled_from([2, -1]))
def test_normal_scores_keep_order_and_ties_and_no_unit(values, factor):
    values = np.array(values) / 1000
    assay = replace(toy_assay(n=len(values)), scores=values)
    made = with_normal_scores(assay)
    order = np.sign(np.subtract.outer(values, values))
    np.testing.assert_array_equal(np.sign(np.subtract.outer(made.scores, made.scores)), order)
    turned = with_normal_scores(replace(assay, scores=factor * values)).scores
    np.testing.assert_allclose(turned, np.sign(factor) * made.scores, atol=1e-12)
    assert (made.variants, made.units) == (assay.variants, "normal score")
    far = np.append(np.arange(99.0), 1e9)
    assert 2 < with_normal_scores(replace(toy_assay(n=100), scores=far)).scores.max() < 3


@pytest.mark.parametrize("k", [2, 10, 40, 200])
def test_labels_of_a_far_tail_come_nearer_the_more_there_are(k):
    scores = np.exp(2 * np.random.default_rng(k).normal(size=k)).round(1)
    labels = LabelScale.fit(scores).to_labels(scores)
    moved, order = towards_normal(labels), np.argsort(scores)
    steps, before = (np.diff(some[order].numpy()) for some in (moved, labels))
    assert (steps[before > 0] > 0).all()
    np.testing.assert_allclose(steps[before == 0], 0, atol=1e-6)
    assert float(moved.mean()) == pytest.approx(0, abs=0.1)
    assert 0.8 < float(moved.std()) < 1.01
    least = {2: 0, 10: 0, 40: 0.15, 200: 0.4}[k]
    assert moved.max() <= (1 - least) * labels.max() + 0.1
    assert not towards_normal(torch.zeros(k)).any()
