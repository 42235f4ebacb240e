"""A sweep: one notebook with many parameters and seeds, in one YAML file, run side by side on Ray.

Every combination of the grid and the seeds is a run, named after what it asks: a hash of the
notebook's code, all parameters, and the contents of the data and the encoder that they name. A run
works in a hidden folder; its executed copy and its record are moved to their places when both are
whole. It is finished when its record reads and answers what the run asks. Ray is optional, and
imported only when there is work for it.
"""

import hashlib
import itertools
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError

from mutmeta_lib.app.console import unknown
from mutmeta_lib.app.notebooks import (
    check_parameters,
    default_parameters,
    profile_parameters,
    read_notebook,
    read_yaml,
    run_notebook,
)
from mutmeta_lib.errors import DataError
from mutmeta_lib.records.files import canonical, check_writable, fingerprint, layout, replacing
from mutmeta_lib.records.progress import Report, silent
from mutmeta_lib.records.record import NOT_PARAMETERS, read_record, recorded_parameters

RECORDS = "records_dir"
"""The notebook's parameter that says where records go. Every run of a sweep gets a folder."""
PATIENCE_S = 10
"""How long a cluster may take to answer, and cancelled runs to end."""

Values = Annotated[list, Field(min_length=1)]
Seeds = Annotated[
    dict[str, Annotated[list[int], Field(min_length=1)]],
    Field(max_length=1),
    BeforeValidator(lambda value: {"seed": value} if isinstance(value, list) else value),
]
Share = Annotated[float, Field(lt=1)] | Annotated[float, Field(multiple_of=1)]


class Sweep(BaseModel):
    """What a sweep file says; the descriptions are the mends of wrong values."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    notebook: str = Field(description="write an .ipynb file, relative to this file")
    output: str = Field(description="write a folder, relative to this file")
    profile: str | None = Field(None, description="write its name: quick or full")
    parameters: dict[str, Any] = Field({}, description="write 'name: value' lines")
    grid: dict[str, Values] = Field({}, description="write 'name: [value, value]' lines")
    seeds: Seeds = Field({}, description="write [0, 1], or the parameter's name and such a list")
    retries: int = Field(2, ge=0, description="write a whole number, 0 or more")
    cpus_per_run: Share = Field(1.0, gt=0, description="write a number above 0, whole above 1")
    gpus_per_run: Share = Field(0.0, ge=0, description="write a number, whole above 1")
    _file: Path = PrivateAttr()

    def model_post_init(self, context: Path) -> None:
        """Keep the file, which is the context of the validation."""
        self._file = context

    def place(self, path: str) -> Path:
        """A path that is written in the file."""
        return (self._file.parent / path).resolve()

    @property
    def index(self) -> Path:
        """The index of the runs: beside them, named after the file."""
        return self.place(self.output) / f"{self._file.stem}.index.json"


def read_sweep(path: Path) -> Sweep:
    """What a sweep file says; a key that is not known or has a wrong value is a `DataError`."""
    content = {key: value for key, value in read_yaml(path).items() if value is not None}
    try:
        return Sweep.model_validate(content, context=path)
    except ValidationError as error:
        key, kind = error.errors()[0]["loc"][0], error.errors()[0]["type"]
    if key not in Sweep.model_fields:
        raise unknown("key", key, Sweep.model_fields).at(file=path)
    problem = f"'{key}' is missing" if kind == "missing" else f"'{key}' is {content[key]!r}"
    raise DataError(problem, Sweep.model_fields[key].description, file=path)


def problems(sweep: Sweep) -> Iterator[DataError]:
    """Everything in which a sweep and its notebook disagree; equal values would be one run."""
    notebook = sweep.place(sweep.notebook)
    if RECORDS not in default_parameters(notebook):
        mend = "add it and write the record there: every run keeps its own"
        yield DataError(f"there is no parameter '{RECORDS}'", mend, file=notebook.name)
    try:
        if sweep.profile is not None:
            check_parameters(notebook, profile_parameters(notebook, sweep.profile))
    except DataError as error:
        yield error
    single = {name: [value] for name, value in sweep.parameters.items()}
    axes = {"parameters": single, "grid": sweep.grid, "seeds": sweep.seeds}
    set_by = {RECORDS: "the sweep itself"}
    for key, axis in axes.items():
        for name, values in axis.items():
            at, seen = f"{key}.{name}", set()
            try:
                if name in set_by:
                    raise DataError(f"it is set by {set_by[name]}", "leave one of them out")
                for value in values:
                    check_parameters(notebook, {name: value})
                    try:
                        json.dumps(value, allow_nan=False)
                    except (TypeError, ValueError):
                        mend = "write numbers, text, lists, true or false"
                        raise DataError(f"{value!r} is no value of a record", mend) from None
                    if canonical(value) in seen:
                        raise DataError(f"{value!r} is there twice", "leave one out")
                    seen.add(canonical(value))
            except DataError as error:
                yield DataError(f"{at}: {error.problem}", error.mend, file=sweep._file)
            set_by[name] = at


@dataclass(frozen=True, eq=False)
class Run:
    """One run: its parameters, those that vary in the sweep, and where it is kept.

    ``name`` ends in the hash of what the run asks; ``code`` is the hash of the notebook's code.
    """

    notebook: Path
    folder: Path
    name: str
    code: str
    parameters: dict[str, Any]
    varied: dict[str, Any]

    def file(self, suffix: str) -> Path:
        """Its executed copy (.ipynb) or its record (.json)."""
        return self.folder / (self.name + suffix)


def expand(sweep: Sweep) -> list[Run]:
    """Every combination of the axes as a run, the last axis (the seeds) fastest."""
    notebook, output = sweep.place(sweep.notebook), sweep.place(sweep.output)
    defaults, code = default_parameters(notebook), code_hash(notebook)
    axes = sweep.grid | sweep.seeds
    common = profile_parameters(notebook, sweep.profile) if sweep.profile else {}
    ignored = {*NOT_PARAMETERS, RECORDS} - set(axes)
    content = cache(content_hash)
    runs = []
    for values in itertools.product(*axes.values()):
        varied = dict(zip(axes, values, strict=True))
        parameters = check_parameters(notebook, common | sweep.parameters | varied)
        asked = {k: v for k, v in (defaults | parameters).items() if k not in ignored}
        named = {name: named_paths(name, v, notebook.parent) for name, v in asked.items()}
        contents = {name: [*map(content, paths)] for name, paths in named.items() if paths}
        question = fingerprint([notebook.stem, code, asked, contents])[:12]
        runs.append(Run(notebook, output, f"{notebook.stem}-{question}", code, parameters, varied))
    return runs


def code_hash(notebook: Path) -> str:
    """A hash of a notebook's code cells; text and outputs do not count."""
    cells = read_notebook(notebook).cells
    return fingerprint([cell.source for cell in cells if cell.cell_type == "code"])


def named_paths(name: str, value: Any, folder: Path) -> list[Path]:
    """Files and folders that a parameter names, seen from the notebook's folder.

    Folders are named by ``encoder`` and by what ends in ``_dir`` only: no word that happens to be
    a folder's name is taken for one. ``demo`` as ``data_dir`` is the bundled data.
    """
    if (name, value) == ("data_dir", "demo"):
        from mutmeta_lib.data.folders import demo_dir

        return [demo_dir()]
    texts = value if isinstance(value, list) else [value]
    paths = [folder / text for text in texts if isinstance(text, str) and text]
    is_named = os.path.exists if name == "encoder" or name.endswith("_dir") else os.path.isfile
    return [path for path in paths if is_named(path)]


def content_hash(path: Path) -> str:
    """The sha256 of a file, or of all files of a folder with their names, but hidden ones."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    names = {p.relative_to(path).as_posix(): p for p in path.rglob("*") if p.is_file()}
    shown = [name for name in sorted(names) if not any(x[0] == "." for x in name.split("/"))]
    return fingerprint({name: content_hash(names[name]) for name in shown})


@dataclass(frozen=True)
class Outcome:
    """What became of a run; ``state`` is waiting, finished, failed or stopped.

    ``record`` is the record's hash and ``seconds`` what it says that the experiment took.
    """

    state: str
    seconds: float | None = None
    record: str | None = None
    error: str | None = None


def answer(run: Run, file: Path) -> Outcome:
    """The outcome that a record tells; one of other parameters than the run's is a `DataError`.

    What the record does not name is not compared. Notebooks write ``x or None``, so empty and
    missing are the same.
    """
    record = read_record(file)
    for name, asked in recorded_parameters(run.parameters).items():
        found = record.parameters.get(name, asked)
        if canonical(found or None) != canonical(asked or None):
            problem = f"its record is of {name} = {found!r}, the run asks for {asked!r}"
            raise DataError(problem, "hand the notebook's parameters on to the experiment")
    return Outcome("finished", round(sum(record.seconds.values()), 2), record.hash)


def finished(run: Run) -> Outcome | None:
    """The outcome of a run whose record reads and answers its question; else it must be done."""
    try:
        return answer(run, run.file(".json"))
    except DataError:
        return None


def planned(sweep: Sweep) -> dict[Run, Outcome]:
    """All runs of a sweep, finished or waiting; nothing runs and nothing is written."""
    return {run: finished(run) or Outcome("waiting") for run in expand(sweep)}


def execute_run(run: Run) -> None:
    """Do one run in this process; one that fails is a `DataError`, and leaves nothing behind."""
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
        answer(run, written[0])
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
    Ctrl-C cancels runs under way. A Ray that is missing, does not start or has not what a run
    needs is a `DataError`.
    """
    results = planned(sweep)
    if any(outcome.state == "waiting" for outcome in results.values()):
        with _ray_for(sweep) as ray:
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
    needs = {"num_cpus": sweep.cpus_per_run, "num_gpus": sweep.gpus_per_run}
    again = {"max_retries": sweep.retries, "retry_exceptions": True}
    task = ray.remote(execute_run).options(**needs, **again)
    todo = [run for run, outcome in results.items() if outcome.state == "waiting"]
    under_way = {task.remote(run): run for run in todo}
    try:
        while under_way:
            report("runs", len(todo) - len(under_way), len(todo))
            write_index(sweep, results)
            (ready,), _ = ray.wait(list(under_way), num_returns=1)
            run = under_way[ready]
            try:
                ray.get(ready)
                lost = "its files were not found here; on a cluster, output must be a shared folder"
                results[run] = finished(run) or Outcome("failed", error=lost)
            except ray.exceptions.RayError as error:  # a cell failed, or the process or kernel died
                died = f"the process of the run died ({type(error).__name__})"
                told = _last_line(str(getattr(error, "cause", None) or died))
                results[run] = Outcome("failed", error=told)
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


@contextmanager
def _ray_for(sweep: Sweep) -> Iterator[ModuleType]:
    """Ray for the length of the block: one of its own, or where ``RAY_ADDRESS`` says."""
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
    # Ray prints every attempt that fails, with its traceback; what fails for good we tell.
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        try:
            _start(ray, sweep, folder)
            _check_resources(ray, sweep)
            yield ray
        finally:
            ray.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


def _start(ray: ModuleType, sweep: Sweep, folder: str) -> None:
    """Start a private Ray, or join a cluster; a plain init() would join what somebody started."""
    given = {"address": "local", "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    given |= {"object_store_memory": 100 * 10**6, "_temp_dir": folder}  # runs exchange files
    given["_system_config"] = {"task_oom_retries": sweep.retries}  # by default there is no end
    where = "on this machine"
    try:
        if cluster := os.environ.get("RAY_ADDRESS"):
            given, where = {"address": cluster}, f"at RAY_ADDRESS={cluster}"
            if cluster != "auto":  # where nothing answers, Ray would wait for minutes
                host, _, port = cluster.removeprefix("ray://").rpartition(":")
                there = (host.strip("[]"), int(port))
                socket.create_connection(there, timeout=PATIENCE_S).close()
        ray.init(log_to_driver=False, logging_level="ERROR", **given)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        problem = f"Ray {where} cannot be used ({_last_line(str(error))})"
        raise DataError(problem, "mend what it names") from None


def _check_resources(ray: ModuleType, sweep: Sweep) -> None:
    """Refuse what no machine has; Ray would wait for it forever."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for key, resource in {"cpus_per_run": "CPU", "gpus_per_run": "GPU"}.items():
        wanted, most = getattr(sweep, key), max(node.get(resource, 0) for node in nodes)
        if wanted > most:
            problem = f"{key} is {wanted:g}, but no machine has more than {most:g}"
            raise DataError(problem, f"lower {key}")
