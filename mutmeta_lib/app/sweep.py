"""A sweep: one notebook with many parameters and seeds, in one YAML file, run side by side on Ray.

A run is named after what it asks: a hash of the notebook's code, its parameters, and the contents
of the data and the encoder that they name. It is finished when its record reads and answers that.
Ray is optional, and imported only when there is work for it.
"""

import hashlib
import itertools
import os
import shutil
import tempfile
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError

from mutmeta_lib.app import notebooks
from mutmeta_lib.errors import DataError
from mutmeta_lib.records.files import fingerprint, layout, replacing
from mutmeta_lib.records.progress import Report, silent
from mutmeta_lib.records.record import (
    FOLDERS,
    NOT_PARAMETERS,
    differing,
    read_record,
    recorded_parameters,
)

Place = Annotated[Path, AfterValidator(lambda path, info: (info.context / path).resolve())]


class Sweep(BaseModel):
    """What a sweep file says; its paths are relative to it."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    notebook: Place
    output: Place
    profile: str | None = None
    parameters: dict[str, JsonValue] = {}
    grid: dict[str, Annotated[list[JsonValue], Field(min_length=1)]] = {}
    seeds: list[int] = []
    retries: int = Field(2, ge=0)
    gpus_per_run: float = Field(0, ge=0)


def read_sweep(path: Path) -> Sweep:
    """What a sweep file says; a key that is not known or has a wrong value is a `DataError`."""
    content = {key: value for key, value in notebooks.read_yaml(path).items() if value is not None}
    try:
        return Sweep.model_validate(content, context=path.parent)
    except ValidationError as error:
        first = error.errors()[0]
    problem = f"'{'.'.join(map(str, first['loc']))}': {first['msg']}"
    raise DataError(problem, f"the keys are {', '.join(Sweep.model_fields)}", file=path)


@dataclass(frozen=True, eq=False)
class Run:
    """One run: its parameters, those of them that vary, and where its record (.json) will lie."""

    notebook: Path
    record: Path
    parameters: dict[str, Any]
    varied: dict[str, Any]


def expand(sweep: Sweep) -> list[Run]:
    """Every combination of the grid and the seeds; a `DataError` where the notebook has no such."""
    notebook, axes = sweep.notebook, sweep.grid | ({"seed": sweep.seeds} if sweep.seeds else {})
    set_by = Counter([*sweep.parameters, *sweep.grid, "seed" if sweep.seeds else "", "records_dir"])
    if twice := [name for name, times in set_by.items() if times > 1]:
        raise DataError(f"'{twice[0]}' is set twice", "leave it out (a sweep sets records_dir)")
    common = notebooks.profile_parameters(notebook, sweep.profile) if sweep.profile else {}
    common |= sweep.parameters | {"records_dir": ""}
    defaults = notebooks.default_parameters(notebook)
    cells = notebooks.read_notebook(notebook).cells
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    contents, runs = cache(folder_contents), {}
    for values in itertools.product(*axes.values()):
        varied = dict(zip(axes, values, strict=True))
        parameters = notebooks.check_parameters(notebook, common | varied)
        asked = {k: v for k, v in (defaults | parameters).items() if k not in NOT_PARAMETERS}
        named = {key: contents(notebook.parent / asked[key]) for key in FOLDERS if asked.get(key)}
        question = fingerprint([code, asked, named])[:12]
        record = sweep.output / f"{notebook.stem}-{question}.json"
        if record in runs:
            raise DataError(f"the run of {varied} is there twice", "leave one of its values out")
        runs[record] = Run(notebook, record, parameters, varied)
    return [*runs.values()]


def folder_contents(folder: Path) -> dict[str, str]:
    """Names and hashes of a folder's files but hidden ones; none where there is no such folder."""
    files = [path for path in folder.rglob("[!.]*") if path.is_file()]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@dataclass(frozen=True)
class Outcome:
    """What became of a run (waiting, finished, failed or stopped), with its record's hash."""

    state: str
    seconds: float | None = None
    record: str | None = None
    error: str | None = None


def answer(run: Run, file: Path) -> Outcome:
    """The outcome that a record tells; one of other parameters than the run's is a `DataError`."""
    record, asked = read_record(file), recorded_parameters(run.parameters)
    for name in differing(record.parameters, asked):
        found = f"{name} = {record.parameters[name]!r}"
        problem = f"its record is of {found}, the run asks for {asked[name]!r}"
        raise DataError(problem, "hand the notebook's parameters on to the experiment")
    return Outcome("finished", round(sum(record.seconds.values()), 2), record.hash)


def planned(sweep: Sweep) -> dict[Run, Outcome]:
    """All runs of a sweep, finished or waiting; nothing runs and nothing is written."""
    results = dict.fromkeys(expand(sweep), Outcome("waiting"))
    for run in results:
        with suppress(DataError):  # missing, damaged or of another question: it waits
            results[run] = answer(run, run.record)
    return results


def execute_run(run: Run) -> None:
    """Do one run in this process; one that fails is a `DataError`, and leaves no record."""
    from papermill import PapermillExecutionError

    with tempfile.TemporaryDirectory() as records:
        try:
            copy, given = run.record.with_suffix(".ipynb"), {"records_dir": records}
            notebooks.run_notebook(run.notebook, copy, run.parameters | given)
        except PapermillExecutionError as error:
            problem = f"cell {error.cell_index}: {error.ename}: {error.evalue}"
            raise DataError(problem, "") from None
        written = list(Path(records).rglob("*.json"))
        if len(written) != 1:
            problem = f"the notebook wrote {len(written)} records into 'records_dir'"
            raise DataError(problem, "a run of a sweep writes one")
        answer(run, written[0])
        with replacing(run.record) as draft:
            shutil.copyfile(written[0], draft)


def run_sweep(sweep: Sweep, index: Path, report: Report = silent) -> dict[Run, Outcome]:
    """Do all runs of a sweep that are not finished yet, and keep the index up to date.

    A run whose cell fails or whose process dies is tried again ``retries`` times; one that keeps
    failing does not stop the others. Ctrl-C cancels runs under way.
    """
    results = planned(sweep)
    write_index(index, results)
    todo = [run for run, outcome in results.items() if outcome.state == "waiting"]
    if not todo:
        return results
    ray, how = started_ray(sweep.retries), {"num_gpus": sweep.gpus_per_run}
    task = ray.remote(max_retries=sweep.retries, retry_exceptions=True, **how)(execute_run)
    under_way = {task.remote(run): run for run in todo}
    try:
        while under_way:
            report("runs", len(todo) - len(under_way), len(todo))
            (ready,), _ = ray.wait(list(under_way), num_returns=1)
            run = under_way[ready]
            try:
                ray.get(ready)
                results[run] = answer(run, run.record)
            except (DataError, ray.exceptions.RayError) as error:  # of a cell, or a process died
                results[run] = Outcome("failed", error=str(getattr(error, "cause", error)))
            del under_way[ready]
            write_index(index, results)
    except KeyboardInterrupt:
        for running in under_way:
            ray.cancel(running, force=True)  # its kernel notices, and ends as well
        ray.wait(list(under_way), num_returns=len(under_way), timeout=10)
        write_index(index, results | dict.fromkeys(under_way.values(), Outcome("stopped")))
        raise KeyboardInterrupt("stopped; finished runs will be skipped next time") from None
    return results


def write_index(index: Path, results: dict[Run, Outcome]) -> None:
    """Write one line per run: its name, what became of it, and its parameters."""
    lines = [
        {"run": run.record.stem, **asdict(outcome), "parameters": run.parameters}
        for run, outcome in results.items()
    ]
    with replacing(index) as draft:
        draft.write_text(layout({"runs": lines}) + "\n", encoding="utf-8")


def started_ray(retries: int) -> ModuleType:
    """Ray as this process has it, else as ``ray.init`` finds or starts it; else a `DataError`."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    os.environ.setdefault("RAY_task_oom_retries", str(retries))  # by default there is no end
    try:
        import ray

        if not ray.is_initialized():
            ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except ImportError:
        mend = 'pip install "mutmeta[sweep]"'
        raise DataError("a sweep needs Ray, which is not installed", mend) from None
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"Ray does not start ({error})", "mend what it names") from None
    return ray
