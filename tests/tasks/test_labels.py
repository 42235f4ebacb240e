"""Label scales, priors of them, and normal scores: limits, known populations, and no leak."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from toy import toy_assay, toy_encoded, toy_predictor

from mutmeta_lib.errors import DataError
from mutmeta_lib.learn.baselines import SupportMean
from mutmeta_lib.study.evaluate import evaluate
from mutmeta_lib.tasks.labels import (
    MAX_WEIGHT,
    LabelPrior,
    LabelScale,
    learn_label_priors,
    prior_for,
    with_normal_scores,
)
from mutmeta_lib.tasks.tasks import draw_task, encode_assay, task_generator

PRIOR = LabelPrior(2.0, 3.0, location_weight=4.0, scale_weight=5.0, n_assays=8)
priors = st.builds(
    LabelPrior,
    location=st.floats(-50, 50),
    scale=st.floats(0.01, 20),
    location_weight=st.floats(0.01, MAX_WEIGHT),
    scale_weight=st.floats(0.1, MAX_WEIGHT),
    n_assays=st.integers(2, 50),
)
supports = arrays(float, st.integers(0, 30), elements=st.floats(-100, 100))


def scaled_assay(seed, location, scale, units="u", property="fitness"):
    """A toy assay with given mean and standard deviation."""
    assay = toy_assay(seed)
    scores = (assay.scores - assay.scores.mean()) / assay.scores.std(ddof=1)
    return replace(assay, scores=location + scale * scores, units=units, property=property)


def encoded_population():
    """Thirty assays in one unit, of alike locations and scales, in two halves."""
    rng = np.random.default_rng(5)
    assays = [scaled_assay(seed, rng.normal(50, 3), rng.uniform(4, 6)) for seed in range(30)]
    encoder = toy_predictor().encoder
    encoded = [encode_assay(one, "mutant", encoder.vocabulary, 64) for one in assays]
    return encoded[:15], encoded[15:]


def test_the_support_is_standardised():
    scores = np.array([1.0, 2.0, 4.0, 9.0])
    labels = LabelScale.fit(scores).to_labels(scores).numpy()
    assert labels.mean() == pytest.approx(0, abs=1e-6)
    assert labels.std(ddof=1) == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("scores", [[], [3.0], [2.0, 2.0, 2.0]])
def test_without_spread_a_prior_alone_identifies_a_scale(scores):
    scale = LabelScale.fit(np.array(scores))
    assert not scale.identified
    assert (scale.location, scale.scale) == (np.mean(scores) if scores else 0, 1.0)
    found = LabelScale.fit(np.array(scores), PRIOR)
    assert found.identified
    assert 0 < found.scale <= PRIOR.scale


@given(priors, supports)
@settings(max_examples=80)
def test_shrinkage_lies_between_prior_and_support(prior, scores):
    found = LabelScale.fit(scores, prior)
    located = (prior.location, scores.mean() if len(scores) else prior.location)
    scaled = (prior.scale, scores.std(ddof=1) if len(scores) > 1 else prior.scale)
    for value, ends in ((found.location, located), (found.scale, scaled)):
        assert min(ends) - 1e-9 <= value <= max(ends) + 1e-9
    assert found.scale > 0


def test_many_labels_outweigh_the_prior():
    scores = np.random.default_rng(0).normal(-7, 0.5, size=200_000)
    gaps = [abs(LabelScale.fit(scores[:k], PRIOR).location + 7) for k in (0, 10, 1000, 100_000)]
    assert gaps == sorted(gaps, reverse=True)
    found = LabelScale.fit(scores, PRIOR)
    assert found.location == pytest.approx(scores.mean(), rel=1e-3)
    assert found.scale == pytest.approx(scores.std(ddof=1), rel=1e-2)


def population(n_assays, between=2.0, spread=0.2):
    """Assays drawn from a known population of means (around 5) and scales (around 4)."""
    rng = np.random.default_rng(0)
    made = []
    for index in range(n_assays):
        location, scale = rng.normal(5, between), 4 * np.exp(rng.normal(0, spread))
        scores = rng.normal(location, scale, size=400)
        made.append(replace(toy_assay(index, n=400, length=30), scores=scores, units="u"))
    return made


def test_a_known_population_is_recovered_and_alike_assays_make_a_heavy_prior():
    (prior,) = learn_label_priors(population(300)).values()
    assert prior.location == pytest.approx(5.0, abs=0.5)
    assert prior.scale == pytest.approx(4.0, rel=0.1)
    assert prior.location_weight == pytest.approx(4.0**2 / 2.0**2, rel=0.3)
    # A spread of 0.2 in log scale is one of 0.4 in log variance: trigamma(nu / 2) = 0.16.
    assert prior.scale_weight == pytest.approx(2 * 6.75, rel=0.4)
    assert prior.n_assays == 300
    (alike,) = learn_label_priors(population(30, between=0.0, spread=0.0)).values()
    assert alike.location_weight == alike.scale_weight == pytest.approx(MAX_WEIGHT)
    (apart,) = learn_label_priors(population(30, between=40.0, spread=2.0)).values()
    assert (apart.location_weight < 0.2, apart.scale_weight < 2) == (True, True)


def test_units_and_properties_are_kept_apart_and_lone_ones_have_no_prior():
    assays = [
        *(scaled_assay(seed, 0, 1, units="a") for seed in range(3)),
        *(scaled_assay(seed, 100, 9, units="b") for seed in range(3, 5)),
        *(scaled_assay(seed, 7, 2, units="a", property="stability") for seed in range(5, 7)),
        scaled_assay(7, 0, 1, units="alone"),
        *(scaled_assay(seed, 0, 1, units="") for seed in range(8, 11)),
    ]
    found = learn_label_priors(assays)
    assert set(found) == {("fitness", "a"), ("fitness", "b"), ("stability", "a")}
    assert found["fitness", "b"].location == pytest.approx(100)
    assert prior_for(found, assays[3]) is found["fitness", "b"]
    assert prior_for(found, assays[7]) is prior_for(found, assays[8]) is None
    assert prior_for(None, assays[0]) is None


def test_an_assay_without_spread_is_named():
    flat = replace(toy_assay(1), scores=np.ones(60))
    with pytest.raises(DataError, match="scores of assay TOY1 have no spread"):
        learn_label_priors([toy_assay(0), flat])


@pytest.mark.parametrize("shots", [0, 1, 2, 5])
def test_the_prior_lowers_errors_at_few_labels_and_reads_the_support_alone(shots):
    train, test = encoded_population()
    learned = learn_label_priors([one.assay for one in train])

    def drawn(one, prior):
        return draw_task(one, shots, task_generator(0, one.assay.id), pool=10, prior=prior)

    def error(prior):
        tasks = [drawn(one, prior) for one in test]
        return np.mean([(task.query.scores - task.label_scale.location) ** 2 for task in tasks])

    (prior,) = learned.values()
    assert error(prior) < (0.8 if shots < 2 else 1) * error(None)
    task = drawn(test[0], prior)
    scores = test[0].assay.scores.copy()
    scores[np.setdiff1d(np.arange(len(scores)), task.support.rows)] += 1000
    again = drawn(replace(test[0], assay=replace(test[0].assay, scores=scores)), prior)
    assert again.label_scale == task.label_scale
    assert torch.equal(again.support.labels, task.support.labels)


def test_few_shot_reports_errors_where_the_prior_defines_them():
    train, test = encoded_population()
    learned = learn_label_priors([assay.assay for assay in train])
    stranger = toy_encoded(1, encoding="mutant")[0]
    options = {"shots": [0, 1, 5], "seeds": [0], "max_query": 20}
    assays = [*test[:2], stranger]
    without = evaluate({"mean": SupportMean()}, assays, **options)
    table = evaluate({"mean": SupportMean()}, assays, priors=learned, **options)
    few = without["shots"] < 2
    known = without["assay"] != stranger.assay.id
    assert without.loc[few, "relative_mse"].isna().all()
    assert table.loc[few & known, "relative_mse"].notna().all()
    assert table.loc[few & ~known, "relative_mse"].isna().all()
    columns = ["spearman", "ndcg"]
    assert table[columns].equals(without[columns])


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
