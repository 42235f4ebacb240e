"""All methods behind one protocol: none reads query labels, and each learns what it can."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from toy import WORTH, toy_encoded, toy_predictor

from mutmeta_lib.learn import InnerLoop
from mutmeta_lib.learn.algorithms import ALGORITHMS
from mutmeta_lib.learn.baselines import embedding_features
from mutmeta_lib.learn.methods import (
    METHODS,
    STARTS,
    Diverged,
    Given,
    GradientMethod,
    build_methods,
    divergences,
)
from mutmeta_lib.models.zero_shot import MASKED
from mutmeta_lib.tasks.metrics import spearman
from mutmeta_lib.tasks.tasks import Examples, draw_task, task_generator

PREDICTOR = toy_predictor()
ASSAYS = toy_encoded(2, n=150)
START = PREDICTOR.init(torch.Generator().manual_seed(0))
RATES = {
    "maml": ("sgd", 0.1),
    "multitask": ("adam", 1e-3),
    "finetune": ("adam", 1e-2),
    "anil": ("sgd", 0.1),
    "boil": ("adam", 1e-3),
    "reptile": ("sgd", 0.1),
}
RATES |= {"fomaml": ("sgd", 0.1), "maml_rank": ("sgd", 0.1)}
STARTED = {
    name: ALGORITHMS[start.algorithm](PREDICTOR).prepare(START, InnerLoop(0.1))
    if start.algorithm in ALGORITHMS
    else START
    for name, start in STARTS.items()
}
GIVEN = Given(
    PREDICTOR, steps=5, features=embedding_features(PREDICTOR.encoder, "separator", "sites")
)


def build(name, given=GIVEN, starts=STARTED, rates=RATES):
    return build_methods([name], given, starts, rates)[name]


BUILT = {name: build(name) for name in METHODS if name not in MASKED}


def task(shots, assay=0):
    return draw_task(ASSAYS[assay], shots, task_generator(0, "t"), pool=80, max_query=60)


def run(method, drawn, seed=0):
    state = method.adapt(drawn.support, torch.Generator().manual_seed(seed))
    return method.predict(state, drawn.query)


@pytest.mark.parametrize("name", sorted(BUILT))
@pytest.mark.parametrize("shots", [0, 1, 2, 10])
def test_every_method_predicts_finite_labels_at_every_number_of_shots(name, shots):
    with divergences():  # one label at a large rate may well end higher; the start answers then
        predicted = np.asarray(run(BUILT[name], task(shots)))
    assert predicted.shape == (60,)
    assert np.isfinite(predicted).all()


@pytest.mark.parametrize("name", sorted(BUILT))
def test_no_method_reads_the_query_labels(name):
    drawn = task(10)
    query = drawn.query
    blind = Examples(query.assay, query.rows, torch.full_like(query.labels, float("nan")))
    state = BUILT[name].adapt(drawn.support, torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(
        BUILT[name].predict(state, query), BUILT[name].predict(state, blind)
    )


@pytest.mark.parametrize("name", sorted(BUILT))
def test_the_same_generator_gives_the_same_prediction(name):
    drawn = task(10)
    np.testing.assert_array_equal(run(BUILT[name], drawn), run(BUILT[name], drawn))


@pytest.mark.parametrize("name", ["ridge", "gp", "finetune", "metasgd", "r2d2", "deepkernel"])
def test_methods_that_learn_do_learn(name):
    """80 labels of a rule that is linear in the mutant letter."""
    method = build(name, replace(GIVEN, steps=60))
    drawn = task(80)
    assert spearman(run(method, drawn), drawn.query.scores) > 0.5


def test_onehot_knows_only_what_it_has_seen():
    """Ridge on one-hot sequences cannot rank variants at sites without a label above chance."""
    drawn = task(80)
    assert spearman(run(BUILT["onehot"], drawn), drawn.query.scores) < 0.9


def test_a_gradient_method_moves_towards_the_support():
    drawn = task(10)
    for optimiser, lr in (("sgd", 0.1), ("adam", 1e-2)):
        method = GradientMethod("m", PREDICTOR, START, (optimiser, lr), 20)
        adapted = method.adapt(drawn.support, torch.Generator())
        assert PREDICTOR.loss(adapted, drawn.support) < 0.9 * PREDICTOR.loss(START, drawn.support)


@pytest.mark.parametrize("name", [n for n in BUILT if METHODS[n].start and n != "maml_fixed"])
def test_without_labels_the_start_is_used(name):
    state = BUILT[name].adapt(task(0).support, torch.Generator())
    assert state is STARTED[METHODS[name].start]


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
@pytest.mark.parametrize(("name", "still"), [("anil", "encoder."), ("boil", "head.")])
def test_anil_keeps_the_encoder_and_boil_the_head(name, still, optimiser):
    method = build(name, rates={name: (optimiser, 1e-3)})
    adapted = method.adapt(task(10).support, torch.Generator())
    moved = {key for key in START if not torch.equal(adapted[key], START[key])}
    assert list(adapted) == list(START)
    assert moved == {key for key in START if not key.startswith(still)}


def test_metasgd_with_constant_rates_is_maml():
    drawn = task(10)
    np.testing.assert_allclose(run(BUILT["metasgd"], drawn), run(BUILT["maml"], drawn), rtol=1e-5)


def test_learned_rates_may_diverge_too():
    start = ALGORITHMS["metasgd"](PREDICTOR).prepare(START, InnerLoop(30.0))
    method = build("metasgd", starts={"metasgd": start})
    with pytest.warns(Diverged, match=r"metasgd diverged on assay TOY0 .*learned rates"):
        assert method.adapt(task(10).support, torch.Generator()) is start


@pytest.mark.parametrize(("optimiser", "lr"), [("sgd", 1e20), ("sgd", 30.0), ("adam", 1e4)])
def test_a_diverged_adaptation_is_said_and_answered_with_the_start(optimiser, lr):
    method = GradientMethod("maml", PREDICTOR, START, (optimiser, lr), 10)
    with pytest.warns(Diverged, match=r"maml diverged on assay TOY0 \(10 labels"):
        assert method.adapt(task(10).support, torch.Generator()) is START


def test_divergences_are_counted_and_other_warnings_pass():
    method = GradientMethod("maml", PREDICTOR, START, ("sgd", 1e20), 10)

    def adapt_twice():
        with divergences() as said:
            method.adapt(task(10).support, torch.Generator())
            method.adapt(task(10).support, torch.Generator())
            warnings.warn("old", DeprecationWarning, stacklevel=1)
        return said

    with pytest.warns(DeprecationWarning, match="old"):
        said = adapt_twice()
    assert len(said) == 2
    assert "its start is used there" in said[0]


def test_blosum_ranks_by_the_matrix():
    predicted = run(BUILT["blosum"], task(0))
    variants = task(0).query.variants
    scores = {str(v[0]): p for v, p in zip(variants, predicted, strict=True)}
    assert len(set(np.round(list(scores.values()), 6))) > 2
    np.testing.assert_allclose(np.mean(predicted), 0, atol=1e-9)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"unknown methods \['protonet'\]"):
        build("protonet")
    with pytest.raises(ValueError, match="unknown optimiser 'lion'"):
        GradientMethod("m", PREDICTOR, START, ("lion", 1.0), 1).adapt(
            task(1).support, torch.Generator()
        )


def test_toy_rule_is_there():
    assert np.std(list(WORTH.values())) > 0.5
