"""A sweep: one notebook, many parameters and seeds, in one YAML file. Nothing runs here.

The file is checked as a whole, every parameter against the notebook, and every problem is told.
Every combination of the grid and the seeds is a run, named after what it asks: a hash of the
notebook's code, all parameters, and the contents of the data and the encoder that they name.
"""

import hashlib
import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError

from mutmeta_lib.app.console import unknown
from mutmeta_lib.app.notebooks import (
    check_parameters,
    default_parameters,
    profile_parameters,
    read_notebook,
    read_yaml,
)
from mutmeta_lib.errors import DataError
from mutmeta_lib.records.files import canonical, fingerprint
from mutmeta_lib.records.record import NOT_PARAMETERS

RECORDS = "records_dir"
"""The notebook's parameter that says where records go. Every run of a sweep gets a folder."""

Values = Annotated[list, Field(min_length=1)]
Seeds = Annotated[
    dict[str, Annotated[list[int], Field(min_length=1)]],
    Field(max_length=1),
    BeforeValidator(lambda value: {"seed": value} if isinstance(value, list) else value),
]
Share = Annotated[float, Field(lt=1)] | Annotated[float, Field(multiple_of=1)]
Address = Annotated[str, Field(pattern=r"^(auto|local|.+:\d+)$")]


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
    address: Address | None = Field(None, description="write host:port, or null for this machine")
    _file: Path = PrivateAttr()

    def model_post_init(self, context: Path) -> None:
        """Keep the file, which validation is told as its context."""
        self._file = context

    def place(self, path: str) -> Path:
        """A path that is written in the file, which is relative to it."""
        return (self._file.parent / path).resolve()

    @property
    def index(self) -> Path:
        """Where the index of the runs is kept: beside them, named after the file."""
        return self.place(self.output) / f"{self._file.stem}.index.json"


def read_sweep(path: Path) -> tuple[Sweep | None, list[DataError]]:
    """What a sweep file says, and everything that keeps it from being run."""
    try:
        content = {key: value for key, value in read_yaml(path).items() if value is not None}
    except DataError as error:
        return None, [error]
    wrong: dict[Any, DataError] = {}
    try:
        sweep = Sweep.model_validate(content, context=path)
    except ValidationError as found:
        for error in found.errors():
            wrong.setdefault(error["loc"][0], _key_problem(error, content))
        sound = {key: value for key, value in content.items() if key not in wrong}
        sweep = None
        if "notebook" in sound:
            sweep = Sweep.model_validate({"output": ""} | sound, context=path)
    problems = [*wrong.values(), *(_parameter_problems(sweep) if sweep else ())]
    return sweep, [problem.at(file=path) for problem in problems]


def _key_problem(error: Any, content: dict) -> DataError:
    """An error of pydantic in our words."""
    key, known = error["loc"][0], Sweep.model_fields
    if key not in known:
        return unknown("key", key, known)
    problem = "is missing" if error["type"] == "missing" else f"is {content[key]!r}"
    return DataError(f"'{key}' {problem}", known[key].description)


def _parameter_problems(sweep: Sweep) -> Iterator[DataError]:
    """Everything in which the file and its notebook disagree."""
    notebook = sweep.place(sweep.notebook)
    try:
        defaults = default_parameters(notebook)
    except DataError as error:
        yield DataError(f"notebook '{sweep.notebook}': {error.problem}", error.mend)
        return
    if RECORDS not in defaults:
        problem = f"notebook '{notebook.name}' has no parameter '{RECORDS}'"
        yield DataError(problem, "add it and write the record there: every run keeps its own")
    try:
        if sweep.profile is not None:
            check_parameters(notebook, profile_parameters(notebook, sweep.profile))
    except DataError as error:
        yield DataError(f"profile '{sweep.profile}': {error.problem}", error.mend)
    set_by = {RECORDS: "the sweep itself"}
    single = {name: [value] for name, value in sweep.parameters.items()}
    for key, axis in (("parameters", single), ("grid", sweep.grid), ("seeds", sweep.seeds)):
        for name, values in axis.items():
            try:
                _check_values(notebook, name, values)
            except DataError as error:
                also = " ('seeds: {name: [0, 1]}' sets another)" if key == "seeds" else ""
                yield DataError(f"{key}.{name}: {error.problem}", error.mend + also)
            if name in set_by:
                yield DataError(f"{key}.{name} is set by {set_by[name]}", "leave one of them out")
            set_by[name] = f"{key}.{name}"


def _check_values(notebook: Path, name: str, values: list) -> None:
    """Refuse values that the notebook or a record cannot take; equal ones would be one run."""
    seen = set()
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
    defaults, code, axes = (
        default_parameters(notebook),
        code_hash(notebook),
        sweep.grid | sweep.seeds,
    )
    common = profile_parameters(notebook, sweep.profile) if sweep.profile else {}
    ignored = {*NOT_PARAMETERS, RECORDS} - set(axes)
    hashes: dict[Path, str] = {}
    runs = []
    for values in itertools.product(*axes.values()):
        varied = dict(zip(axes, values, strict=True))
        parameters = check_parameters(notebook, common | sweep.parameters | varied)
        asked = {k: v for k, v in (defaults | parameters).items() if k not in ignored}
        contents: dict[str, list[str]] = {}
        for name, value in asked.items():
            for found in named_paths(name, value, notebook.parent):
                hashes[found] = hashes.get(found) or content_hash(found)
                contents.setdefault(name, []).append(hashes[found])
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
