"""Independent runs shared among processes, and plain words when one dies."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed, parallel_config

from mutmeta_lib.errors import DataError
from mutmeta_lib.records.progress import Report, silent


def run_all(
    function: Callable[..., Any],
    jobs: Sequence[tuple],
    *,
    workers: int,
    report: Report,
    kept: str | Path | None = None,
) -> Iterator[Any]:
    """Call ``function(*job, report=...)`` for every job, and yield the outcomes in their order.

    Jobs are independent, so the number of processes (``workers``) changes nothing but the time
    they take; each computes with one thread. ``report`` is told of the number of finished runs,
    and by the jobs themselves where they run in this process. ``kept`` is the folder in which
    they keep finished work, for the message.

    Raises:
        DataError: a worker process was killed.
        KeyboardInterrupt: Ctrl-C was pressed; no worker process is left.

    """
    again = f"; start again to go on from {kept}" if kept else ""
    done = 0
    report("runs", done, len(jobs))
    heard = report if workers == 1 else silent
    calls = (delayed(function)(*job, report=heard) for job in jobs)
    try:
        with parallel_config("loky", inner_max_num_threads=1):
            for outcome in Parallel(n_jobs=workers, return_as="generator")(calls):
                done += 1
                report("runs", done, len(jobs))
                yield outcome
    except BrokenProcessPool:
        raise DataError(
            f"a worker process was killed after {done} of {len(jobs)} runs, often for want of "
            "memory",
            f"ask for fewer workers{again}",
        ) from None
    except KeyboardInterrupt as stop:
        told = str(stop) or f"stopped after {done} of {len(jobs)} runs{again}"
        raise KeyboardInterrupt(told) from None
