"""A sweep on Ray: runs beside each other, on this machine or a cluster; failed ones tried again.

Ray is optional and imported only when there is something to run.
"""

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from mutmeta_lib.app.sweep import Sweep
from mutmeta_lib.app.sweep_outcomes import (
    Outcome,
    clear,
    execute_run,
    finished,
    index_path,
    last_line,
    planned,
    write_index,
)
from mutmeta_lib.app.sweep_runs import Run
from mutmeta_lib.errors import DataError
from mutmeta_lib.records.drafts import check_writable
from mutmeta_lib.records.record import duration

STORE_BYTES = 100 * 10**6
"""Ray's shared memory on this machine. Runs exchange files, so little is enough."""

PATIENCE_S = 10
"""How long a cluster's address may take to answer, and cancelled runs to end."""


def run_sweep(
    sweep: Sweep, *, progress: Callable[[str], None] | None = None
) -> list[tuple[Run, Outcome]]:
    """Do all runs of a sweep that are not finished yet, and keep the index up to date.

    A run whose cell fails or whose process dies is tried again ``retries`` times; one that keeps
    failing does not stop the others. Where Ray is already initialised in this process, it is used
    as it is, and left running.

    Raises:
        DataError: Ray is missing, the cluster does not answer, no machine has what a run needs, or
            the output cannot be written.
        KeyboardInterrupt: Ctrl-C; runs under way are cancelled, finished ones stay.

    """
    tell = progress or (lambda line: None)
    plan = planned(sweep)
    runs = [run for run, _ in plan]
    outcomes = {run.name: outcome for run, outcome in plan}
    todo = [run for run in runs if outcomes[run.name].state == "waiting"]
    if todo:
        ray = import_ray()
        if len(todo) < len(runs):
            tell(f"{len(runs) - len(todo)} of {len(runs)} runs are finished already")
        with _ray_at(ray, sweep.address):
            _check_resources(ray, sweep)
            check_writable(index_path(sweep))
            write_index(sweep, runs, outcomes)
            _schedule(ray, sweep, runs, todo, outcomes, tell)
    write_index(sweep, runs, outcomes)
    return [(run, outcomes[run.name]) for run in runs]


def import_ray() -> ModuleType:
    """Import Ray, or say how to install it."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    try:
        import ray
    except ImportError:
        raise DataError(
            "a sweep needs Ray, which is not installed", 'pip install "mutmeta[sweep]"'
        ) from None
    return ray


def _schedule(
    ray: ModuleType,
    sweep: Sweep,
    runs: Sequence[Run],
    todo: Sequence[Run],
    outcomes: dict[str, Outcome],
    tell: Callable[[str], None],
) -> None:
    """Hand the runs to Ray and take what comes back, until none is left."""
    # Ray's own retries are off: it would not count them, nor try a failed cell again.
    task = ray.remote(execute_run).options(
        num_cpus=sweep.cpus_per_run, num_gpus=sweep.gpus_per_run, max_retries=0
    )
    began, ended = time.monotonic(), 0
    under_way = {task.remote(run, 1): (run, 1) for run in todo}
    try:
        while under_way:
            (ready,), _ = ray.wait(list(under_way), num_returns=1)
            run, attempt = under_way.pop(ready)
            outcome = _outcome(ray, ready, run, attempt)
            if outcome.state == "failed":
                clear(run)
                if attempt <= sweep.retries:
                    tell(f"{run.name} failed ({outcome.reason()}); attempt {attempt + 1} follows")
                    under_way[task.remote(run, attempt + 1)] = (run, attempt + 1)
                    continue
            outcomes[run.name] = outcome
            write_index(sweep, runs, outcomes)
            ended += 1
            left = (time.monotonic() - began) / ended * (len(todo) - ended)
            eta = f", about {duration(left)} to go" if left else ""
            tell(f"{ended} of {len(todo)}: {run.name} {outcome.state}{eta}")
    except KeyboardInterrupt:
        _cancel(ray, list(under_way))
        for run, attempt in under_way.values():
            clear(run)
            outcomes[run.name] = Outcome("stopped", attempt)
        write_index(sweep, runs, outcomes)
        done = sum(outcome.state == "finished" for outcome in outcomes.values())
        raise KeyboardInterrupt(
            f"stopped; {done} of {len(runs)} runs are finished, and will be skipped next time"
        ) from None


def _outcome(ray: ModuleType, ready: Any, run: Run, attempt: int) -> Outcome:
    """What a task came to, when its process died or its kernel as well."""
    try:
        outcome = ray.get(ready)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        return Outcome("failed", attempt, error=last_line(f"{type(cause).__name__}: {cause}"))
    except ray.exceptions.OutOfMemoryError:
        return Outcome("failed", attempt, error="the machine ran out of memory")
    except ray.exceptions.RayError as error:
        told = f"the process of the run died ({type(error).__name__})"
        return Outcome("failed", attempt, error=told)
    if outcome.state == "finished" and finished(run) is None:
        told = "its files were not found here; on a cluster, output must be a shared folder"
        return Outcome("failed", attempt, outcome.seconds, error=told)
    return outcome


def _cancel(ray: ModuleType, tasks: list[Any]) -> None:
    """Kill the processes of the runs under way; their kernels notice and end as well."""
    for task in tasks:
        ray.cancel(task, force=True)
    ray.wait(tasks, num_returns=len(tasks), timeout=PATIENCE_S)


@contextmanager
def _ray_at(ray: ModuleType, address: str | None) -> Iterator[None]:
    """Ray on this machine or at an address, for the length of the block."""
    if ray.is_initialized():
        yield
        return
    # Sockets live here, and their paths must be short; on some machines $TMPDIR is not.
    folder = tempfile.mkdtemp(prefix="mutmeta-", dir="/tmp" if os.path.isdir("/tmp") else None)
    settings: dict[str, Any] = {"address": address}
    if address is None:
        settings = {
            "address": "local",  # a plain init() would join a cluster that somebody started here
            "include_dashboard": False,
            "object_store_memory": STORE_BYTES,
            "_temp_dir": folder,
            "_node_ip_address": "127.0.0.1",
        }
    try:
        if address is not None:
            _check_address(address)
        try:
            ray.init(log_to_driver=False, logging_level="ERROR", **settings)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            where = "on this machine" if address is None else f"at '{address}'"
            mend = "start it with the same Python, Ray and RAY_AUTH_MODE, or mend the address"
            raise DataError(
                f"Ray {where} cannot be used ({last_line(str(error))})",
                "mend what it names" if address is None else mend,
            ) from None
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _check_address(address: str) -> None:
    """Knock at host:port; Ray itself would wait for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address in ("auto", "local"):
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE_S).close()
    except (OSError, ValueError):
        raise DataError(
            f"no Ray cluster answers at '{address}'", "write host:port of its head node"
        ) from None


def _check_resources(ray: ModuleType, sweep: Sweep) -> None:
    """Refuse what no machine has; Ray would wait for it forever."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for key, resource in (("cpus_per_run", "CPU"), ("gpus_per_run", "GPU")):
        wanted = getattr(sweep, key)
        most = max((node.get(resource, 0) for node in nodes), default=0)
        if wanted > most:
            raise DataError(
                f"{key} is {wanted}, but no machine has more than {most:g}",
                f"lower {key}",
                file=Path(sweep.file),
            )
