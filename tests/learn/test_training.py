import errno
import os
import re
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from toy import toy_encoded, toy_predictor

from mutmeta_lib.errors import DataError
from mutmeta_lib.learn import InnerLoop
from mutmeta_lib.learn.training import MetaTraining, meta_train, pick_device, validation_loss
from mutmeta_lib.models.predictor import Predictor
from mutmeta_lib.records.store import load_newest
from mutmeta_lib.tasks.tasks import sample_tasks

PREDICTOR = toy_predictor()
START = PREDICTOR.init(torch.Generator().manual_seed(0))
TRAIN = toy_encoded(2)
VALIDATION = toy_encoded(3)[2:]
SETTINGS = MetaTraining(
    steps=6,
    tasks_per_step=2,
    support=4,
    query=4,
    inner=InnerLoop(0.05, 2),
    validate_every=2,
    validation_tasks=2,
)


class Killed(Exception):
    pass


def train(settings=SETTINGS, **more):
    more = {"seed": 0, "validation": VALIDATION} | more
    return meta_train(PREDICTOR, START, TRAIN, settings, **more)


def assert_same(a, b):
    torch.testing.assert_close(a.params, b.params, rtol=0, atol=0)
    assert a.best_step == b.best_step
    assert [row["train_loss"] for row in a.history] == [row["train_loss"] for row in b.history]


def test_same_seed_same_bits_other_seed_other_draws():
    assert_same(train(), train())
    assert train().history[0]["train_loss"] != train(seed=1).history[0]["train_loss"]


@pytest.mark.parametrize("algorithm", ["maml", "multitask"])
@pytest.mark.parametrize("kill_at", [1, 3, 6])
def test_a_killed_run_resumes_to_the_same_bits(tmp_path, algorithm, kill_at):
    settings = replace(SETTINGS, algorithm=algorithm)
    path = tmp_path / "run.safetensors"

    def kill(step, steps, loss):
        if step == kill_at:
            raise Killed

    with pytest.raises(Killed):
        train(settings, checkpoint=path, checkpoint_every=2, progress=kill)
    assert_same(train(settings, checkpoint=path, checkpoint_every=2), train(settings))


def test_resume_without_validation_keeps_the_last_start(tmp_path):
    path = tmp_path / "run.safetensors"

    def kill(step, steps, loss):
        if step == 5:
            raise Killed

    with pytest.raises(Killed):
        train(validation=(), checkpoint=path, checkpoint_every=2, progress=kill)
    assert_same(train(validation=(), checkpoint=path), train(validation=()))


def test_a_finished_run_is_not_trained_again(tmp_path):
    path = tmp_path / "run.safetensors"
    first = train(checkpoint=path)
    seen = []
    again = train(checkpoint=path, progress=lambda *step: seen.append(step))
    assert seen == []
    assert_same(first, again)


def test_a_foreign_checkpoint_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    train(checkpoint=path)
    with pytest.raises(DataError, match="other settings, data or start"):
        train(replace(SETTINGS, meta_lr=0.5), checkpoint=path)
    other = PREDICTOR.init(torch.Generator().manual_seed(1))
    with pytest.raises(DataError, match="other settings, data or start"):
        meta_train(
            PREDICTOR, other, TRAIN, SETTINGS, seed=0, validation=VALIDATION, checkpoint=path
        )
    assert_same(train(checkpoint=path), train())


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before_it(tmp_path):
    path = tmp_path / "run.safetensors"

    def kill(step, steps, loss):
        if step == 5:
            raise Killed

    with pytest.raises(Killed):
        train(checkpoint=path, checkpoint_every=1, progress=kill)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    seen = []
    with pytest.warns(UserWarning, match="going on from the one before it"):
        run = train(checkpoint=path, progress=lambda step, *_: seen.append(step))
    assert seen == [4, 5, 6]
    assert_same(run, train())


def test_without_a_good_checkpoint_a_damaged_one_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    path.write_text("not a checkpoint")
    with pytest.raises(DataError, match="cannot be read"):
        train(checkpoint=path)
    assert path.read_text() == "not a checkpoint"


def test_a_full_disk_ends_the_run_and_keeps_the_last_state(tmp_path, monkeypatch):
    path = tmp_path / "run.safetensors"

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fill_at_four(step, steps, loss):
        if step == 4:
            monkeypatch.setattr("os.fsync", full)

    with pytest.raises(DataError, match="No space left on device"):
        train(checkpoint=path, checkpoint_every=2, progress=fill_at_four)
    monkeypatch.undo()
    assert load_newest(path)[1]["history"][-1]["step"] == 2
    assert_same(train(checkpoint=path), train())


def test_ctrl_c_saves_the_step_it_meets(tmp_path):
    path = tmp_path / "run.safetensors"

    def ctrl_c(step, steps, loss):
        if step == 3:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="stopped after meta-step 3 of 6; start again"):
        train(checkpoint=path, progress=ctrl_c)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    seen = []
    run = train(checkpoint=path, progress=lambda step, *_: seen.append(step))
    assert seen == [4, 5, 6]
    assert_same(run, train())


def test_ctrl_c_without_a_checkpoint_stops_at_once():
    def ctrl_c(step, steps, loss):
        signal.raise_signal(signal.SIGINT)
        pytest.fail("this line must not be met")

    with pytest.raises(KeyboardInterrupt):
        train(progress=ctrl_c)


@pytest.mark.parametrize("algorithm", ["maml", "multitask"])
def test_training_lowers_the_validation_loss_on_a_learnable_family(algorithm):
    """The worth of a mutant letter is the same in the proteins held out."""
    settings = replace(
        SETTINGS,
        algorithm=algorithm,
        steps=60,
        support=10,
        query=16,
        meta_lr=1e-2,
        validate_every=10,
        validation_tasks=8,
    )
    assays = toy_encoded(8, n=150)
    run = meta_train(PREDICTOR, START, assays[:6], settings, seed=0, validation=assays[6:])
    tasks = sample_tasks(assays[6:], 24, support=10, query=16, rng=np.random.default_rng(123))
    before = validation_loss(PREDICTOR, START, tasks, settings.inner)
    after = validation_loss(PREDICTOR, run.params, tasks, settings.inner)
    assert after < 0.8 * before


def test_a_loss_that_is_not_finite_names_step_and_assay():
    with pytest.raises(DataError, match=r"not finite at meta-step 1 \(assays TOY"):
        train(replace(SETTINGS, inner=InnerLoop(1e12, 4)))


class Broken(Predictor):
    """A predictor whose loss is not a number on one assay."""

    def loss(self, params, examples, generator=None):
        value = super().loss(params, examples, generator)
        return value * torch.nan if examples.assay.assay.id == "TOY1" else value


BROKEN = Broken(PREDICTOR.encoder, PREDICTOR.pooling, PREDICTOR.hidden)


def train_broken(settings=SETTINGS, assays=TRAIN, **more):
    return meta_train(BROKEN, START, assays, settings, seed=0, **more)


def test_the_one_assay_that_is_not_finite_is_named():
    with pytest.raises(DataError, match=r"not finite at meta-step \d \(assays TOY1\)"):
        train_broken()


def test_tasks_that_are_not_finite_are_skipped_counted_and_told(tmp_path):
    settings = replace(SETTINGS, on_nonfinite="skip")
    path = tmp_path / "run.safetensors"
    with pytest.warns(UserWarning, match="not finite") as seen:
        run = train_broken(settings, checkpoint=path)
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


def test_a_step_without_a_finite_task_moves_nothing():
    settings = replace(SETTINGS, on_nonfinite="skip")
    with pytest.warns(UserWarning, match="2 of 2 tasks skipped"):
        run = train_broken(settings, [TRAIN[1]])
    assert [row["skipped"] for row in run.history] == [2] * SETTINGS.steps
    torch.testing.assert_close(run.params, START, rtol=0, atol=0)


def test_where_all_is_finite_skipping_changes_no_bit():
    run = train(replace(SETTINGS, on_nonfinite="skip"))
    assert_same(run, train())
    assert [row["skipped"] for row in run.history] == [0] * SETTINGS.steps
    assert "skipped" not in train().history[0]


def test_curves_go_on_where_a_killed_run_was_saved(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    settings = replace(SETTINGS, on_nonfinite="skip")
    places = {"checkpoint": tmp_path / "run.safetensors", "log_dir": tmp_path / "logs"}

    def kill(step, steps, loss):
        if step == 3:
            raise Killed

    with pytest.raises(Killed):
        train(settings, checkpoint_every=2, progress=kill, **places)
    run = train(settings, checkpoint_every=2, **places)
    assert_same(run, train(settings))
    events = accumulator.EventAccumulator(str(places["log_dir"]))
    events.Reload()
    found = {name: events.Scalars(name) for name in events.Tags()["scalars"]}
    every = [1, 2, 3, 4, 5, 6]
    assert {name: [one.step for one in values] for name, values in found.items()} == {
        "loss/train": every,
        "loss/validation": [2, 4, 6],
        "gradient_norm": every,
        "seconds_per_step": every,
        "skipped_tasks": every,
    }
    losses = [one.value for one in found["loss/train"]]
    assert losses == pytest.approx([row["train_loss"] for row in run.history], rel=1e-6)
    assert all(one.value > 0 for one in found["seconds_per_step"] + found["gradient_norm"])


def test_a_validation_loss_that_is_not_finite_is_told():
    with pytest.warns(UserWarning, match="meta-step 2: the validation loss is not finite"):
        train_broken(replace(SETTINGS, steps=2), [TRAIN[0]], validation=[TRAIN[1]])


@pytest.mark.learn2learn
def test_both_backends_train_to_the_same_start():
    settings = replace(SETTINGS, steps=2, validate_every=2)
    ours = train(settings)
    theirs = train(replace(settings, backend="learn2learn"))
    for name in START:
        torch.testing.assert_close(ours.params[name], theirs.params[name], rtol=1e-3, atol=2e-4)


def test_the_start_given_is_not_changed():
    before = {name: value.clone() for name, value in START.items()}
    train()
    torch.testing.assert_close(START, before, rtol=0, atol=0)


def test_pick_device():
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
