import os
import signal

import pytest

from mutmeta_lib.errors import DataError
from mutmeta_lib.study.parallel import relayed, run_all


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
    for n in range(4):
        steps = [given[1:] for given in told if given[0] == f"square {n}"]
        assert steps == [(1, 3), (2, 3), (3, 3)]


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


def test_a_relay_passes_on_what_was_said_before_its_end():
    told = []
    with relayed(lambda *given: told.append(given), every=60) as relay:
        relay("a", 1, 2)
        relay("µ\n", 2, 2)
    assert told == [("a", 1, 2), ("µ\n", 2, 2)]
    with pytest.raises(FileNotFoundError):
        relay("late", 1, 1)
