"""The one outer loop: what it learns, what it keeps, and what may go wrong on the way."""

import errno
import json
import math
import os
import re
import signal
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from toy import toy_encoded, toy_predictor

from mutmeta_lib.errors import DataError
from mutmeta_lib.learn import InnerLoop
from mutmeta_lib.learn.algorithms import ALGORITHMS
from mutmeta_lib.learn.methods import METHODS, Given, build_methods
from mutmeta_lib.learn.run_state import RunState, curves, run_identity
from mutmeta_lib.learn.train import MetaTraining, OuterLoop, meta_train, pick_device
from mutmeta_lib.models.embed import freeze
from mutmeta_lib.models.predictor import Predictor
from mutmeta_lib.records.store import load_newest
from mutmeta_lib.tasks.tasks import sample_tasks

PREDICTOR = toy_predictor()
START = PREDICTOR.init(torch.Generator().manual_seed(0))
ASSAYS = toy_encoded(8, n=150)
TRAIN, VALIDATION = toy_encoded(2), toy_encoded(3)[2:]
INNER = InnerLoop(0.05, 2)
SETTINGS = MetaTraining(
    steps=6,
    tasks_per_step=2,
    support=4,
    query=4,
    inner=INNER,
    validate_every=2,
    validation_tasks=2,
)


class Broken(Predictor):
    """A predictor whose loss is not a number on one assay."""

    def loss(self, params, examples, generator=None):
        value = super().loss(params, examples, generator)
        return value * torch.nan if examples.assay.assay.id == "TOY1" else value


BROKEN = Broken(PREDICTOR.encoder, PREDICTOR.pooling, PREDICTOR.hidden)
SKIPPING = replace(SETTINGS, on_nonfinite="skip")


class Killed(Exception):
    pass


def at(step, act):
    """A progress report that acts after one step."""
    return lambda now, *_: act() if now == step else None


def kill():
    raise Killed


def ctrl_c():
    signal.raise_signal(signal.SIGINT)


def train(settings=SETTINGS, predictor=PREDICTOR, assays=TRAIN, **more):
    more = {"seed": 0, "validation": VALIDATION} | more
    return meta_train(predictor, START, assays, settings, **more)


def assert_same(a, b):
    torch.testing.assert_close(a.params, b.params, rtol=0, atol=0)
    assert a.best_step == b.best_step
    for column in ("train_loss", "validation_loss"):
        first, second = ([row[column] for row in one.history] for one in (a, b))
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_every_algorithm_lowers_its_validation_loss_on_a_learnable_family(name):
    """The worth of a mutant letter is the same in the proteins held out."""
    settings = replace(SETTINGS, algorithm=name, steps=25, support=10, query=12, meta_lr=2e-2)
    settings = replace(settings, validate_every=5, validation_tasks=6)
    run = train(settings, assays=ASSAYS[:6], validation=ASSAYS[6:])
    algorithm = ALGORITHMS[name](PREDICTOR)
    outer = OuterLoop(algorithm, settings)
    tasks = sample_tasks(ASSAYS[6:], 24, support=10, query=16, rng=np.random.default_rng(123))
    before, after = (
        outer.validation(params, tasks)
        for params in (algorithm.prepare(START, algorithm.loop(INNER)), run.params)
    )
    assert after < 0.7 * before
    # What was trained is evaluated as it was validated.
    given, rates = Given(PREDICTOR, steps=INNER.steps), {METHODS[name].rate: ("sgd", INNER.lr)}
    method = build_methods([name], given, {METHODS[name].start: run.params}, rates)[name]
    found = method.predict(method.adapt(tasks[0].support, torch.Generator()), tasks[0].query)
    loss = outer.validation(run.params, tasks[:1])
    assert np.mean((found - tasks[0].query.labels.numpy()) ** 2) == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
@pytest.mark.parametrize(("killed_at", "validation"), [(1, VALIDATION), (5, VALIDATION), (5, ())])
def test_a_killed_run_resumes_to_the_same_bits(tmp_path, name, killed_at, validation):
    settings = replace(SETTINGS, algorithm=name)
    where = {"checkpoint": tmp_path / "run.safetensors", "checkpoint_every": 2}
    with pytest.raises(Killed):
        train(settings, validation=validation, progress=at(killed_at, kill), **where)
    resumed = train(settings, validation=validation, **where)
    assert_same(resumed, train(settings, validation=validation))
    seen = []
    again = train(
        settings, validation=validation, progress=lambda *step: seen.append(step), **where
    )
    assert seen == [], "nothing was left to do"
    assert_same(again, resumed)


def test_a_run_is_a_function_of_seed_and_algorithm_and_leaves_the_start_alone():
    before = {name: value.clone() for name, value in START.items()}
    assert_same(train(), train())
    losses = {train(seed=1).history[-1]["train_loss"]}
    for name in ALGORITHMS:
        losses.add(train(replace(SETTINGS, algorithm=name)).history[-1]["train_loss"])
    assert len(losses) == len(ALGORITHMS) + 1
    torch.testing.assert_close(START, before, rtol=0, atol=0)


@pytest.mark.learn2learn
def test_every_backend_trains_to_the_same_start():
    params = {name: value.double() for name, value in START.items()}
    frozen, assays = freeze(PREDICTOR, ASSAYS[:4], None)
    for predictor, where, loop in ((PREDICTOR, ASSAYS, INNER), (frozen, assays, INNER)):
        if predictor is frozen:
            params = frozen.learning(START)
        ways = ALGORITHMS["maml"](predictor).backends(loop)
        starts = [
            meta_train(
                predictor,
                params,
                where[:3],
                replace(SETTINGS, backend=backend),
                seed=0,
                validation=where[3:4],
            ).params
            for backend in ("auto", *ways)
        ]
        for other in starts[1:]:
            torch.testing.assert_close(other, starts[0], rtol=2e-3, atol=1e-5)


def test_what_the_members_learn_besides():
    sgd, ridge = (train(replace(SETTINGS, algorithm=name)).params for name in ("metasgd", "r2d2"))
    rates = {name: value for name, value in sgd.items() if name.startswith("rate.")}
    assert {name.removeprefix("rate.") for name in rates} == set(START)
    assert all((value != INNER.lr).any() for value in rates.values())
    assert not [name for name in ridge if name.startswith("head.")]
    begun = {"log_penalty": 0, "scale": 1, "offset": 0}
    assert all(ridge[f"ridge.{name}"] != value for name, value in begun.items())
    assert not ridge["ridge.weight"].any()


def test_bfloat16_products_leave_float32_parameters_and_a_like_gradient():
    fine, coarse = (
        train(replace(SETTINGS, steps=1, precision=precision))
        for precision in ("float32", "bfloat16")
    )
    assert {value.dtype for value in coarse.params.values()} == {torch.float32}
    one, other = fine.history[0]["train_loss"], coarse.history[0]["train_loss"]
    assert one != other
    assert other == pytest.approx(one, rel=0.05)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"algorithm": "protonet"}, r"unknown algorithm 'protonet'; choose from .*reptile"),
        ({"on_nonfinite": "ignore"}, "unknown on_nonfinite 'ignore'; choose from stop, skip"),
        ({"precision": "float16"}, "unknown precision 'float16'"),
        ({"precision": "bfloat16", "algorithm": "r2d2"}, "r2d2 solves a linear system"),
    ],
)
def test_settings_that_do_not_fit_are_refused(wrong, told):
    with pytest.raises(DataError, match=told):
        MetaTraining(**wrong)
    # A checkpoint is compared with what JSON made of its settings.
    settings = asdict(MetaTraining())
    assert json.loads(json.dumps(settings)) == settings


@pytest.mark.parametrize("name", ["reptile", "r2d2", "deepkernel"])
def test_algorithms_without_a_second_backend_say_so(name):
    with pytest.raises(ValueError, match="unknown MAML backend 'learn2learn'"):
        train(replace(SETTINGS, algorithm=name, backend="learn2learn"))


def test_a_run_goes_on_only_from_its_own_checkpoint(tmp_path):
    path = tmp_path / "run.safetensors"
    train(checkpoint=path)
    with pytest.raises(DataError, match="other settings, data or start"):
        train(replace(SETTINGS, meta_lr=0.5), checkpoint=path)
    assert_same(train(checkpoint=path), train())
    other = PREDICTOR.init(torch.Generator().manual_seed(1))
    base = (PREDICTOR, START, TRAIN, SETTINGS, 0, VALIDATION)
    changed = {
        "encoder": (toy_predictor(seed=1), *base[1:]),
        "pooling": (replace(PREDICTOR, pooling="cls"), *base[1:]),
        "start": (PREDICTOR, other, *base[2:]),
        "data": (*base[:2], TRAIN[1:], *base[3:]),
        "encoding": (*base[:2], toy_encoded(2, encoding="mutant"), *base[3:]),
        "settings": (*base[:3], replace(SETTINGS, meta_lr=0.5), *base[4:]),
        "seed": (*base[:4], 1, base[5]),
        "validation": (*base[:5], TRAIN),
    }
    identities = {name: json.dumps(run_identity(*given)) for name, given in changed.items()}
    assert len({json.dumps(run_identity(*base)), *identities.values()}) == len(changed) + 1
    assert json.loads(json.dumps(run_identity(*base))) == run_identity(*base)


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before_it(tmp_path):
    path = tmp_path / "run.safetensors"
    with pytest.raises(Killed):
        train(checkpoint=path, checkpoint_every=1, progress=at(5, kill))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    seen = []
    with pytest.warns(UserWarning, match="going on from the one before it"):
        run = train(checkpoint=path, progress=lambda step, *_: seen.append(step))
    assert seen == [4, 5, 6]
    assert_same(run, train())
    alone = tmp_path / "alone.safetensors"
    alone.write_text("not a checkpoint")
    with pytest.raises(DataError, match="cannot be read"):
        train(checkpoint=alone)
    assert alone.read_text() == "not a checkpoint"


def test_a_full_disk_ends_the_run_and_keeps_the_last_state(tmp_path, monkeypatch):
    path = tmp_path / "run.safetensors"

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    fill = at(4, lambda: monkeypatch.setattr("os.fsync", full))
    with pytest.raises(DataError, match="No space left on device"):
        train(checkpoint=path, checkpoint_every=2, progress=fill)
    monkeypatch.undo()
    assert load_newest(path)[1]["history"][-1]["step"] == 2
    assert_same(train(checkpoint=path), train())


def test_ctrl_c_saves_the_step_it_meets_or_stops_at_once(tmp_path):
    path = tmp_path / "run.safetensors"
    with pytest.raises(KeyboardInterrupt, match="stopped after meta-step 3 of 6; start again"):
        train(checkpoint=path, progress=at(3, ctrl_c))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    seen = []
    run = train(checkpoint=path, progress=lambda step, *_: seen.append(step))
    assert seen == [4, 5, 6]
    assert_same(run, train())

    def stop():
        ctrl_c()
        pytest.fail("this line must not be met")

    with pytest.raises(KeyboardInterrupt):
        train(progress=at(2, stop))


def fresh(settings=SETTINGS):
    return RunState.begin(START, settings.meta_lr, np.random.default_rng(0))


def drawn(n=2, seed=0):
    return sample_tasks(TRAIN, n, support=4, query=4, rng=np.random.default_rng(seed))


def maml(settings=SETTINGS, predictor=PREDICTOR):
    return OuterLoop(ALGORITHMS["maml"](predictor), settings)


def test_loss_and_norm_are_those_before_the_step_and_clipping():
    state, outer = fresh(), maml(replace(SETTINGS, clip=1e9))
    before = outer.validation(START, drawn())
    loss, norm, _ = outer.step(state, drawn())
    assert loss == pytest.approx(before, rel=1e-5)
    assert outer.step(state, drawn())[0] < loss
    bound = fresh()
    assert maml(replace(SETTINGS, clip=norm / 7)).step(bound, drawn())[1] == pytest.approx(norm)
    gradients = torch.stack([value.grad.norm() for value in bound.current.values()])
    assert float(gradients.norm()) == pytest.approx(norm / 7, rel=1e-4)


def test_validation_is_taken_when_it_is_due_and_keeps_the_best():
    state, outer = fresh(), maml(replace(SETTINGS, steps=5))
    checks, taken = drawn(3, seed=1), []
    for number in range(1, 6):
        outer.step(state, drawn(seed=number))
        assert math.isnan(outer.validate(state, []))
        taken.append(outer.validate(state, checks))
        state.history.append({"step": number})
    assert [not math.isnan(loss) for loss in taken] == [False, True, False, True, True]
    assert (state.best_loss, state.best_step) == (np.nanmin(taken), 1 + np.nanargmin(taken))
    assert outer.validation(state.best, checks) == state.best_loss


def test_validation_together_is_that_of_one_task_after_the_other():
    frozen, assays = freeze(PREDICTOR, ASSAYS[:4], None)
    tasks = sample_tasks(assays, 7, support=5, query=6, rng=np.random.default_rng(1))
    params, outer = frozen.init(torch.Generator().manual_seed(0)), maml(predictor=frozen)
    alone = replace(outer, algorithm=replace(outer.algorithm, together=()))
    one = alone.validation(params, tasks)
    assert outer.validation(params, tasks) == pytest.approx(one, 1e-5)


def test_a_loss_that_is_not_finite_names_step_and_assay_and_moves_nothing():
    settings, state = replace(SETTINGS, inner=InnerLoop(1e30, 3)), fresh()
    with pytest.raises(DataError, match=r"not finite at meta-step 1 \(assays TOY"):
        maml(settings).step(state, drawn())
    with pytest.warns(UserWarning, match="meta-step 1: 2 of 2 tasks skipped"):
        loss, _, skipped = maml(replace(settings, on_nonfinite="skip")).step(state, drawn())
    assert skipped == 2
    assert math.isnan(loss)
    torch.testing.assert_close(state.params(), START, rtol=0, atol=0)
    with pytest.raises(DataError, match=r"not finite at meta-step \d \(assays TOY1\)"):
        train(predictor=BROKEN)
    with pytest.warns(UserWarning, match="meta-step 2: the validation loss is not finite"):
        train(replace(SETTINGS, steps=2), BROKEN, [TRAIN[0]], validation=[TRAIN[1]])


def test_tasks_that_are_not_finite_are_skipped_counted_and_told(tmp_path):
    path = tmp_path / "run.safetensors"
    with pytest.warns(UserWarning, match="not finite") as seen:
        run = train(SKIPPING, BROKEN, checkpoint=path)
    counts = {row["step"]: row["skipped"] for row in run.history}
    told = [re.match(r"meta-step (\d): (\d) of 2 tasks skipped", str(w.message)) for w in seen]
    assert {int(match[1]): int(match[2]) for match in told} == {
        step: count for step, count in counts.items() if count
    }
    assert "(assays TOY1)" in str(seen[0].message)
    assert len(set(counts.values())) > 1
    assert all(value.isfinite().all() for value in run.params.values())
    assert any(not torch.equal(run.params[name], START[name]) for name in START)
    assert load_newest(path)[1]["history"][0]["skipped"] == counts[1]


def test_where_all_is_finite_skipping_changes_no_bit():
    run = train(SKIPPING)
    assert_same(run, train())
    assert [row["skipped"] for row in run.history] == [0] * SETTINGS.steps
    assert "skipped" not in train().history[0]


def read_curves(folder):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    names = events.Tags()["scalars"]
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in names}


def test_curves_show_every_step_once_and_go_on_after_a_kill(tmp_path):
    places = {"checkpoint": tmp_path / "run.safetensors", "log_dir": tmp_path / "logs"}
    pytest.importorskip("tensorboard")
    with pytest.raises(Killed):
        train(SKIPPING, checkpoint_every=2, progress=at(3, kill), **places)
    run = train(SKIPPING, checkpoint_every=2, **places)
    assert_same(run, train(SKIPPING))
    found = read_curves(tmp_path / "logs")
    taken = {name: [step for step, _ in values] for name, values in found.items()}
    names = ("loss/train", "gradient_norm", "seconds_per_step", "skipped_tasks")
    assert taken == {**{name: [1, 2, 3, 4, 5, 6] for name in names}, "loss/validation": [2, 4, 6]}
    losses = [value for _, value in found["loss/train"]]
    assert losses == pytest.approx([row["train_loss"] for row in run.history], rel=1e-6)
    assert all(value > 0 for _, value in found["seconds_per_step"] + found["gradient_norm"])


def test_curves_need_tensorboard_and_a_folder_only_where_they_are_asked_for(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(DataError, match="folder of logs cannot be written to"),
        curves(tmp_path / "file" / "logs"),
    ):
        pass
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with (
        pytest.raises(DataError, match=r"not installed.*mutmeta\[tensorboard\]"),
        curves(tmp_path / "logs"),
    ):
        pass
    with curves(None) as log:
        log(1, {"loss": 1.0})
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_auto_is_a_gpu_where_there_is_one():
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
