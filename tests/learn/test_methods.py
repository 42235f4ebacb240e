"""One contract for all methods; what some are in particular; how their rates are chosen."""

import re
import warnings
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import Ridge as PlainRidge
from toy import WORTH, toy_encoded, toy_predictor, toy_site_assays, toy_site_predictor

from mutmeta_lib.data.assays import Assay
from mutmeta_lib.data.variants import AMINO_ACIDS, Substitution, apply_variant
from mutmeta_lib.errors import DataError
from mutmeta_lib.learn import InnerLoop
from mutmeta_lib.learn.algorithms import ALGORITHMS
from mutmeta_lib.learn.baselines import (
    RIDGE_PENALTIES,
    GaussianProcessWithPrior,
    WithPrior,
    embedding_features,
    onehot_features,
    substitution_score,
)
from mutmeta_lib.learn.methods import (
    GRID,
    METHODS,
    STARTS,
    Given,
    GradientMethod,
    Rate,
    build_methods,
    divergences,
    joined,
)
from mutmeta_lib.learn.tuning import best_rate, grid_scores
from mutmeta_lib.models.zero_shot import MASKED
from mutmeta_lib.tasks.metrics import spearman
from mutmeta_lib.tasks.tasks import Examples, draw_task, encode_assay, make_task, task_generator

PREDICTOR = toy_predictor()
ASSAYS = toy_encoded(3, n=150)
START = PREDICTOR.init(torch.Generator().manual_seed(0))
RATES = {one.rate: Rate("sgd", 0.1, 5) for one in METHODS.values() if one.rate and one.grid is GRID}
RATES |= dict.fromkeys(("multitask", "boil"), Rate("adam", 1e-3, 5))
RATES |= {"finetune": Rate("adam", 1e-2, 5)}
SITES = {name for name, method in METHODS.items() if method.start == "ranker"}
SITE_PREDICTOR, SITE_ASSAYS = toy_site_predictor(), toy_site_assays(3, n=150)
STARTED = {
    name: ALGORITHMS[start.algorithm](PREDICTOR).prepare(START, InnerLoop(0.1))
    if start.algorithm in set(ALGORITHMS) - {"ranker"}
    else START
    for name, start in STARTS.items()
}
STARTED["ranker"] = joined(
    ALGORITHMS["ranker"](one).prepare(one.init(torch.Generator().manual_seed(seed)), InnerLoop())
    for seed, one in enumerate([SITE_PREDICTOR, toy_site_predictor(1)])
)
FEATURES = embedding_features(PREDICTOR.encoder, "separator", "sites")
GIVEN = Given(PREDICTOR, steps=5, fixed=4, features=FEATURES)


def site_features(examples):
    return examples.tokens.hidden.sum(dim=1).numpy()


def build(name, given=GIVEN, starts=STARTED, rates=RATES):
    if name in SITES:
        given = replace(given, predictor=SITE_PREDICTOR, features=site_features)
    return build_methods([name], given, starts, rates)[name]


BUILT = {name: build(name) for name in METHODS if name not in MASKED}
EACH = pytest.mark.parametrize("name", sorted(BUILT))


def task(shots, assay=0, of=""):
    assays = SITE_ASSAYS if of in SITES else ASSAYS
    return draw_task(assays[assay], shots, task_generator(0, "t"), pool=80, max_query=60)


def run(method, drawn, seed=0):
    with divergences():  # one label at a large rate may well end higher; the start answers then
        state = method.adapt(drawn.support, torch.Generator().manual_seed(seed))
        return np.asarray(method.predict(state, drawn.query))


@EACH
@pytest.mark.parametrize("shots", [0, 1, 2, 10])
def test_labels_are_finite_and_owe_nothing_to_the_query(name, shots):
    """Neither to its labels, nor to the measured scores of any row but the support's."""
    drawn = task(shots, of=name)
    predicted = run(BUILT[name], drawn)
    assert predicted.shape == (60,)
    assert np.isfinite(predicted).all()
    support, query, assay = drawn.support, drawn.query, ASSAYS[0].assay
    known = np.isin(np.arange(len(assay)), support.rows)
    blind = replace(
        drawn.query.assay, assay=replace(assay, scores=np.where(known, assay.scores, 99.0))
    )
    hidden = replace(
        drawn,
        support=Examples(blind, support.rows, support.labels),
        query=Examples(blind, query.rows, torch.full_like(query.labels, torch.nan)),
    )
    np.testing.assert_array_equal(run(BUILT[name], hidden), predicted)


@EACH
def test_the_order_of_labels_changes_nothing_and_a_label_does(name):
    drawn, order = task(10, of=name), np.random.default_rng(0).permutation(10)
    predicted = run(BUILT[name], drawn)
    turned = replace(drawn, support=drawn.support.take(order))
    if name not in ("finetune_epochs", "maml_fixed"):  # these read them in an order
        np.testing.assert_allclose(run(BUILT[name], turned), predicted, rtol=1e-3, atol=2e-4)
    lying = replace(drawn, support=replace(drawn.support, labels=-drawn.support.labels))
    same = np.allclose(run(BUILT[name], lying), predicted, atol=1e-6)
    assert same == (name in ("blosum", "mean", "joint", "zero_label"))


@pytest.mark.parametrize("name", ["ridge", "gp", "finetune", "metasgd", "r2d2", "deepkernel"])
def test_methods_that_learn_do_learn(name):
    """80 labels of a rule that is linear in the mutant letter."""
    drawn = task(80)
    rates = {"finetune": Rate("adam", 1e-2, 60)}
    method = build(name, replace(GIVEN, steps=60), rates=rates)
    assert spearman(run(method, drawn), drawn.query.scores) > 0.5


@pytest.mark.parametrize("name", ["gp", "gp_zero"])
def test_a_gaussian_process_knows_how_sure_it_is(name):
    """Its deviation grows away from the labels, is never under the noise, and is 1 without any."""
    drawn, method = task(40, of=name), BUILT[name]
    state = method.adapt(drawn.support, torch.Generator())
    near, far = (method.deviation(state, part) for part in (drawn.support, drawn.query))
    noise = state[0].kernel_.k2.noise_level ** 0.5
    assert far.shape == (60,)
    assert noise * 0.999 < near.mean() < far.mean()
    np.testing.assert_array_equal(method.deviation(None, drawn.query), np.ones(60))


@pytest.mark.parametrize("name", [n for n in BUILT if METHODS[n].start and n not in SITES])
def test_without_labels_the_start_is_used(name):
    state = BUILT[name].adapt(task(0).support, torch.Generator())
    assert state is STARTED[METHODS[name].start]


def test_the_first_labels_one_step_and_epochs_are_what_they_say():
    drawn = task(10)
    first = replace(drawn, support=drawn.support.take(np.arange(4)))
    np.testing.assert_array_equal(run(BUILT["maml_fixed"], drawn), run(BUILT["maml"], first))
    one = build("maml", rates={"maml": Rate("sgd", 0.1, 1)})
    np.testing.assert_array_equal(run(BUILT["maml_1"], drawn), run(one, drawn))
    # Up to 16 labels an epoch is one step of Adam on all of them.
    epochs, steps = (
        build(name, replace(GIVEN, epochs=7, steps=7)) for name in ("finetune_epochs", "mlp")
    )
    np.testing.assert_allclose(run(epochs, drawn), run(steps, drawn), rtol=1e-3, atol=1e-4)
    assert (run(epochs, task(40)) != run(epochs, task(40), seed=1)).any()
    np.testing.assert_allclose(run(BUILT["metasgd"], drawn), run(BUILT["maml"], drawn), rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "moves"), [("anil", r"head\."), ("boil", r"encoder\."), ("lora", r"head\.|.*\.lora_")]
)
def test_what_adapts_moves_and_all_else_stays_under_adam_too(name, moves):
    method, start = build(name, rates={name: Rate("adam", 1e-3, 5)}), STARTED[name]
    adapted = method.adapt(task(10).support, torch.Generator())
    moved = {key for key in start if not torch.equal(adapted[key], start[key])}
    assert list(adapted) == list(start)
    assert moved == {key for key in start if re.match(moves, key)} != set()


def test_no_other_optimiser_is_taken_for_adam():
    with pytest.raises(ValueError, match="unknown optimiser 'rmsprop'; choose sgd or adam"):
        build("maml", rates={"maml": Rate("rmsprop", 1e-3, 5)}).adapt(task(10).support, None)


@pytest.mark.parametrize(("optimiser", "lr"), [("sgd", 1e20), ("sgd", 30.0), ("adam", 1e4)])
def test_a_diverged_adaptation_is_said_and_answered_with_the_start(optimiser, lr):
    rated = GradientMethod("maml", PREDICTOR, START, Rate(optimiser, lr, 10))
    start = ALGORITHMS["metasgd"](PREDICTOR).prepare(START, InnerLoop(30.0))
    learned = build("metasgd", starts={"metasgd": start})
    others = warnings.catch_warnings(record=True, action="always")
    with others as passed, divergences() as said:
        assert rated.adapt(task(10).support, torch.Generator()) is START
        assert learned.adapt(task(10).support, torch.Generator()) is start
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert [str(one.message) for one in passed] == ["old"]
    of_maml, of_metasgd = said
    assert f"maml diverged on assay TOY0 (10 labels, {optimiser} at" in of_maml
    assert "learned rates); its start is used there" in of_metasgd


def test_onehot_spells_the_mutated_sequence():
    query = task(0).query
    wild_type = ASSAYS[0].assay.wild_type
    before = np.array([[letter == one for one in AMINO_ACIDS] for letter in wild_type], dtype=int)
    features = onehot_features(query).toarray().reshape(len(query), -1, 20)
    for row, variant in zip(before + features, query.variants, strict=True):
        spelled = "".join(AMINO_ACIDS[column] for column in row.argmax(axis=1))
        assert spelled == apply_variant(variant, wild_type)
        assert (np.sort(row, axis=1) == [0] * 19 + [1]).all()


@pytest.mark.parametrize("kind", [WithPrior, GaussianProcessWithPrior])
def test_a_prior_is_kept_where_labels_are_few_and_corrected_where_they_tell(kind):
    few, many = task(2), task(80)
    known = lambda examples: examples.scores[:, None]  # noqa: E731
    right, wrong = (
        kind("prior", known, lambda examples, sign=sign: sign * examples.scores) for sign in (1, -1)
    )
    assert spearman(run(right, few), few.query.scores) == 1.0
    assert spearman(run(wrong, few), few.query.scores) == -1.0
    assert spearman(run(wrong, many), many.query.scores) > 0.9


def test_embedding_features_are_standardised_and_looked_up_by_row():
    rows = np.arange(len(ASSAYS[0]))
    table = FEATURES(make_task(ASSAYS[0], rows[:0], rows).query)
    np.testing.assert_allclose(table.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(table.std(axis=0), 1, atol=1e-4)
    query = task(0).query
    np.testing.assert_array_equal(FEATURES(query), table[query.rows])


def test_ridge_is_ridge_with_the_penalty_of_least_leave_one_out_error():
    drawn = task(12)
    x, y = FEATURES(drawn.support), drawn.support.labels.numpy()

    def leave_one_out(penalty):
        rows = np.arange(len(y))
        fits = [PlainRidge(penalty).fit(x[rows != i], y[rows != i]) for i in rows]
        return sum((fits[i].predict(x[[i]])[0] - y[i]) ** 2 for i in rows)

    best = min(RIDGE_PENALTIES, key=leave_one_out)
    expected = PlainRidge(best).fit(x, y).predict(FEATURES(drawn.query))
    np.testing.assert_allclose(run(BUILT["ridge"], drawn), expected, rtol=1e-3, atol=1e-3)


def test_substitution_scores_are_sums_of_blosum62():
    changes = {(1, "I"): 2, (2, "G"): -2, (3, "E"): 2, (4, "P"): -3}
    variants = [(Substitution(at, "LWDL"[at - 1], new),) for at, new in changes]
    variants += [variants[0] + variants[3], ()]
    assay = Assay("s", "s", "fitness", "LWDL", tuple(variants), np.arange(6.0), "", "", "")
    encoded = encode_assay(assay, "mutant", PREDICTOR.encoder.vocabulary, 16)
    drawn = make_task(encoded, np.array([], int), np.arange(6))
    assert substitution_score(drawn.query).tolist() == [*changes.values(), -1, 0]
    assert run(BUILT["blosum"], drawn).argsort(kind="stable").tolist() == [3, 1, 4, 5, 0, 2]


@dataclass
class Oracle:
    """Predicts the truth plus noise that grows with the "rate"."""

    rate: Rate

    def adapt(self, support, generator):
        return None

    def predict(self, state, query):
        truth = np.array([WORTH[variant[0].mutant] for variant in query.variants])
        return truth + self.rate.lr * np.random.default_rng(0).normal(size=len(truth))


def test_the_best_rate_wins_wherever_it_stands_by_its_own_criterion_the_first_of_equals():
    tasks = [task(5, assay) for assay in range(3)]
    exact, worst, middling = Rate("adam", 0.0, 5), Rate("sgd", 10.0, 5), Rate("sgd", 1.0, 9)
    for grid in ([worst, exact], [exact, worst, middling]):
        rows = grid_scores(Oracle, tasks, grid)
        assert [Rate.of(row) for row in rows] == grid
        assert best_rate(rows, "spearman") == best_rate(rows, "error") == exact
    columns, scores = [*Rate._fields, "spearman", "error"], [(0.5, 3), (0.4, 1), (0.5, 1)]
    rows = pd.DataFrame([("sgd", 0.1, n, *s) for n, s in enumerate(scores)], columns=columns)
    for criterion, best in (("spearman", 0), ("error", 1)):
        assert best_rate(rows.to_dict("records"), criterion) == ("sgd", 0.1, best)
    with pytest.raises(DataError, match="no meta-validation assay is large enough"):
        grid_scores(Oracle, [], [exact])
