"""Independent runs shared among processes, with their progress, and plain words when one dies."""

import json
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed, parallel_config

from mutmeta_lib.errors import DataError
from mutmeta_lib.records.progress import Report


@dataclass(frozen=True)
class Relay:
    """A report that another process hears: a line of JSON at the end of a file.

    Lines this short are appended whole, however many processes write.
    """

    file: Path

    def __call__(self, what: str, done: int, total: int) -> None:
        """Append one report."""
        handle = os.open(self.file, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(handle, (json.dumps([what, done, total]) + "\n").encode())
        finally:
            os.close(handle)


@contextmanager
def relayed(report: Report, *, every: float = 0.5) -> Iterator[Relay]:
    """A relay for other processes, whose reports are passed on here by a thread."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        file = Path(folder) / "progress"
        file.touch()
        ended = threading.Event()

        def listen() -> None:
            with file.open(encoding="utf-8") as stream:
                rest, last = "", False
                while not last:
                    last = ended.wait(every)  # what came before the end is still read
                    *whole, rest = (rest + stream.read()).split("\n")
                    for line in whole:
                        report(*json.loads(line))

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        try:
            yield Relay(file)
        finally:
            ended.set()
            thread.join()


def run_all(
    function: Callable[..., Any],
    jobs: Sequence[tuple],
    *,
    workers: int,
    report: Report,
    kept: str | Path | None = None,
) -> Iterator[Any]:
    """Call ``function(*job, report=...)`` for every job, and yield the outcomes in their order.

    Jobs are independent, so the number of processes changes nothing but the time they take. Every
    process computes with one thread.

    Args:
        function: what to call; with several workers it and its outcome are sent between processes.
        jobs: its positional arguments.
        workers: processes. With one, everything happens in this process.
        report: told of progress, by the jobs and of their number.
        kept: the folder in which jobs keep finished work, for the message.

    Raises:
        DataError: a worker process was killed.
        KeyboardInterrupt: Ctrl-C was pressed; no worker process is left.

    """
    again = f"; start again to go on from {kept}" if kept else ""
    done = 0
    report("runs", done, len(jobs))
    relay = relayed(report) if workers > 1 else nullcontext(report)
    try:
        with relay as passed, parallel_config("loky", inner_max_num_threads=1):
            calls = (delayed(function)(*job, report=passed) for job in jobs)
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
