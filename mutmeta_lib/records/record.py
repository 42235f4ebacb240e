"""A record is the only way a number leaves the library: what was run, on what, and what came out.

Records are JSON files that can be read, compared and committed. A page prints numbers from
records only, and asks for a result by its parameters: a record with the same parameters is
loaded, otherwise the experiment runs (see ``result``).
"""

import inspect
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from mutmeta_lib.errors import DataError
from mutmeta_lib.records.drafts import draft_of
from mutmeta_lib.records.machine import environment, peak_memory_mb
from mutmeta_lib.records.plain import canonical, fingerprint, layout, plain

__all__ = [
    "Record",
    "describe",
    "environment",
    "name_record",
    "number",
    "peak_memory_mb",
    "read_record",
    "recorded_parameters",
    "result",
    "write_record",
]

NOT_PARAMETERS = ("profile", "progress", "workers", "checkpoint_dir", "cache_dir", "log_dir")
"""Arguments of an experiment that cannot change its result and are therefore not recorded."""


FOLDERS = ("data_dir", "encoder", "reference_dir", "release_dir")
"""Arguments that may name a folder."""


def recorded_parameters(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of an experiment as a record keeps them.

    Tuples become lists, and of a folder only the last part is kept: a record must not name places
    of one machine; the hashes of data and encoder say what was really used.

    >>> recorded_parameters({"shots": (0, 5), "encoder": "models/esm2", "workers": 2})
    {'shots': [0, 5], 'encoder': 'esm2'}
    """
    kept = {}
    for name, value in arguments.items():
        if name not in NOT_PARAMETERS:
            folder = name in FOLDERS and isinstance(value, str)
            kept[name] = plain(Path(value).name if folder else value)
    return kept


@dataclass(frozen=True)
class Record:
    """One run of one experiment. All fields hold plain JSON values (NaN becomes None).

    ``tables`` may be given as DataFrames; they are kept as ``{"columns": [...], "rows": [...]}``.
    ``numbers`` maps a name to what ``number`` returns, ``data`` an assay id to its sha256,
    ``seconds`` a phase to its duration, ``created`` is an ISO date and time (UTC).
    """

    experiment: str
    profile: str
    parameters: dict[str, Any]
    data: dict[str, str]
    encoder: dict[str, Any]
    environment: dict[str, Any]
    seconds: dict[str, float]
    peak_memory_mb: float
    created: str
    numbers: dict[str, dict[str, Any]]
    tables: dict[str, dict[str, list]]

    def __post_init__(self):
        for field in fields(self):
            object.__setattr__(self, field.name, plain(getattr(self, field.name)))
        try:
            datetime.fromisoformat(self.created)
        except (TypeError, ValueError):
            raise DataError(
                f"'{self.created}' is not a date and time", "write it as 2026-01-31T12:00:00+00:00"
            ) from None

    @property
    def hash(self) -> str:
        """What identifies the computation, 12 hexadecimal digits.

        It covers the experiment, its parameters, the hashes of the data and of the encoder. It
        does not depend on the machine, the time or the results, so the same question asked
        elsewhere has the same hash.
        """
        question = [self.experiment, self.parameters, self.data, self.encoder.get("sha256")]
        return fingerprint(question)[:12]

    @cached_property
    def digest(self) -> str:
        """What identifies this run, results included, 12 hexadecimal digits.

        The file holds it in full as ``content_sha256``. Pages and executed notebooks print it, so
        that a reader can tell which record a number or a figure was drawn from.
        """
        return fingerprint(_content(self))[:12]

    def table(self, name: str) -> pd.DataFrame:
        """One of the tables, missing values as NaN.

        Raises:
            KeyError: there is no table of this name; the message lists those there are.

        """
        if name not in self.tables:
            raise KeyError(f"no table '{name}' in this record, only {sorted(self.tables)}")
        kept = self.tables[name]
        frame = pd.DataFrame(kept["rows"], columns=kept["columns"])
        unknown = [column for column in frame if len(frame) and frame[column].isna().all()]
        return frame.astype(dict.fromkeys(unknown, float))


def number(
    value: float,
    low: float | None = None,
    high: float | None = None,
    n: int | None = None,
    unit: str = "",
) -> dict[str, Any]:
    """A number a page may print: value, interval, how many units it averages, unit of measure.

    >>> number(0.5, 0.4, 0.6, 24)
    {'value': 0.5, 'low': 0.4, 'high': 0.6, 'n': 24, 'unit': ''}
    >>> number(float("nan"))["value"] is None
    True
    """
    made = plain({"value": value, "low": low, "high": high, "n": n, "unit": unit})
    if made["low"] is not None and made["high"] is not None and made["low"] > made["high"]:
        raise ValueError(f"the interval {low} to {high} is upside down")
    return made


def _content(record: Record) -> dict[str, Any]:
    return {field.name: getattr(record, field.name) for field in fields(record)}


def write_record(record: Record, path: str | os.PathLike[str]) -> None:
    """Write a record as JSON, all or nothing: a reader never meets half a file."""
    content = _content(record)
    stored = {"hash": record.hash, "content_sha256": fingerprint(content), **content}
    with draft_of(Path(path)) as draft:
        draft.write_text(layout(stored) + "\n", encoding="utf-8")


def read_record(path: str | os.PathLike[str]) -> Record:
    """Read a record and check that it is what was written.

    Raises:
        DataError: no such file, not JSON, missing or unknown entries, or content that does not
            agree with the stored hashes (edited by hand, or a merge gone wrong).

    """
    path = Path(path)
    mend = "compute it anew or restore the committed file"
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError("there is no such record", "run the experiment first", file=path) from None
    except json.JSONDecodeError as error:
        raise DataError(f"not a record ({error.msg})", mend, file=path, row=error.lineno) from None
    except UnicodeDecodeError:
        raise DataError("not a record (not UTF-8 text)", mend, file=path) from None
    names = [field.name for field in fields(Record)]
    expected = {"hash", "content_sha256", *names}
    if not isinstance(stored, dict) or set(stored) != expected:
        odd = sorted(expected.symmetric_difference(stored if isinstance(stored, dict) else ()))
        raise DataError(f"not a record (missing or unknown: {', '.join(odd)})", mend, file=path)
    content = {name: stored[name] for name in names}
    if fingerprint(content) != stored["content_sha256"]:
        raise DataError("the content was changed after it was written", mend, file=path)
    try:
        record = Record(**content)
    except DataError as error:
        raise error.at(file=path) from None
    if record.hash != stored["hash"]:
        raise DataError("the stored hash is not that of the parameters", mend, file=path)
    return record


def result(
    experiment: Callable[..., Record],
    parameters: Mapping[str, Any],
    path: str | os.PathLike[str],
    *,
    recompute: bool,
) -> tuple[Record, bool]:
    """Ask for a result by its parameters; returns the record and whether it was loaded.

    A record at ``path`` is loaded if its parameters equal the requested ones, completed with the
    defaults of ``experiment``. Otherwise, or with ``recompute``, ``experiment(**parameters)``
    runs and its record is written to ``path``.
    """
    signature = inspect.signature(experiment)
    if any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()):
        raise TypeError(
            "the experiment takes any parameter, so its defaults are unknown; pass it as it is, "
            "or with functools.partial"
        )
    asked = signature.bind(**parameters)
    asked.apply_defaults()
    if not recompute and Path(path).exists():
        found = read_record(path)
        if canonical(found.parameters) == canonical(recorded_parameters(asked.arguments)):
            return found, True
    record = experiment(**parameters)
    write_record(record, path)
    return record, False


def describe(record: Record, loaded: bool) -> str:
    """Say in one sentence where a page's numbers come from, and name the record."""
    where = record.environment.get("device", "an unknown device")
    threads = record.environment.get("threads")
    if threads is not None:
        where += f" ({threads} thread{'' if threads == 1 else 's'})"
    took = duration(sum(record.seconds.values()))
    when = f"loaded; computed on {record.created[:10]}" if loaded else "computed just now"
    return f"Record {name_record(record)}: {when} on {where} in {took}."


def name_record(record: Record) -> str:
    """Experiment, profile and digest of a record, as ``few_shot@full 7e5f1c09a2b4``."""
    return f"{record.experiment}@{record.profile} {record.digest}"


def duration(seconds: float) -> str:
    """A duration for people.

    >>> duration(0.25), duration(42.4), duration(725), duration(4000)
    ('0.25 s', '42 s', '12 min', '1 h 7 min')
    """
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
