import os
import signal

import pytest

from mutmeta_lib.errors import DataError
from mutmeta_lib.study.parallel import run_all


def square(n, *, report):
    for done in range(1, 4):
        report(f"square {n}", done, 3)
    return n * n


def collect(function, jobs, workers, **more):
    told = []
    report = lambda *given: told.append(given)  # noqa: E731
    return list(run_all(function, jobs, workers=workers, report=report, **more)), told


@pytest.mark.parametrize("workers", [1, 2])
def test_outcomes_come_in_order_and_reports_arrive(workers):
    outcomes, told = collect(square, [(n,) for n in range(4)], workers)
    assert outcomes == [0, 1, 4, 9]
    assert [given for given in told if given[0] == "runs"] == [("runs", n, 4) for n in range(5)]
    for n in range(4):  # what happens within a job is told where it runs in this process
        steps = [given[1:] for given in told if given[0] == f"square {n}"]
        assert steps == ([(1, 3), (2, 3), (3, 3)] if workers == 1 else [])


def process_and_threads(n, *, report):
    return os.getpid(), os.environ["OMP_NUM_THREADS"]


def test_workers_are_other_processes_of_one_thread_each(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    found, _ = collect(process_and_threads, [(1,), (2,)], 2)
    assert os.getpid() not in {process for process, _ in found}
    assert {threads for _, threads in found} == {"1"}
    assert collect(process_and_threads, [(1,)], 1)[0][0][0] == os.getpid()


def refuse(n, *, report):
    raise DataError(f"{n} is bad", "take another")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_job_s_own_error_is_the_one_that_is_raised(workers):
    with pytest.raises(DataError) as caught:
        collect(refuse, [(7,), (7,)], workers)
    assert str(caught.value) == "7 is bad; take another"


def die(n, *, report):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_told_in_one_sentence():
    with pytest.raises(DataError) as caught:
        collect(die, [(1,), (2,)], 2, kept="folder")
    assert str(caught.value) == (
        "a worker process was killed after 0 of 2 runs, often for want of memory; ask for fewer "
        "workers; start again to go on from folder"
    )
    assert collect(square, [(3,), (4,)], 2)[0] == [9, 16], "the next call has new workers"


def interrupt(n, *, report):
    raise KeyboardInterrupt(*([f"stopped at {n}"] if n else []))


@pytest.mark.parametrize(
    ("n", "told"),
    [(3, "stopped at 3"), (0, "stopped after 0 of 1 runs; start again to go on from x")],
)
def test_ctrl_c_says_where_it_stopped(n, told):
    with pytest.raises(KeyboardInterrupt, match=told):
        collect(interrupt, [(n,)], 1, kept="x")
