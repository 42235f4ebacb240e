"""What a run of a sweep leaves behind: an executed notebook, a record, a line of the index.

A run works in a hidden folder; its record and its executed copy are moved to their places only
when both are whole. The copy carries a stamp with the hashes of the run, of the record and of its
own cells, by which a later sweep knows that the run need not be done again.
"""

import json
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mutmeta_lib.app.notebooks import run_notebook
from mutmeta_lib.app.sweep import RECORDS, Sweep
from mutmeta_lib.app.sweep_runs import Run, code_hash, expand
from mutmeta_lib.errors import DataError
from mutmeta_lib.records.drafts import draft_of
from mutmeta_lib.records.plain import fingerprint, layout
from mutmeta_lib.records.record import read_record

STAMP = "mutmeta"
"""Where the stamp stands in the metadata of an executed copy."""


@dataclass(frozen=True)
class Outcome:
    """What became of a run; ``state`` is waiting, finished, failed or stopped.

    ``seconds`` are those of the last attempt (None when its process died), ``record`` is the
    record's hash, ``cell`` the index of the cell that failed, ``error`` the last line of its error.
    """

    state: str
    attempts: int = 0
    seconds: float | None = None
    record: str | None = None
    cell: int | None = None
    error: str | None = None

    def reason(self) -> str:
        """Why the run failed, in words.

        >>> Outcome("failed", 1, cell=3, error="ZeroDivisionError: division by zero").reason()
        'cell 3: ZeroDivisionError: division by zero'
        """
        place = "" if self.cell is None else f"cell {self.cell}: "
        return place + (self.error or "")


def execute_run(run: Run, attempt: int) -> Outcome:
    """Do one run in this process; a cell that fails and a missing record are outcomes, not errors.

    Of a run that fails, nothing is left behind.
    """
    from papermill import PapermillExecutionError

    began = time.perf_counter()
    run.folder.mkdir(parents=True, exist_ok=True)
    work = tempfile.mkdtemp(prefix=f".{run.name}.", suffix=".part", dir=run.folder)
    try:
        outcome = _execute(run, Outcome("finished", attempt), Path(work))
    except PapermillExecutionError as error:
        told = last_line(f"{error.ename}: {error.evalue}")
        outcome = Outcome("failed", attempt, cell=error.cell_index, error=told)
    except DataError as error:
        outcome = Outcome("failed", attempt, error=str(error))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return replace(outcome, seconds=round(time.perf_counter() - began, 2))


def _execute(run: Run, outcome: Outcome, work: Path) -> Outcome:
    """Run in a folder of its own, and move what came out to its place."""
    began = time.perf_counter()
    if code_hash(run.notebook) != run.code:
        raise DataError(
            "the notebook was changed after the sweep began",
            "start the sweep again",
            file=run.notebook.name,
        )
    records = work / "records"
    parameters = run.parameters | {RECORDS: str(records)}
    copy = run_notebook(run.notebook, work / run.executed.name, parameters)
    found = list(records.rglob("*.json"))
    if len(found) != 1:
        raise DataError(
            f"the notebook wrote {len(found)} records into '{RECORDS}'",
            "a run of a sweep writes one",
            file=run.notebook.name,
        )
    outcome = replace(
        outcome,
        record=read_record(found[0]).hash,
        seconds=round(time.perf_counter() - began, 2),
    )
    content = json.loads(copy.read_text(encoding="utf-8"))
    content["metadata"][STAMP] = {
        "run": run.hash,
        "record": outcome.record,
        "record_sha256": fingerprint(json.loads(found[0].read_text(encoding="utf-8"))),
        "cells_sha256": fingerprint(content["cells"]),
        "attempts": outcome.attempts,
        "seconds": outcome.seconds,
    }
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    copy.write_text(text, encoding="utf-8")
    found[0].replace(run.record)
    copy.replace(run.executed)
    return outcome


def finished(run: Run) -> Outcome | None:
    """The outcome of a run that an earlier sweep finished, or None if it must be done.

    It counts as finished when its executed copy and its record are there and whole, and the copy's
    stamp names this run, this record and the copy's own cells.
    """
    try:
        record = read_record(run.record)
        stored = fingerprint(json.loads(run.record.read_text(encoding="utf-8")))
        content = json.loads(run.executed.read_text(encoding="utf-8"))
        stamp = content["metadata"][STAMP]
        expected = {
            "run": run.hash,
            "record": record.hash,
            "record_sha256": stored,
            "cells_sha256": fingerprint(content["cells"]),
        }
        if expected.items() <= stamp.items():
            return Outcome("finished", stamp["attempts"], stamp["seconds"], record.hash)
    except (DataError, FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
        return None  # absent, cut off or changed
    except (KeyError, TypeError, AttributeError):
        return None  # something else than a sweep wrote
    return None


def planned(sweep: Sweep) -> list[tuple[Run, Outcome]]:
    """All runs of a sweep, finished or waiting; nothing runs and nothing is written."""
    return [(run, finished(run) or Outcome("waiting")) for run in expand(sweep)]


def clear(run: Run) -> None:
    """Remove the folders in which attempts at a run were killed."""
    for left in run.folder.glob(f".{run.name}.*.part"):
        shutil.rmtree(left, ignore_errors=True)


def index_path(sweep: Sweep) -> Path:
    """Where the index of a sweep is kept: beside its runs, named after its file."""
    return sweep.output / f"{sweep.file.stem}.index.json"


def write_index(
    sweep: Sweep, runs: Sequence[Run], outcomes: Mapping[str, Outcome]
) -> dict[str, Any]:
    """Write one line per run (name, state, parameters, attempts, …), all or nothing.

    ``parameters`` are those that the sweep sets. Returns what was written.
    """
    lines = [
        {"run": run.name}
        | asdict(outcomes[run.name])
        | {"profile": sweep.profile, "parameters": sweep.parameters | run.varied}
        for run in runs
    ]
    index = {"sweep": sweep.file.name, "notebook": sweep.notebook.name, "runs": lines}
    with draft_of(index_path(sweep)) as draft:
        draft.write_text(layout(index) + "\n", encoding="utf-8")
    return index


def last_line(text: str) -> str:
    r"""The last line of an error that says something.

    >>> last_line("RuntimeError: in the loop\n  step 3 is NaN\n\n")
    'step 3 is NaN'
    """
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
