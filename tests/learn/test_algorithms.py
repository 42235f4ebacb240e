"""Every algorithm through the one outer loop, and what sets each apart there."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from toy import toy_encoded, toy_predictor

from mutmeta_lib.errors import DataError
from mutmeta_lib.learn import BACKENDS, InnerLoop
from mutmeta_lib.learn.algorithms import ALGORITHMS, everything
from mutmeta_lib.learn.methods import METHODS, Given, build_methods
from mutmeta_lib.learn.training import MetaTraining, meta_train, validation_loss
from mutmeta_lib.tasks.tasks import sample_tasks

PREDICTOR = toy_predictor()
START = PREDICTOR.init(torch.Generator().manual_seed(0))
ASSAYS = toy_encoded(8, n=150)
INNER = InnerLoop(0.05, 2)
SETTINGS = MetaTraining(
    steps=4, tasks_per_step=2, support=4, query=4, inner=INNER, validate_every=2, validation_tasks=2
)


def train(algorithm, settings=SETTINGS, **more):
    settings = replace(settings, algorithm=algorithm)
    return meta_train(
        PREDICTOR, START, ASSAYS[:6], settings, **{"seed": 0, "validation": ASSAYS[6:]} | more
    )


class Killed(Exception):
    pass


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_a_killed_run_resumes_to_the_same_bits(tmp_path, name):
    path = tmp_path / "run.safetensors"

    def kill(step, steps, loss):
        if step == 3:
            raise Killed

    with pytest.raises(Killed):
        train(name, checkpoint=path, checkpoint_every=1, progress=kill)
    resumed, whole = train(name, checkpoint=path), train(name)
    torch.testing.assert_close(resumed.params, whole.params, rtol=0, atol=0)
    assert [r["train_loss"] for r in resumed.history] == [r["train_loss"] for r in whole.history]


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_every_algorithm_lowers_its_validation_loss_on_a_learnable_family(name):
    settings = replace(SETTINGS, steps=25, support=10, query=12, meta_lr=2e-2, validate_every=5)
    run = train(name, replace(settings, validation_tasks=6))
    algorithm = ALGORITHMS[name](PREDICTOR)
    loop = algorithm.loop(INNER)
    tasks = sample_tasks(ASSAYS[6:], 24, support=10, query=16, rng=np.random.default_rng(123))
    before, after = (
        validation_loss(algorithm.model, params, tasks, loop, algorithm.update)
        for params in (algorithm.prepare(START, loop), run.params)
    )
    assert after < 0.7 * before


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_what_is_trained_can_be_evaluated(name):
    run = train(name)
    given, rates = Given(PREDICTOR, steps=2), {METHODS[name].rate: ("sgd", 0.05)}
    (task,) = sample_tasks(ASSAYS[6:], 1, support=5, query=9, rng=np.random.default_rng(0))
    method = build_methods([name], given, {METHODS[name].start: run.params}, rates)[name]
    adapted = method.adapt(task.support, torch.Generator())
    found = method.predict(adapted, task.query)
    algorithm = ALGORITHMS[name](PREDICTOR)
    loss = validation_loss(
        algorithm.model, run.params, [task], algorithm.loop(INNER), algorithm.update
    )
    assert np.mean((found - task.query.labels.numpy()) ** 2) == pytest.approx(loss, rel=1e-4)


def test_each_algorithm_goes_its_own_way():
    losses = {name: train(name).history[-1]["train_loss"] for name in ALGORITHMS}
    assert len(set(losses.values())) == len(losses)


@pytest.mark.parametrize(("name", "scope"), [("anil", "head"), ("boil", "encoder")])
def test_anil_and_boil_are_maml_with_a_scope(name, scope):
    scoped = train("maml", replace(SETTINGS, inner=replace(INNER, scope=scope)))
    torch.testing.assert_close(train(name).params, scoped.params, rtol=0, atol=0)
    other = replace(SETTINGS, inner=replace(INNER, scope="last-1"))
    with pytest.raises(DataError, match=f"adapts '{scope}', its inner loop asks for 'last-1'"):
        train(name, other)


def test_zero_steps_of_every_descending_algorithm_are_the_same_joint_training():
    still = replace(SETTINGS, inner=replace(INNER, steps=0))
    maml = train("maml", still)
    for name in ("anil", "boil", "metasgd"):
        params = train(name, still).params
        torch.testing.assert_close({key: params[key] for key in START}, maml.params)


@pytest.mark.learn2learn
def test_metasgd_learns_its_rates_and_both_backends_agree():
    ours = train("metasgd").params
    rates = {name: value for name, value in ours.items() if name.startswith("rate.")}
    assert {name.removeprefix("rate.") for name in rates} == set(START)
    assert all((value != INNER.lr).any() for value in rates.values())
    assert set(ALGORITHMS["metasgd"](PREDICTOR).backends) == set(BACKENDS) - {
        "autograd",
        "recursion",
    }
    theirs = train("metasgd", replace(SETTINGS, backend="learn2learn")).params
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=5e-4)


def test_algorithms_without_a_second_backend_say_so():
    for name in ("reptile", "r2d2", "deepkernel"):
        with pytest.raises(ValueError, match="unknown MAML backend 'learn2learn'"):
            train(name, replace(SETTINGS, backend="learn2learn"))


def test_r2d2_learns_the_parts_of_its_head_but_no_weight():
    params = train("r2d2").params
    assert not [name for name in params if name.startswith("head.")]
    assert params["ridge.log_penalty"] != 0
    assert params["ridge.scale"] != 1
    assert params["ridge.offset"] != 0
    assert not params["ridge.weight"].any()


def test_the_same_labels_reach_every_algorithm():
    (task,) = sample_tasks(ASSAYS, 1, support=4, query=5, rng=np.random.default_rng(0))
    seen = everything(task)
    np.testing.assert_array_equal(seen.rows, [*task.support.rows, *task.query.rows])
    assert torch.equal(seen.labels, torch.cat([task.support.labels, task.query.labels]))
    for name, make in ALGORITHMS.items():
        inner, outer = make(PREDICTOR).batches(task)
        assert {*inner.rows, *outer.rows} == {*seen.rows}, name


def test_bfloat16_products_leave_float32_parameters_and_a_like_gradient():
    fine = train("maml", replace(SETTINGS, steps=1))
    coarse = train("maml", replace(SETTINGS, steps=1, precision="bfloat16"))
    assert {value.dtype for value in coarse.params.values()} == {torch.float32}
    one, other = fine.history[0]["train_loss"], coarse.history[0]["train_loss"]
    assert one != other
    assert other == pytest.approx(one, rel=0.05)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"precision": "float16"}, "unknown precision 'float16'"),
        ({"precision": "bfloat16", "algorithm": "r2d2"}, "r2d2 solves a linear system"),
    ],
)
def test_precisions_that_do_not_fit_are_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        MetaTraining(**settings)
