"""The ranker: its process is a Gaussian process, and training finds what assays share."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from toy import toy_predictor, toy_site_assays, toy_site_predictor

from mutmeta_lib.data.variants import parse_variant
from mutmeta_lib.errors import DataError
from mutmeta_lib.learn import InnerLoop
from mutmeta_lib.learn.algorithms import ALGORITHMS
from mutmeta_lib.learn.methods import joined, members
from mutmeta_lib.learn.ranker import RankerMethod
from mutmeta_lib.learn.train import MetaTraining, meta_train
from mutmeta_lib.models.sites import site_numbers, site_rows
from mutmeta_lib.tasks.metrics import spearman
from mutmeta_lib.tasks.tasks import (
    Examples,
    draw_task,
    make_task,
    task_generator,
    towards_normal,
)

PREDICTOR = toy_site_predictor()
RANKER = ALGORITHMS["ranker"](PREDICTOR)
MODEL = RANKER.model
FRESH = RANKER.prepare(PREDICTOR.init(torch.Generator().manual_seed(0)), InnerLoop())
SETTINGS = MetaTraining("ranker", steps=80, tasks_per_step=8, support=10, query=30, meta_lr=5e-3)


def with_sites(encoded):
    """The same assay, whose sites matter as well, each in its own way."""
    assay, rng = (
        encoded.assay,
        np.random.default_rng(len(encoded) + encoded.tokens.places.sum().item()),
    )
    worth = 2 * rng.normal(size=len(assay.wild_type) + 1)
    scores = assay.scores + [worth[variant[0].position] for variant in assay.variants]
    return replace(encoded, assay=replace(assay, scores=scores))


def drawn_assays(n_assays, n):
    return [with_sites(one) for one in toy_site_assays(n_assays, n=n)]


def train(seed=0, **changed):
    how = replace(SETTINGS, **changed)
    return meta_train(PREDICTOR, FRESH, drawn_assays(7, 120), how, seed=seed).params


NEW = drawn_assays(9, 150)[8]


@pytest.fixture(scope="module")
def trained():
    return train()


def task(shots, pool=60, assay=NEW):
    return draw_task(assay, shots, task_generator(0, "ranker"), pool=pool)


def predicted(params, drawn, **how):
    method = RankerMethod("ranker", MODEL, [params], **how)
    state = method.adapt(drawn.support, torch.Generator())
    return method.predict(state, drawn.query), method.deviation(state, drawn.query)


def test_an_unseen_protein_is_ranked_without_labels_and_better_with(trained):
    without, some, many = (
        spearman(predicted(trained, task(k))[0], task(k).query.scores) for k in (0, 10, 60)
    )
    assert without > 0.1
    assert many > some > without


def test_nine_in_ten_measurements_lie_in_the_interval_if_the_process_is_right(trained, monkeypatch):
    # The process has no moved labels: how often intervals hold with them is in the benchmark.
    monkeypatch.setattr("mutmeta_lib.learn.ranker.towards_normal", lambda labels: labels)
    rng, held, rows = np.random.default_rng(0), [], np.arange(len(NEW))
    with torch.no_grad():
        latent = MODEL.latent(trained, NEW.tokens.rows(rows))
        covariance = MODEL.covariance(trained, latent, latent).double().numpy()
        prior = (trained["kernel.slope"] * MODEL.score(trained, latent)).double().numpy()
        noise = trained["kernel.log_s9"].exp().item()
        factor = np.linalg.cholesky((covariance + covariance.T) / 2 + noise * np.eye(len(NEW)))
    for _ in range(60):
        labels = torch.from_numpy(prior + factor @ rng.normal(size=len(NEW))).float()
        order = rng.permutation(rows)
        support, query = (Examples(NEW, part, labels[part]) for part in (order[:40], order[40:]))
        method = RankerMethod("ranker", MODEL, [trained])
        state = method.adapt(support, torch.Generator())
        missed = np.abs(method.predict(state, query) - query.labels.numpy())
        held.append((missed <= 1.645 * method.deviation(state, query)).mean())
    assert np.mean(held) == pytest.approx(0.9, abs=0.02)


def test_the_posterior_is_that_of_a_gaussian_process(trained):
    drawn = task(10)
    labels, support, query = drawn.support.labels, drawn.support.tokens, drawn.query.tokens
    labels = towards_normal(labels)
    with torch.no_grad():
        both = MODEL.latent(trained, NEW.tokens.rows(np.r_[drawn.support.rows, drawn.query.rows]))
        covariance = MODEL.covariance(trained, both, both).double()
        prior = (trained["kernel.slope"] * MODEL.score(trained, both)).double()
        noise = trained["kernel.log_s9"].exp().double()
    assert len(support) + len(query) == len(covariance)
    known = covariance[:10, :10] + (noise + 1e-4) * torch.eye(10)
    weights = torch.linalg.solve(known, covariance[:10, 10:])
    expected = prior[10:] + weights.T @ (labels - prior[:10])
    spread = (covariance[10:, 10:] - covariance[10:, :10] @ weights).diagonal() + noise
    mean, deviation = predicted(trained, drawn)
    np.testing.assert_allclose(mean, expected, atol=1e-3)
    np.testing.assert_allclose(deviation**2, spread, atol=1e-3)
    assert (torch.linalg.eigvalsh(covariance) > -1e-3).all()


def test_a_double_mutant_is_the_sum_of_its_substitutions_and_the_wild_type_of_none(trained):
    wild_type = "MKTAYIAKQRQISFVKSHFS"
    sites = site_numbers("no_encoder", wild_type)
    texts = ["K2A", "Y5F", "K2A:Y5F"]
    rows = site_rows(sites, [*map(parse_variant, texts), ()], "fitness")
    with torch.no_grad():
        latent = MODEL.latent(trained, rows.rows(range(4)))
        a, b, both, nothing = MODEL.score(trained, latent) - trained["head.0.bias"]
        found = MODEL.covariance(trained, latent, latent)
        found -= trained["kernel.log_s8"].exp() * torch.outer(*[MODEL.score(trained, latent)] * 2)
    assert both.item() == pytest.approx((a + b).item(), abs=1e-5)
    assert nothing == 0
    torch.testing.assert_close(found[2], found[0] + found[1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found[3], torch.zeros(4))


def test_the_property_of_an_assay_is_told_or_not(trained):
    told, other, untold = (
        replace(NEW, tokens=replace(NEW.tokens, told=code)) for code in (NEW.tokens.told, 1, 4)
    )
    first, second, third = (
        predicted(trained, task(0, assay=one))[0] for one in (told, other, untold)
    )
    assert len({round(float(one[0]), 6) for one in (first, second, third)}) == 3


def test_several_members_are_the_mean_and_wider_where_they_differ():
    starts = [train(seed, steps=20) for seed in (0, 1)]
    assert [*map(list, members(joined(starts)))] == [*map(list, starts)]
    drawn = task(10)
    (a, sa), (b, sb) = (predicted(one, drawn) for one in starts)
    method = RankerMethod("ranker", MODEL, starts)
    state = method.adapt(drawn.support, torch.Generator())
    np.testing.assert_allclose(
        method.predict(state, drawn.query), (a + b) / 2, rtol=1e-5, atol=1e-6
    )
    expected = (sa**2 + sb**2) / 2 + (a - b) ** 2 / 4
    np.testing.assert_allclose(method.deviation(state, drawn.query) ** 2, expected, rtol=1e-4)


def test_one_label_changes_nothing_and_another_query_is_read_anew(trained):
    none, one = (predicted(trained, task(k))[0] for k in (0, 1))
    np.testing.assert_array_equal(none, one)
    method = RankerMethod("ranker", MODEL, [trained], labels=False)
    rows = np.arange(len(NEW))
    for query in (rows[:20], rows[5:25], rows[:20]):
        drawn = make_task(NEW, rows[30:40], query)
        state = method.adapt(drawn.support, torch.Generator())
        expected = predicted(trained, make_task(NEW, rows[:0], query))[0]
        np.testing.assert_allclose(
            method.predict(state, drawn.query), expected, rtol=1e-5, atol=1e-6
        )


def test_texts_are_refused():
    with pytest.raises(DataError, match=r"learns on sites.*no_encoder, wild_type_pass"):
        ALGORITHMS["ranker"](toy_predictor())
