"""Two processes on CPUs, talking by gloo, do what one does."""

import math
import multiprocessing
import os
import signal
import socket
import sys
import time

import pytest
import torch
import toy_ranks
from hypothesis import given
from hypothesis import strategies as st

from mutmeta_lib.errors import DataError
from mutmeta_lib.learn.distributed import ALONE, Ranks, launched
from mutmeta_lib.records.store import load

CONTEXT = multiprocessing.get_context("forkserver")
# Forked from a process that has imported them; torch imports the last of these when first used.
CONTEXT.set_forkserver_preload(["toy_ranks", "accelerate", "torch._dynamo"])
RUNS = [name for name in toy_ranks.RUNS if name != "stop"]
# One process may add four tasks in another order than two: equal up to rounding, here of float64.
CLOSE = {"rtol": 1e-6, "atol": 1e-9}


def work(rank, port, out, err, *arguments):
    """One of two processes, with the environment and the streams that a launcher gives."""
    for stream, file in ((sys.stdout, out), (sys.stderr, err)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), stream.fileno())
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    toy_ranks.main(*arguments)


def start_two(folder, *arguments):
    """Two processes that begin to work together; what they say goes to files in ``folder``."""
    pytest.importorskip("accelerate")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        CONTEXT.Process(
            target=work,
            args=(rank, port, folder / f"out {rank}", folder / f"err {rank}", *arguments),
        )
        for rank in (0, 1)
    ]
    for process in processes:
        process.start()
    return processes


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    toy_ranks.all_runs(folder, ALONE)
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    processes = start_two(folder, folder)
    for rank, process in enumerate(processes):
        process.join(timeout=120)
        assert process.exitcode == 0, (folder / f"err {rank}").read_text()
    return folder


def read(folder, name, rank=0):
    return load(folder / f"{name} {rank}.safetensors")


def numbers(history):
    return [{k: -1.0 if math.isnan(v) else v for k, v in row.items()} for row in history]


@pytest.mark.parametrize("name", [*RUNS, "resumed"])
def test_two_processes_train_the_start_that_one_trains(one, two, name):
    params, seen = read(one, name)
    for rank in (0, 1):
        found, told = read(two, name, rank)
        torch.testing.assert_close(found, params, **CLOSE)
        assert told["best_step"] == seen["best_step"]
        for row, expected in zip(numbers(told["history"]), numbers(seen["history"]), strict=True):
            assert row == pytest.approx(expected, rel=1e-6)
    first, second = read(two, name, 0)[0], read(two, name, 1)[0]
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    # The runs differ from each other; else this would say nothing.
    starts = [read(one, other)[0]["head.0.weight"] for other in RUNS if other != name]
    mine = params["head.0.weight"]
    assert name == "resumed" or min(float((mine - one).abs().max()) for one in starts) > 1e-5


def test_what_is_not_finite_or_not_the_same_is_told_by_all_and_warned_of_by_the_first(one, two):
    told = read(one, "skip")[1]["warnings"]
    assert told
    assert all("tasks skipped" in sentence for sentence in told)
    assert [read(two, "skip", rank)[1]["warnings"] for rank in (0, 1)] == [told, []]
    expected = read(one, "stop")[1]
    assert "DataError" in expected["error"]
    assert "(assays TOY1)" in expected["told"]
    for rank in (0, 1):
        assert read(two, "stop", rank)[1] == expected
        assert "differ in their settings, data or start" in read(two, "other seed", rank)[1]["told"]


def test_ctrl_c_in_one_process_stops_all_and_the_first_saves_and_logs(one, two):
    for folder, rank in ((one, 0), (two, 0), (two, 1)):
        told = read(folder, "resumed", rank)[1]
        assert told["first"].startswith("stopped after meta-step 2 of 4; start again")
    assert read(two, "resumed")[1]["best_step"] == read(two, "even")[1]["best_step"]
    params, straight = read(two, "resumed")[0], read(two, "even")[0]
    torch.testing.assert_close(params, straight, rtol=0, atol=0)
    assert len(list((two / "logs").iterdir())) == 1


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
def test_the_others_do_not_wait_for_one_that_is_gone(end, tmp_path):
    processes = first, other = start_two(tmp_path)
    said, told = tmp_path / "out 0", tmp_path / "err 0"
    try:
        while not said.exists() or "3" not in said.read_text().split():
            assert first.is_alive(), told.read_text()
            time.sleep(0.01)
        os.kill(other.pid, end)
        first.join(timeout=60)
    finally:
        for process in processes:
            process.kill()
            process.join()
    assert first.exitcode == 1
    assert "another process of this run has ended or does not answer; look at" in told.read_text()
    assert "Traceback" not in told.read_text()


@given(n=st.integers(0, 20), size=st.integers(1, 8))
def test_items_are_shared_evenly_and_their_numbers_come_back_in_order(n, size):
    shares = [Ranks(rank, size).share(range(n)) for rank in range(size)]
    assert sorted(item for share in shares for item in share) == list(range(n))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1

    class Heard(Ranks):
        def all(self, own):
            return shares

    assert Heard(0, size).gather([], n) == list(range(n))


def test_alone_nothing_is_changed_or_sent(monkeypatch):
    tensors = {"w": torch.arange(3.0)}
    assert ALONE.sum(tensors) is tensors
    assert ALONE.gather([1.0, 2.0], 2) == [1.0, 2.0]
    assert ALONE.from_first(None) is None
    ALONE.check_same({"a": 1}, "settings")
    with launched("cpu") as ranks:
        assert ranks == Ranks(device="cpu")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(DataError, match=r"needs accelerate.*mutmeta\[distributed\]"), launched():
        pass
