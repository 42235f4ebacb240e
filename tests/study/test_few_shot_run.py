"""A few-shot experiment that is stopped, or loses a worker, goes on to the same numbers."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
import torch

import mutmeta_lib.study.few_shot_run as few_shot_run
from mutmeta_lib.app.experiments import few_shot_experiment
from mutmeta_lib.errors import DataError

ASKED = {
    "per_protein": 1,
    "methods": ("maml", "finetune", "ridge"),
    "shots": (2, 5),
    "seeds": 1,
    "meta_steps": 2,
    "tasks_per_step": 1,
    "support": 4,
    "query": 4,
    "inner_steps": 1,
    "adapt_steps": 2,
    "first_order": True,
    "max_query": 12,
    "folds": (0, 1),
    "device": "cpu",
}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Sums over several threads may differ in their last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def assert_same(record, expected):
    assert record.hash == expected.hash
    assert json.dumps(record.numbers) == json.dumps(expected.numbers)
    assert record.tables.keys() == expected.tables.keys()
    for name in expected.tables:
        found, wanted = record.table(name), expected.table(name)
        times = [column for column in wanted if column.startswith("seconds")]
        pd.testing.assert_frame_equal(
            found.drop(columns=times), wanted.drop(columns=times), check_exact=True
        )


REPORTS = []


@contextmanager
def recorded_progress():
    yield lambda *given: REPORTS.append(given)


@pytest.fixture(scope="module")
def straight():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("mutmeta_lib.study.few_shot.shown_progress", recorded_progress)
        return few_shot_experiment(**ASKED)


def test_every_stage_tells_how_far_it_is(straight):
    stages = {what: [] for what, _, _ in REPORTS}
    for what, done, total in REPORTS:
        stages[what].append((done, total))
    runs = ["fold 1, seed 0: ", "fold 2, seed 0: "]
    named = ["maml", "rates of maml", "rates of finetune", "test"]
    assert [*stages] == ["runs", *(run + name for run in runs for name in named)]
    for what, seen in stages.items():
        steps, totals = zip(*seen, strict=True)
        assert list(steps) == sorted(set(steps)), what
        assert set(totals) == {steps[-1]}, "it ends at its end"


class Stopped(Exception):
    pass


def stop_after(monkeypatch, name, calls):
    """Let a function of the run be called so often; returns what it was called with."""
    real, seen = getattr(few_shot_run, name), []

    def counted(*given, **more):
        if len(seen) == calls:
            raise Stopped
        seen.append(given)
        return real(*given, **more)

    monkeypatch.setattr(few_shot_run, name, counted)
    return seen


@pytest.mark.filterwarnings("error:.*computed anew")
def test_whatever_is_finished_is_not_done_again(straight, tmp_path, monkeypatch):
    asked = {**ASKED, "checkpoint_dir": str(tmp_path)}
    done = {"tune": 0, "few_shot": 0}
    # Stopped between the rates of two methods, then before the second test assay.
    for name, calls in (("tune", 1), ("few_shot", 1)):
        with monkeypatch.context() as patched:
            counts = {other: stop_after(patched, other, 99) for other in done if other != name}
            counts[name] = stop_after(patched, name, calls)
            with pytest.raises(Stopped):
                few_shot_experiment(**asked)
            done = {other: done[other] + len(counts[other]) for other in done}
    tuned, tested = (stop_after(monkeypatch, name, 99) for name in done)
    assert_same(few_shot_experiment(**asked), straight)
    n_tests = straight.table("results")["assay"].nunique()
    assert done["tune"] + len(tuned) == 2 * 2
    assert done["few_shot"] + len(tested) == n_tests
    tuned.clear()
    tested.clear()
    monkeypatch.setattr(few_shot_run, "train_starts", None)
    assert_same(few_shot_experiment(**asked), straight)
    assert not tuned
    assert not tested


def test_other_parameters_are_not_answered_with_these_parts(straight, tmp_path):
    asked = {**ASKED, "checkpoint_dir": str(tmp_path), "folds": (0,)}
    few_shot_experiment(**{**asked, "max_query": 11})
    with pytest.warns(UserWarning, match="other parameters, data or version") as seen:
        record = few_shot_experiment(**asked)
    told = {str(one.message) for one in seen if "computed anew" in str(one.message)}
    kept = list(tmp_path.rglob("finished/*.json"))
    assert len(told) == len(kept) > 3
    wanted = (
        straight.table("results")
        .query("fold == 0")
        .drop(columns=["seconds_adapt", "seconds_predict"])
    )
    found = record.table("results").drop(columns=["seconds_adapt", "seconds_predict"])
    pd.testing.assert_frame_equal(found, wanted, check_exact=True)


def parts(folder):
    return set(folder.rglob("finished/*.json"))


def workers_of(pid):
    """The processes that joblib started for this one."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = status.read_text().rpartition(")")[2].split()[1]
            words = (status.parent / "cmdline").read_text()
        except OSError:  # it has ended meanwhile
            continue
        if int(parent) == pid and "popen_loky" in words:
            found.append(int(status.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_a_killed_worker_costs_no_finished_work(straight, tmp_path):
    asked = {**ASKED, "checkpoint_dir": str(tmp_path)}
    killed = []

    def kill():
        while not parts(tmp_path):
            time.sleep(0.01)
        killed.append(workers_of(os.getpid())[0])
        os.kill(killed[0], signal.SIGKILL)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    with pytest.raises(DataError) as caught:
        few_shot_experiment(**asked, workers=2)
    thread.join()
    assert re.fullmatch(
        r"a worker process was killed after [01] of 2 runs, .*; start again to go on from .*",
        str(caught.value),
    )
    assert not workers_of(os.getpid())
    kept = {file: file.read_bytes() for file in parts(tmp_path)}
    assert_same(few_shot_experiment(**asked), straight)
    assert all(file.read_bytes() == content for file, content in kept.items())


@pytest.mark.skipif(os.name != "posix", reason="asks for the processes of a group")
def test_ctrl_c_ends_the_command_and_its_workers_with_one_sentence(tmp_path):
    command = "-m mutmeta_lib.cli evaluate --per-protein 1 --methods maml,ridge --shots 2 --seeds 9"
    command += f" --meta-steps 1 --device cpu --workers 2 --checkpoint-dir {tmp_path}"
    process = subprocess.Popen(
        [sys.executable, *command.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    while not parts(tmp_path):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    progress = r"(fold \d, seed \d: .* of \d+.*\n)*"  # where all is slow, a line now and then
    sentence = rf"stopped after \d of 27 runs; start again to go on from {tmp_path}\n"
    assert re.fullmatch(progress + sentence, told)
    for _ in range(500):  # those told to end are given a moment
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.02)
    else:
        pytest.fail("a process of the run lives on")
