"""Priors of location and scale: limits, recovery of a known population, and no leak."""

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
from mutmeta_lib.models.predictor import Predictor
from mutmeta_lib.study.evaluate import evaluate
from mutmeta_lib.tasks.label_prior import (
    MAX_WEIGHT,
    LabelPrior,
    learn_label_prior,
    learn_label_priors,
    prior_for,
)
from mutmeta_lib.tasks.tasks import LabelScale, draw_task, encode_assay, task_generator

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


def scaled_assay(seed, location, scale, n=60, units="u", property="fitness"):
    """A toy assay with given mean and standard deviation."""
    assay = toy_assay(seed, n=n)
    scores = (assay.scores - assay.scores.mean()) / assay.scores.std(ddof=1)
    scores = location + scale * scores
    return replace(assay, scores=scores, units=units, property=property)


def population(n_assays, seed=0, location=5.0, between=2.0, scale=4.0, spread=0.2, n=400):
    """Assays drawn from a known population of means and scales."""
    rng = np.random.default_rng(seed)
    return [
        replace(
            toy_assay(index, n=n, length=30),
            scores=rng.normal(
                rng.normal(location, between), scale * np.exp(rng.normal(0, spread)), size=n
            ),
            units="u",
        )
        for index in range(n_assays)
    ]


def test_without_a_prior_everything_is_as_before():
    scores = np.array([1.0, 2.0, 4.0])
    assert LabelScale.fit(scores) == LabelScale.fit(scores, prior=None)
    assert LabelScale.fit(scores).location == pytest.approx(7 / 3)
    assert not LabelScale.fit(np.array([1.0])).identified


@given(priors)
@settings(max_examples=40)
def test_without_labels_the_prior_is_the_scale(prior):
    found = LabelScale.fit(np.array([]), prior)
    assert found.identified
    assert (found.location, found.scale) == pytest.approx((prior.location, prior.scale))


@given(priors, st.floats(-100, 100))
@settings(max_examples=40)
def test_one_label_moves_the_location_only(prior, score):
    found = LabelScale.fit(np.array([score]), prior)
    low, high = sorted((prior.location, score))
    assert low - 1e-9 <= found.location <= high + 1e-9
    assert found.scale == pytest.approx(prior.scale)


@given(priors, supports)
@settings(max_examples=60)
def test_shrinkage_lies_between_prior_and_support(prior, scores):
    found = LabelScale.fit(scores, prior)
    assert found.scale > 0
    if len(scores) > 1:
        for value, ends in (
            (found.location, (prior.location, scores.mean())),
            (found.scale, (prior.scale, scores.std(ddof=1))),
        ):
            assert min(ends) - 1e-9 <= value <= max(ends) + 1e-9


def test_many_labels_outweigh_the_prior():
    scores = np.random.default_rng(0).normal(-7, 0.5, size=200_000)
    found = LabelScale.fit(scores, PRIOR)
    assert found.location == pytest.approx(scores.mean(), rel=1e-3)
    assert found.scale == pytest.approx(scores.std(ddof=1), rel=1e-2)
    gaps = [abs(LabelScale.fit(scores[:k], PRIOR).location + 7) for k in (0, 10, 1000, 100_000)]
    assert gaps == sorted(gaps, reverse=True)


def test_equal_labels_have_a_scale_with_a_prior():
    found = LabelScale.fit(np.array([2.0, 2.0, 2.0]), PRIOR)
    assert found.identified
    assert 0 < found.scale < PRIOR.scale


def test_a_known_population_is_recovered():
    prior = learn_label_prior(population(300))
    assert prior.location == pytest.approx(5.0, abs=0.5)
    assert prior.scale == pytest.approx(4.0, rel=0.1)
    assert prior.location_weight == pytest.approx(4.0**2 / 2.0**2, rel=0.3)
    # A spread of 0.2 in log scale is one of 0.4 in log variance: trigamma(nu / 2) = 0.16.
    assert prior.scale_weight == pytest.approx(2 * 6.75, rel=0.4)
    assert prior.n_assays == 300


def test_alike_assays_make_a_heavy_prior_and_different_ones_a_light_one():
    alike = learn_label_prior(population(30, between=0.0, spread=0.0))
    assert alike.location_weight == pytest.approx(MAX_WEIGHT)
    assert alike.scale_weight == pytest.approx(MAX_WEIGHT)
    apart = learn_label_prior(population(30, between=40.0, spread=2.0))
    assert apart.location_weight < 0.2
    assert apart.scale_weight < 2


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
    assert prior_for(found, assays[7]) is None
    assert prior_for(found, assays[8]) is None
    assert prior_for(None, assays[0]) is None


def test_what_cannot_be_learned_from_is_named():
    with pytest.raises(DataError, match=r"1 assay cannot show how assays differ.*two or more"):
        learn_label_prior([toy_assay(0)])
    flat = replace(toy_assay(1), scores=np.ones(60))
    with pytest.raises(DataError, match="scores of assay TOY1 have no spread"):
        learn_label_prior([toy_assay(0), flat])


def squared_errors(priors, encoded, shots):
    """Squared error of predicting the location, in the assay's units."""
    values = []
    for assay in encoded:
        task = draw_task(
            assay,
            shots,
            task_generator(0, assay.assay.id),
            pool=10,
            prior=prior_for(priors, assay.assay),
        )
        scores = task.label_scale.to_scores(np.zeros(len(task.query)))
        values.append(np.mean((scores - task.query.scores) ** 2))
    return np.array(values)


def encoded_population():
    encoder = toy_predictor().encoder
    rng = np.random.default_rng(5)
    assays = [scaled_assay(seed, rng.normal(50, 3), rng.uniform(4, 6)) for seed in range(30)]
    encoded = [
        encode_assay(assay, "mutant", encoder.vocabulary, encoder.max_tokens) for assay in assays
    ]
    return encoded[:15], encoded[15:]


@pytest.mark.parametrize("shots", [0, 1, 2, 5])
def test_the_prior_lowers_errors_at_few_labels(shots):
    train, test = encoded_population()
    learned = learn_label_priors([assay.assay for assay in train])
    with_prior, without = (squared_errors(given, test, shots) for given in (learned, None))
    assert with_prior.mean() < without.mean()
    if shots < 2:
        assert with_prior.mean() < 0.8 * without.mean()


def test_query_labels_change_neither_prior_nor_scale():
    train, test = encoded_population()
    prior = prior_for(learn_label_priors([assay.assay for assay in train]), test[0].assay)
    task = draw_task(test[0], 3, task_generator(0, "x"), pool=5, prior=prior)
    scores = test[0].assay.scores.copy()
    scores[np.setdiff1d(np.arange(len(scores)), task.support.rows)] += 1000
    changed = replace(test[0], assay=replace(test[0].assay, scores=scores))
    again = draw_task(changed, 3, task_generator(0, "x"), pool=5, prior=prior)
    assert again.label_scale == task.label_scale
    assert torch.equal(again.support.labels, task.support.labels)


def test_few_shot_reports_errors_where_the_prior_defines_them():
    train, test = encoded_population()
    learned = learn_label_priors([assay.assay for assay in train])
    stranger = toy_encoded(1, encoding="mutant")[0]
    options = {"shots": [0, 1, 5], "seeds": [0], "max_query": 20}
    assays = [*test[:2], stranger]
    plain = evaluate({"mean": SupportMean()}, assays, **options)
    table = evaluate({"mean": SupportMean()}, assays, priors=learned, **options)
    few = plain["shots"] < 2
    known = plain["assay"] != stranger.assay.id
    assert plain.loc[few, "relative_mse"].isna().all()
    assert table.loc[few & known, "relative_mse"].notna().all()
    assert table.loc[few & ~known, "relative_mse"].isna().all()
    columns = ["spearman", "ndcg"]
    assert table[columns].equals(plain[columns])


def test_ranking_methods_have_no_errors_to_report():
    from mutmeta_lib.learn.methods import GradientMethod

    base = toy_predictor()
    tables = {}
    for objective in ("mse", "list_mle"):
        predictor = Predictor(base.encoder, hidden=(4,), objective=objective)
        start = predictor.init(torch.Generator().manual_seed(0))
        method = GradientMethod("m", predictor, start, ("sgd", 0.01), 1)
        tables[objective] = evaluate(
            {"m": method}, toy_encoded(1), shots=[5], seeds=[0], max_query=20
        )
    assert tables["mse"][["mse", "mae", "relative_mse"]].notna().all(axis=None)
    assert tables["list_mle"][["mse", "mae", "relative_mse"]].isna().all(axis=None)
    assert tables["list_mle"]["spearman"].notna().all()
