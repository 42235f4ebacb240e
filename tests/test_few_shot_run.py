"""A few-shot experiment that is stopped, or loses a worker, goes on to the same numbers."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

import mutmeta_lib.experiments.few_shot_run as few_shot_run
from mutmeta_lib.experiments import few_shot_experiment
from mutmeta_lib.records import read_record

ASKED = {
    "per_protein": 1,
    "methods": ("maml", "finetune", "ridge"),
    "shots": (2, 5),
    "seeds": 1,
    "meta_steps": 2,
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


@pytest.fixture(scope="module")
def straight():
    return few_shot_experiment(**ASKED)


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


def evaluate(folder):
    """Start ``mutmeta evaluate`` with two workers in a process group of its own."""
    command = (
        f"evaluate --per-protein 1 --methods maml,finetune,ridge --shots 2,5 --seeds 1 "
        f"--meta-steps 2 --max-query 12 --device cpu --workers 2 "
        f"--checkpoint-dir {folder}/kept --output {folder}/record.json"
    )
    return subprocess.Popen(
        [sys.executable, "-m", "mutmeta_lib.cli", *command.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


def wait_for_a_part(process, folder):
    """Wait until the run has finished one more part."""
    before = set(folder.rglob("finished/*.json"))
    while set(folder.rglob("finished/*.json")) <= before:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)


def workers_of(process):
    """The processes that joblib started for this one."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = status.read_text().rpartition(")")[2].split()[1]
            words = (status.parent / "cmdline").read_text()
        except OSError:  # it has ended meanwhile
            continue
        if int(parent) == process.pid and "popen_loky" in words:
            found.append(int(status.parent.name))
    return found


def assert_nobody_is_left(process):
    """No process of the group lives on (a moment is given to those told to end)."""
    for _ in range(300):
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    pytest.fail("a process of the run lives on")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_ctrl_c_and_a_killed_worker_cost_no_finished_work(tmp_path):
    process = evaluate(tmp_path)
    wait_for_a_part(process, tmp_path)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert told.count("\n") == 1, told
    assert "stopped after" in told
    assert f"start again to go on from {tmp_path}/kept" in told
    assert_nobody_is_left(process)

    process = evaluate(tmp_path)
    wait_for_a_part(process, tmp_path)
    os.kill(workers_of(process)[0], signal.SIGKILL)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 2, told
    assert told.count("\n") == 1, told
    assert told.startswith("a worker process was killed after")
    assert_nobody_is_left(process)

    process = evaluate(tmp_path)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 0, told
    asked = {**ASKED, "folds": None, "profile": "own"}
    assert_same(read_record(tmp_path / "record.json"), few_shot_experiment(**asked))
