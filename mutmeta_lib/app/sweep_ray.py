"""A sweep's runs on Ray: beside each other, on this machine or a cluster; failed ones tried again.

A run works in a hidden folder; its executed copy and its record are moved to their places only when
both are whole. It is finished when its record reads and answers what the run asks. Ray is optional,
and imported only when there is something to run.
"""

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from mutmeta_lib.app.notebooks import run_notebook
from mutmeta_lib.app.sweep import RECORDS, Run, Sweep, code_hash, expand
from mutmeta_lib.errors import DataError
from mutmeta_lib.records.files import canonical, check_writable, layout, replacing
from mutmeta_lib.records.progress import Report, silent
from mutmeta_lib.records.record import Record, read_record, recorded_parameters

PATIENCE_S = 10  # how long an address may take to answer, and cancelled runs to end


@dataclass(frozen=True)
class Outcome:
    """What became of a run; ``state`` is waiting, finished, failed or stopped.

    ``record`` is the record's hash and ``seconds`` what it says that the experiment took.
    """

    state: str
    seconds: float | None = None
    record: str | None = None
    error: str | None = None


def check_answer(run: Run, record: Record) -> None:
    """Refuse a record of other parameters than the run's.

    What the record does not name is not compared. Notebooks write ``x or None``, so empty and
    missing are the same.
    """
    for name, asked in recorded_parameters(run.parameters).items():
        found = record.parameters.get(name, asked)
        if canonical(found or None) != canonical(asked or None):
            problem = f"its record is of {name} = {found!r}, the run asks for {asked!r}"
            raise DataError(problem, "hand the notebook's parameters on to the experiment")


def planned(sweep: Sweep) -> dict[Run, Outcome]:
    """All runs of a sweep, finished or waiting; nothing runs and nothing is written."""
    return {run: finished(run) or Outcome("waiting") for run in expand(sweep)}


def finished(run: Run) -> Outcome | None:
    """The outcome of a run whose record reads and answers its question; else it must be done."""
    try:
        record = read_record(run.file(".json"))
        check_answer(run, record)
    except DataError:
        return None
    return Outcome("finished", round(sum(record.seconds.values()), 2), record.hash)


def execute_run(run: Run) -> None:
    """Do one run in this process. Of one that fails, nothing is left behind.

    Raises:
        DataError: a cell failed, the notebook was changed, or it wrote no record of the question.

    """
    from papermill import PapermillExecutionError

    if code_hash(run.notebook) != run.code:
        raise DataError("the notebook was changed after the sweep began", "start the sweep again")
    run.folder.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{run.name}.", suffix=".part", dir=run.folder))
    try:
        parameters = run.parameters | {RECORDS: str(work / "records")}
        copy = run_notebook(run.notebook, work / f"{run.name}.ipynb", parameters)
        written = list((work / "records").rglob("*.json"))
        if len(written) != 1:
            problem = f"the notebook wrote {len(written)} records into '{RECORDS}'"
            raise DataError(problem, "a run of a sweep writes one")
        check_answer(run, read_record(written[0]))
        copy.replace(run.file(".ipynb"))
        written[0].replace(run.file(".json"))
    except PapermillExecutionError as error:
        told = _last_line(f"{error.ename}: {error.evalue}")
        raise DataError(f"cell {error.cell_index}: {told}", "") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _last_line(text: str) -> str:
    """The last line of an error, which says what it is."""
    return text.strip().rpartition("\n")[2].strip()


def write_index(sweep: Sweep, results: dict[Run, Outcome]) -> None:
    """Write one line per run (name, state, seconds, …, what the sweep sets), all or nothing."""
    lines = [
        {"run": run.name, **asdict(outcome), "profile": sweep.profile}
        | {"parameters": sweep.parameters | run.varied}
        for run, outcome in results.items()
    ]
    with replacing(sweep.index) as draft:
        draft.write_text(layout({"notebook": sweep.notebook, "runs": lines}) + "\n", "utf-8")


def run_sweep(sweep: Sweep, report: Report = silent) -> dict[Run, Outcome]:
    """Do all runs of a sweep that are not finished yet, and keep the index up to date.

    A run whose cell fails or whose process dies is tried again ``retries`` times; one that keeps
    failing does not stop the others. A Ray that is initialised in this process is used as it is.

    Raises:
        DataError: Ray is missing, the cluster does not answer, no machine has what a run needs, or
            the output cannot be written.
        KeyboardInterrupt: Ctrl-C; runs under way are cancelled, finished ones stay.

    """
    results = planned(sweep)
    if any(outcome.state == "waiting" for outcome in results.values()):
        with _ray_at(sweep) as ray:
            check_writable(sweep.index)
            try:
                _schedule(ray, sweep, results, report)
            finally:
                write_index(sweep, results)
                for run in results:  # what attempts left that were killed
                    for left in run.folder.glob(f".{run.name}.*.part"):
                        shutil.rmtree(left, ignore_errors=True)
    write_index(sweep, results)
    return results


def _schedule(ray: ModuleType, sweep: Sweep, results: dict[Run, Outcome], report: Report) -> None:
    """Hand the waiting runs to Ray and take what comes back, until none is left."""
    task = ray.remote(execute_run).options(
        num_cpus=sweep.cpus_per_run,
        num_gpus=sweep.gpus_per_run,
        max_retries=sweep.retries,
        retry_exceptions=True,
    )
    todo = [run for run, outcome in results.items() if outcome.state == "waiting"]
    under_way = {task.remote(run): run for run in todo}
    try:
        while under_way:
            report("runs", len(todo) - len(under_way), len(todo))
            write_index(sweep, results)
            (ready,), _ = ray.wait(list(under_way), num_returns=1)
            results[under_way[ready]] = _outcome(ray, ready, under_way[ready])
            del under_way[ready]
    except KeyboardInterrupt:
        for running in under_way:
            ray.cancel(running, force=True)  # its kernel notices, and ends as well
        if under_way:
            ray.wait(list(under_way), num_returns=len(under_way), timeout=PATIENCE_S)
        results.update(dict.fromkeys(under_way.values(), Outcome("stopped")))
        done = sum(outcome.state == "finished" for outcome in results.values())
        raise KeyboardInterrupt(
            f"stopped; {done} of {len(results)} runs are finished, and will be skipped next time"
        ) from None


def _outcome(ray: ModuleType, task: Any, run: Run) -> Outcome:
    """What a task came to, when its process died or its kernel as well."""
    try:
        ray.get(task)
    except ray.exceptions.RayError as error:
        died = f"the process of the run died ({type(error).__name__})"
        return Outcome("failed", error=_last_line(str(getattr(error, "cause", None) or died)))
    lost = "its files were not found here; on a cluster, output must be a shared folder"
    return finished(run) or Outcome("failed", error=lost)


@contextmanager
def _ray_at(sweep: Sweep) -> Iterator[ModuleType]:
    """Ray on this machine or at the sweep's address, for the length of the block."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    try:
        import ray
    except ImportError:
        mend = 'pip install "mutmeta[sweep]"'
        raise DataError("a sweep needs Ray, which is not installed", mend) from None
    if ray.is_initialized():
        _check_resources(ray, sweep)
        yield ray
        return
    # Sockets live here, and their paths must be short; on some machines $TMPDIR is not.
    folder = tempfile.mkdtemp(prefix="mutmeta-", dir="/tmp" if os.path.isdir("/tmp") else None)
    where, mend = "on this machine", "mend what it names"
    settings: dict[str, Any] = {
        "address": "local",  # a plain init() would join a cluster that somebody started here
        "include_dashboard": False,
        "object_store_memory": 100 * 10**6,  # runs exchange files
        "_temp_dir": folder,
        "_node_ip_address": "127.0.0.1",
        "_system_config": {"task_oom_retries": sweep.retries},  # by default there is no end
    }
    if sweep.address is not None:
        settings, where = {"address": sweep.address}, f"at '{sweep.address}'"
        mend = "give host:port of its head node, and start it with the same Python, Ray and tokens"
    # Ray prints every attempt that fails, with its traceback; what fails for good we tell.
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        try:
            try:
                if sweep.address not in (None, "auto", "local"):  # Ray would wait for many minutes
                    host, _, port = sweep.address.removeprefix("ray://").rpartition(":")
                    there = (host.strip("[]"), int(port))
                    socket.create_connection(there, timeout=PATIENCE_S).close()
                ray.init(log_to_driver=False, logging_level="ERROR", **settings)
            except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
                problem = f"Ray {where} cannot be used ({_last_line(str(error))})"
                raise DataError(problem, mend) from None
            _check_resources(ray, sweep)
            yield ray
        finally:
            ray.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


def _check_resources(ray: ModuleType, sweep: Sweep) -> None:
    """Refuse what no machine has; Ray would wait for it forever."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for key, resource in (("cpus_per_run", "CPU"), ("gpus_per_run", "GPU")):
        wanted, most = getattr(sweep, key), max(node.get(resource, 0) for node in nodes)
        if wanted > most:
            problem = f"{key} is {wanted:g}, but no machine has more than {most:g}"
            raise DataError(problem, f"lower {key}")
