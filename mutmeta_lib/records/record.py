"""A record is how a number leaves the library: what was run, on what, and what came out."""

import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd

from mutmeta_lib.errors import DataError, located
from mutmeta_lib.records.files import canonical, fingerprint, layout, plain, replacing

NOT_PARAMETERS = ("profile", "progress", "workers", "checkpoint_dir", "cache_dir")
"""Arguments of an experiment that cannot change its result and are therefore not recorded."""

FOLDERS = ("data_dir", "encoder", "reference_dir", "release_dir")
"""Arguments that may name a folder."""

PACKAGES = "mutmeta, numpy, pandas, scikit-learn, scipy, torch, transformers, learn2learn"
"""Packages whose versions can change a number. One that is not installed is left out."""


def recorded_parameters(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of an experiment as a record keeps them, without the places of one machine.

    >>> recorded_parameters({"shots": (0, 5), "data_dir": "/home/ada/mine", "workers": 2})
    {'shots': [0, 5], 'data_dir': 'mine'}
    """
    return {
        name: Path(value).name if name in FOLDERS and isinstance(value, str) else plain(value)
        for name, value in arguments.items()
        if name not in NOT_PARAMETERS
    }


def shared_parameters(first: Mapping[str, Any], *others: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of the first of several, with what each other one changes under ``and``."""
    changed = [{key: value for key, value in one.items() if value != first[key]} for one in others]
    return {**first, "and": changed} if others else {**first}


def differing(found: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """Parameters of both whose values differ; notebooks write ``x or None``: empty is missing."""
    both = [name for name in asked if name in found]
    return [n for n in both if canonical(found[n] or None) != canonical(asked[n] or None)]


@dataclass(frozen=True)
class Record:
    """One run of one experiment, as plain JSON values (NaN becomes None).

    ``data`` maps an assay id to its SHA-256, ``seconds`` a phase to its duration, ``numbers`` a
    name to what `number` returns; ``tables`` are given as DataFrames, ``created`` as ISO time, UTC.
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

    @property
    def hash(self) -> str:
        """The question, 12 digits: experiment, parameters, hashes of data and encoder."""
        question = [self.experiment, self.parameters, self.data, self.encoder.get("sha256")]
        return fingerprint(question)[:12]

    @property
    def digest(self) -> str:
        """The run, results included, 12 digits: by this, pages tell which record they show."""
        return fingerprint(asdict(self))[:12]

    def table(self, name: str) -> pd.DataFrame:
        """One of the tables, missing values as NaN; a `KeyError` lists those there are."""
        if name not in self.tables:
            raise KeyError(f"no table '{name}' in this record, only {sorted(self.tables)}")
        kept = self.tables[name]
        frame = pd.DataFrame(kept["rows"], columns=kept["columns"])
        unknown = [column for column in frame if len(frame) and frame[column].isna().all()]
        return frame.astype(dict.fromkeys(unknown, float))


def number(
    value: float, low: float | None = None, high: float | None = None, n: int | None = None, unit=""
) -> dict[str, Any]:
    """A number a page may print: value, interval, how many units it averages, unit of measure."""
    made = plain({"value": value, "low": low, "high": high, "n": n, "unit": unit})
    if None not in (made["low"], made["high"]) and made["low"] > made["high"]:
        raise ValueError(f"the interval {low} to {high} is upside down")
    return made


def write_record(record: Record, path: str | os.PathLike[str]) -> None:
    """Write a record as JSON, all or nothing."""
    content = asdict(record)
    stored = {"hash": record.hash, "content_sha256": fingerprint(content), **content}
    with replacing(path) as temporary:
        temporary.write_text(layout(stored) + "\n", encoding="utf-8")


def read_record(path: str | os.PathLike[str]) -> Record:
    """Read a record; a `DataError` says if it is not there or not what was written."""
    mend = "compute it anew or restore the committed file"
    with located(file=path):
        try:
            stored = json.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise DataError("there is no such record", "run the experiment first") from None
        except ValueError as error:  # no UTF-8, or no JSON
            raise DataError(f"not a record ({error})", mend) from None
        names = {"hash", "content_sha256", *(field.name for field in fields(Record))}
        if odd := names ^ set(stored if isinstance(stored, dict) else ()):
            raise DataError(f"not a record (missing or unknown: {', '.join(sorted(odd))})", mend)
        hash, sha256 = stored.pop("hash"), stored.pop("content_sha256")
        if fingerprint(stored) != sha256 or (record := Record(**stored)).hash != hash:
            raise DataError("the content was changed after it was written", mend)
    return record


def describe(record: Record, loaded: bool) -> str:
    """Say in one sentence where a page's numbers come from, and name the record."""
    device, threads = (record.environment.get(name, "?") for name in ("device", "threads"))
    where = f"{device} ({threads} thread{'' if threads == 1 else 's'})"
    when = f"loaded; computed on {record.created[:10]}" if loaded else "computed just now"
    took = duration(sum(record.seconds.values()))
    return f"Record {name_record(record)}: {when} on {where} in {took}."


def name_record(record: Record) -> str:
    """Experiment, profile and digest of a record, as ``few_shot@full 7e5f1c09a2b4``."""
    return f"{record.experiment}@{record.profile} {record.digest}"


def duration(seconds: float) -> str:
    """A duration for people.

    >>> duration(0.25), duration(42.4), duration(725), duration(4000)
    ('0.25 s', '42 s', '12 min', '1 h 7 min')
    """
    if seconds < 120:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def environment(device: str = "cpu") -> dict[str, Any]:
    """Python, processor, device (a name of torch's, or ``auto``), threads, packages and commit."""
    import torch  # slow to import, and a page that only reads records does not need it

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    # On Linux the standard library does not know the processor's name.
    processor = _kernel_says("/proc/cpuinfo", "model name") or platform.processor()
    is_cuda = device.startswith("cuda")
    packages = {}
    for name in PACKAGES.split(", "):
        with suppress(PackageNotFoundError):
            packages[name] = version(name)
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": processor,
        "device": torch.cuda.get_device_name(device) if is_cuda else f"CPU, {processor}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "packages": packages,
        "commit": commit_of(Path(__file__).parents[1]),
    }


def peak_memory_mb() -> float:
    """The most resident memory this process ever held, in MB (10⁶ bytes); NaN on Windows."""
    # Not getrusage on Linux: there its peak includes what the parent held before it started us.
    if kept := _kernel_says("/proc/self/status", "VmHWM"):
        return int(kept.split()[0]) * 1024 / 1e6
    with suppress(ImportError):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # macOS counts in bytes
    return float("nan")


def _kernel_says(file: str, name: str) -> str:
    """The value of a line ``name: value`` of a Linux kernel's file; empty where there is none."""
    with suppress(FileNotFoundError):
        text = Path(file).read_text(encoding="utf-8", errors="replace")
        if found := re.search(rf"^{name}\s*:\s*(.+)", text, re.M):
            return found[1].strip()
    return ""


def commit_of(library: Path) -> str:
    """The commit of a library's own repository, ``-changed`` if it differs, or ``unknown``."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(library), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "errors.py")
        return git("rev-parse", "HEAD") + ("-changed" if git("status", "--porcelain", ".") else "")
    except (FileNotFoundError, subprocess.CalledProcessError):
        return "unknown"
