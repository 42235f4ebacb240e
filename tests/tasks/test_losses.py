"""Losses against sums written out by hand, and what must not change them."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import grad, vmap
from toy import toy_encoded, toy_predictor

from mutmeta_lib.errors import DataError
from mutmeta_lib.learn import InnerLoop, meta_gradient
from mutmeta_lib.learn.methods import GradientMethod
from mutmeta_lib.learn.training import MetaTraining, meta_train
from mutmeta_lib.models.predictor import Predictor
from mutmeta_lib.study.evaluate import evaluate
from mutmeta_lib.tasks.losses import LOSSES, RANKING, bradley_terry, list_mle, mse
from mutmeta_lib.tasks.tasks import sample_tasks

values = st.floats(-5, 5).map(lambda value: round(value, 3))
pairs = st.integers(1, 7).flatmap(
    lambda n: st.tuples(
        st.lists(values, min_size=n, max_size=n),
        # Small whole numbers, so that ties occur.
        st.lists(st.integers(-2, 3), min_size=n, max_size=n),
    )
)


def double(numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def plain_list_mle(s, y):
    terms = [
        math.log(sum(math.exp(b) for b, v in zip(s, y, strict=True) if v <= u)) - a
        for a, u in zip(s, y, strict=True)
    ]
    return sum(terms) / len(terms)


def plain_bradley_terry(s, y):
    terms = [
        math.log1p(math.exp(s[j] - s[i]))
        for i, j in itertools.permutations(range(len(s)), 2)
        if y[i] > y[j]
    ]
    return sum(terms) / len(terms) if terms else 0.0


PLAIN = {
    "mse": lambda s, y: np.mean((np.array(s) - np.array(y)) ** 2),
    "list_mle": plain_list_mle,
    "bradley_terry": plain_bradley_terry,
}


def test_every_loss_is_tested():
    assert set(PLAIN) == set(LOSSES)
    assert set(RANKING) == set(LOSSES) - {"mse"}


@pytest.mark.parametrize("name", sorted(LOSSES))
@given(pairs)
@settings(max_examples=60)
def test_sums_written_out(name, given_pair):
    s, y = given_pair
    found = LOSSES[name](double(s), double(y)).item()
    assert found == pytest.approx(PLAIN[name](s, y), rel=1e-10, abs=1e-12)


def test_small_cases_by_hand():
    assert mse(double([0, 3]), double([1, 1])) == pytest.approx(2.5)
    # Best first: exp(1) of exp(1)+exp(2)+exp(0), then exp(0) of exp(0)+exp(2), then certain.
    e = math.e
    best = math.log(e / (e + e**2 + 1)) + math.log(1 / (1 + e**2))
    assert list_mle(double([1, 2, 0]), double([9, 5, 7])) == pytest.approx(-best / 3)
    # Pairs (0,2), (0,1), (2,1), the last two of them with margin -1 and -2.
    logs = [math.log1p(math.exp(m)) for m in (-1, 1, 2)]
    assert bradley_terry(double([1, 2, 0]), double([9, 5, 7])) == pytest.approx(sum(logs) / 3)


def test_without_ties_list_mle_is_the_product_over_the_sorted_list():
    rng = np.random.default_rng(0)
    s, y = double(rng.normal(size=9)), double(rng.normal(size=9))
    in_order = s[torch.argsort(y, descending=True)]
    likelihood = sum(in_order[i] - in_order[i:].logsumexp(0) for i in range(9))
    torch.testing.assert_close(list_mle(s, y), -likelihood / 9)


@pytest.mark.parametrize("name", RANKING)
@given(pairs, st.floats(-50, 50), st.floats(0.1, 9))
@settings(max_examples=40)
def test_ranking_losses_ignore_shifts_and_read_the_order_of_labels_alone(name, pair, shift, factor):
    s, y = map(double, pair)
    loss = LOSSES[name]
    torch.testing.assert_close(loss(s + shift, y), loss(s, y), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(loss(s, factor * y**3 + shift), loss(s, y), rtol=0, atol=0)


@pytest.mark.parametrize("name", sorted(LOSSES))
@given(pairs, st.randoms())
@settings(max_examples=40)
def test_the_order_of_examples_changes_nothing_ties_included(name, pair, random):
    s, y = map(double, pair)
    turn = list(range(len(s)))
    random.shuffle(turn)
    torch.testing.assert_close(LOSSES[name](s[turn], y[turn]), LOSSES[name](s, y))


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_first_and_second_derivatives_equal_finite_differences(name):
    rng = np.random.default_rng(1)
    y = double([2, 0, 1, 1, -3, 2])
    s = double(rng.normal(size=6)).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: LOSSES[name](x, y), s)
    assert torch.autograd.gradgradcheck(lambda x: LOSSES[name](x, y), s)


@pytest.mark.parametrize("name", sorted(LOSSES))
@pytest.mark.parametrize("size", [1e3, 1e-6])
def test_extreme_predictions_stay_finite_in_float32(name, size):
    s = torch.linspace(-size, size, 12)
    for y in (s, -s, torch.zeros(12)):
        assert torch.isfinite(LOSSES[name](s, y))
        assert torch.isfinite(grad(LOSSES[name])(s, y)).all()


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_vmapped_equals_loop_derivatives_included(name):
    rng = np.random.default_rng(2)
    s, y = double(rng.normal(size=(5, 8))), double(rng.integers(0, 4, size=(5, 8)))
    loss = LOSSES[name]
    loop = torch.stack([loss(a, b) for a, b in zip(s, y, strict=True)])
    torch.testing.assert_close(vmap(loss)(s, y), loop)

    def curvature(a, b):
        return grad(lambda x: (grad(loss)(x, b) ** 2).sum())(a)

    looped = torch.stack([curvature(a, b) for a, b in zip(s, y, strict=True)])
    torch.testing.assert_close(vmap(curvature)(s, y), looped)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_the_measured_order_is_the_best_order(name):
    y = double([0.5, -1, 2, 1])
    losses = {
        order: LOSSES[name](y[list(order)], y).item() for order in itertools.permutations(range(4))
    }
    assert min(losses, key=losses.get) == (0, 1, 2, 3)
    assert sorted(losses.values())[0] < sorted(losses.values())[1]


def test_list_mle_pulls_tied_examples_together():
    y = double([0, 0, 1])
    apart, together = (grad(list_mle)(double([gap, -gap, 1]), y) for gap in (0.3, 0.0))
    assert apart[0] > apart[1]
    assert together[0] == together[1]


def test_bradley_terry_leaves_tied_examples_alone():
    assert not grad(bradley_terry)(double([0.3, -0.3]), double([1, 1])).any()
    assert grad(bradley_terry)(double([0.3, -0.3, 0]), double([1, 1, 0])).all()


@pytest.mark.parametrize("name", RANKING)
@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_examples_have_no_order(name, n):
    s, y = torch.ones(n), torch.ones(n)
    assert LOSSES[name](s, y) == 0
    assert not grad(LOSSES[name])(s, y).any()


BASE = toy_predictor()
TASKS = sample_tasks(toy_encoded(2), 2, support=6, query=8, rng=np.random.default_rng(0))


@pytest.mark.learn2learn
@pytest.mark.parametrize("name", sorted(LOSSES))
def test_a_predictor_uses_the_loss_it_names(name):
    predictor = Predictor(BASE.encoder, hidden=(8,), objective=name)
    params = predictor.init(torch.Generator().manual_seed(0))
    query = TASKS[0].query
    expected = LOSSES[name](predictor(params, query.tokens), query.labels)
    assert predictor.loss(params, query) == expected
    tasks = [(task.support, task.query) for task in TASKS]
    ours, theirs = (
        meta_gradient(predictor.loss, params, tasks, InnerLoop(0.1, 2), backend=backend)[1]
        for backend in ("torch.func", "learn2learn")
    )
    assert max(float(part.abs().max()) for part in ours.values()) > 0
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_mse_is_the_default_and_unknown_names_are_refused():
    assert BASE.objective == "mse"
    with pytest.raises(DataError, match=r"unknown loss 'huber'.*mse, list_mle, bradley_terry"):
        Predictor(BASE.encoder, objective="huber")


@pytest.mark.parametrize("name", RANKING)
def test_meta_training_on_a_ranking_loss_learns_to_rank(name):
    predictor = Predictor(BASE.encoder, hidden=(8,), objective=name)
    start = predictor.init(torch.Generator().manual_seed(0))
    assays = toy_encoded(8, n=150)
    settings = MetaTraining(
        steps=25, tasks_per_step=2, support=8, query=16, inner=InnerLoop(0.1, 2), meta_lr=2e-2
    )
    run = meta_train(predictor, start, assays[:6], settings, seed=0)
    method = GradientMethod("maml", predictor, run.params, ("sgd", 0.1), 2)
    ranks = [
        evaluate({"m": one}, assays[6:], shots=[8], seeds=[0, 1])["spearman"].mean()
        for one in (replace(method, start=start), method)
    ]
    assert ranks[1] > ranks[0] + 0.2
