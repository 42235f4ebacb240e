"""The one outer loop: what it learns, what it keeps, and what may go wrong on the way."""

import json
import math
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from toy import toy_encoded, toy_predictor, toy_site_assays, toy_site_predictor

from mutmeta_lib.errors import DataError, Diverged
from mutmeta_lib.learn import InnerLoop
from mutmeta_lib.learn.algorithms import ALGORITHMS
from mutmeta_lib.learn.methods import METHODS, Given, GradientMethod, Rate, build_methods
from mutmeta_lib.learn.run_state import RunState, run_identity
from mutmeta_lib.learn.train import MetaTraining, OuterLoop, meta_train
from mutmeta_lib.models.embed import freeze
from mutmeta_lib.models.predictor import Predictor
from mutmeta_lib.study.evaluate import evaluate
from mutmeta_lib.tasks.tasks import sample_tasks

PREDICTOR = toy_predictor()
TEXTS = sorted(set(ALGORITHMS) - {"ranker"})
START = PREDICTOR.init(torch.Generator().manual_seed(0))
ASSAYS = toy_encoded(8, n=150)
TRAIN, VALIDATION = toy_encoded(2), toy_encoded(3)[2:]
INNER = InnerLoop(0.05, 2)
SETTINGS = MetaTraining(
    steps=6, tasks_per_step=2, support=4, query=4, inner=INNER, validate_every=2, validation_tasks=2
)


class Broken(Predictor):
    """A predictor whose loss is not a number on one assay."""

    def loss(self, params, examples, *more, **others):
        value = super().loss(params, examples, *more, **others)
        return value * torch.nan if examples.assay.assay.id == "TOY1" else value


BROKEN = Broken(PREDICTOR.encoder, PREDICTOR.pooling, PREDICTOR.hidden)


class Killed(Exception):
    pass


def kill_at(step):
    """A progress report that ends the run after one step."""

    def progress(now, *_):
        if now == step:
            raise Killed

    return progress


def train(settings=SETTINGS, predictor=PREDICTOR, assays=TRAIN, start=START, **more):
    more = {"seed": 0, "validation": VALIDATION} | more
    return meta_train(predictor, start, assays, settings, **more)


def steps_of(**more):
    """The run, and the steps that it reported."""
    seen = []
    return train(progress=lambda step, *_: seen.append(step), **more), seen


def assert_same(a, b):
    torch.testing.assert_close(a.params, b.params, rtol=0, atol=0)
    assert a.best_step == b.best_step
    for column in ("train_loss", "validation_loss"):
        first, second = ([row[column] for row in one.history] for one in (a, b))
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("name", TEXTS)
def test_every_algorithm_lowers_its_validation_loss_on_a_learnable_family(name):
    """The worth of a mutant letter is the same in the proteins held out."""
    settings = replace(SETTINGS, algorithm=name, steps=25, support=10, query=12, meta_lr=2e-2)
    settings = replace(settings, validate_every=5, validation_tasks=6)
    run = train(settings, assays=ASSAYS[:6], validation=ASSAYS[6:])
    algorithm = ALGORITHMS[name](PREDICTOR)
    outer = OuterLoop(algorithm, settings)
    tasks = sample_tasks(ASSAYS[6:], 24, support=10, query=16, rng=np.random.default_rng(123))
    begun = algorithm.prepare(START, algorithm.loop(INNER))
    assert outer.validation(run.params, tasks) < 0.7 * outer.validation(begun, tasks)
    # What was trained is evaluated as it was validated.
    given, rate = Given(PREDICTOR, steps=INNER.steps), Rate("sgd", INNER.lr, INNER.steps)
    method = build_methods(
        [name], given, {METHODS[name].start: run.params}, {METHODS[name].rate: rate}
    )[name]
    found = method.predict(method.adapt(tasks[0].support, torch.Generator()), tasks[0].query)
    loss = outer.validation(run.params, tasks[:1])
    assert np.mean((found - tasks[0].query.labels.numpy()) ** 2) == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize(("killed_at", "validation"), [(1, VALIDATION), (5, VALIDATION), (5, ())])
def test_a_killed_run_resumes_to_the_same_bits(tmp_path, name, killed_at, validation):
    given = {"settings": replace(SETTINGS, algorithm=name), "validation": validation}
    where = {"checkpoint": tmp_path / "run.safetensors", "checkpoint_every": 2}
    with pytest.raises(Killed):
        train(**given, progress=kill_at(killed_at), **where)
    resumed, seen = steps_of(**given, **where)
    assert seen == [*range(killed_at, 7)]
    assert_same(resumed, train(**given))
    again, seen = steps_of(**given, **where)
    assert seen == [], "nothing was left to do"
    assert_same(again, resumed)


SITES = toy_site_predictor()


@pytest.mark.parametrize("name", ["ranker", "maml", "r2d2"])
def test_a_killed_run_with_dropout_and_a_schedule_resumes_to_the_same_bits(tmp_path, name):
    given = replace(SETTINGS, algorithm=name, dropout=True, schedule="one_cycle", weight_decay=0.1)
    how = {"predictor": SITES, "start": SITES.init(torch.Generator()), "settings": given}
    how |= {"assays": toy_site_assays(2), "validation": toy_site_assays(3)[2:]}
    where = {"checkpoint": tmp_path / "run.safetensors", "checkpoint_every": 2}
    with pytest.raises(Killed):
        train(**how, progress=kill_at(5), **where)
    assert not SITES.encoder.module.training
    resumed, seen = steps_of(**how, **where)
    assert seen == [5, 6]
    assert_same(resumed, train(**how))
    other = train(**how | {"settings": replace(given, dropout=False)})
    assert other.history[0]["train_loss"] != resumed.history[0]["train_loss"]


def test_ctrl_c_saves_the_step_it_is_at_and_the_run_goes_on_to_the_same_bits(tmp_path):
    def press(step, *_):
        if step == 3:
            signal.raise_signal(signal.SIGINT)

    where = {"checkpoint": tmp_path / "run.safetensors", "checkpoint_every": 9}
    with pytest.raises(KeyboardInterrupt, match=r"after meta-step 3 of 6; start again .*run\.safe"):
        train(progress=press, **where)
    resumed, seen = steps_of(**where)
    assert seen == [4, 5, 6]
    assert_same(resumed, train())


def test_one_cycle_warms_up_and_falls_to_nothing():
    rates = [replace(SETTINGS, steps=100, schedule="one_cycle").rate(i) for i in range(1, 101)]
    top = int(np.argmax(rates))
    assert rates[top] == pytest.approx(SETTINGS.meta_lr)
    assert top == 14
    assert (np.diff(rates[: top + 1]) > 0).all()
    assert (np.diff(rates[top:]) < 0).all()
    assert rates[-1] == pytest.approx(0, abs=1e-9)
    assert {replace(SETTINGS, steps=9).rate(i) for i in range(1, 10)} == {SETTINGS.meta_lr}


def test_a_run_is_a_function_of_its_seed_and_leaves_the_start_alone():
    before = {name: value.clone() for name, value in START.items()}
    losses = [train(seed=seed).history[-1]["train_loss"] for seed in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]
    torch.testing.assert_close(START, before, rtol=0, atol=0)


def test_heads_on_frozen_vectors_are_validated_together_as_one_by_one():
    predictor, assays = freeze(PREDICTOR, ASSAYS[:4], None)
    outer, params = OuterLoop(ALGORITHMS["maml"](predictor), SETTINGS), predictor.learning(START)
    alone = replace(outer, algorithm=replace(outer.algorithm, together=lambda *_: {}))
    tasks = sample_tasks(assays, 7, support=5, query=6, rng=np.random.default_rng(1))
    expected = alone.validation(params, tasks)
    assert outer.validation(params, tasks) == pytest.approx(expected, 1e-5)


def test_a_ranking_loss_learns_to_rank():
    predictor = replace(PREDICTOR, objective="list_mle")
    settings = MetaTraining("maml", 25, 2, 8, 16, InnerLoop(0.1, 2), meta_lr=2e-2)
    run, ranks = meta_train(predictor, START, ASSAYS[:6], settings, seed=0), []
    for start in (START, run.params):
        method = GradientMethod("maml", predictor, start, Rate("sgd", 0.1, 2))
        rows = evaluate({"maml": method}, ASSAYS[6:], shots=[8], seeds=[0, 1])
        ranks.append(rows["spearman"].mean())
    assert ranks[1] > ranks[0] + 0.2


def test_bfloat16_products_leave_float32_parameters_and_a_like_loss():
    fine, coarse = (train(replace(SETTINGS, precision=p)) for p in ("float32", "bfloat16"))
    assert {value.dtype for value in coarse.params.values()} == {torch.float32}
    one, other = (run.history[0]["train_loss"] for run in (fine, coarse))
    assert one != other == pytest.approx(one, rel=0.05)


def test_validation_is_taken_when_it_is_due_and_the_best_start_is_kept():
    run = train(replace(SETTINGS, steps=5, meta_lr=0.3))
    taken = [row["validation_loss"] for row in run.history]
    assert [not math.isnan(loss) for loss in taken] == [False, True, False, True, True]
    assert run.best_step == 1 + np.nanargmin(taken) < 5
    short = train(replace(SETTINGS, steps=run.best_step, meta_lr=0.3))
    torch.testing.assert_close(run.params, short.params, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"algorithm": "protonet"}, r"unknown algorithm 'protonet'; choose from .*reptile"),
        ({"precision": "float16"}, "unknown precision 'float16'"),
        ({"precision": "bfloat16", "algorithm": "r2d2"}, "r2d2 solves a linear system"),
    ],
)
def test_settings_that_do_not_fit_are_refused(wrong, told):
    with pytest.raises(DataError, match=told):
        MetaTraining(**wrong)


def test_a_run_goes_on_only_from_its_own_checkpoint(tmp_path):
    path = tmp_path / "run.safetensors"
    train(checkpoint=path)
    with pytest.raises(DataError, match="other settings, data or start"):
        train(replace(SETTINGS, meta_lr=0.5), checkpoint=path)
    base = (PREDICTOR, START, TRAIN, SETTINGS, 0, VALIDATION)
    changed = [
        (toy_predictor(seed=1), *base[1:]),
        (replace(PREDICTOR, pooling="cls"), *base[1:]),
        (PREDICTOR, PREDICTOR.init(torch.Generator().manual_seed(1)), *base[2:]),
        (*base[:2], TRAIN[1:], *base[3:]),
        (*base[:2], toy_encoded(2, encoding="mutant"), *base[3:]),
        (*base[:3], replace(SETTINGS, meta_lr=0.5), *base[4:]),
        (*base[:4], 1, base[5]),
        (*base[:5], TRAIN),
    ]
    identities = {json.dumps(run_identity(*given)) for given in (base, *changed)}
    assert len(identities) == len(changed) + 1
    # A checkpoint is compared with what JSON made of it.
    assert json.loads(json.dumps(run_identity(*base))) == run_identity(*base)


DRAWN = sample_tasks(TRAIN, 2, support=4, query=4, rng=np.random.default_rng(0))


def fresh():
    return RunState.begin(START, SETTINGS.meta_lr, np.random.default_rng(0))


def maml(**changed):
    return OuterLoop(ALGORITHMS["maml"](PREDICTOR), replace(SETTINGS, **changed))


def test_loss_and_norm_are_those_before_the_step_and_clipping():
    state, outer = fresh(), maml(clip=1e9)
    before = outer.validation(START, DRAWN)
    loss, norm = outer.step(state, DRAWN)
    assert loss == pytest.approx(before, rel=1e-5)
    assert outer.step(state, DRAWN)[0] < loss
    bound = fresh()
    assert maml(clip=norm / 7).step(bound, DRAWN)[1] == pytest.approx(norm)
    gradients = torch.stack([value.grad.norm() for value in bound.current.values()])
    assert float(gradients.norm()) == pytest.approx(norm / 7, rel=1e-4)


def test_a_loss_that_is_not_finite_names_step_and_assay_and_moves_nothing():
    far, state = InnerLoop(1e30, 3), fresh()
    with pytest.raises(Diverged, match=r"not finite at meta-step 1 \(assays TOY"):
        maml(inner=far).step(state, DRAWN)
    torch.testing.assert_close(state.params(), START, rtol=0, atol=0)
    with pytest.raises(Diverged, match=r"not finite at meta-step \d \(assays TOY1\)"):
        train(predictor=BROKEN)
    with pytest.warns(UserWarning, match="meta-step 2: the validation loss is not finite"):
        train(replace(SETTINGS, steps=2), BROKEN, [TRAIN[0]], validation=[TRAIN[1]])
