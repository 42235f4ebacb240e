"""The runs of a sweep: every combination of its axes, named after what it asks.

The name holds a hash of the notebook's code, all parameters, and the contents of the data and the
encoder they name. When one of these changes, so does the name, and the run is a new one.
"""

import hashlib
import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mutmeta_lib.app.notebooks import (
    check_parameters,
    default_parameters,
    profile_parameters,
    read_notebook,
)
from mutmeta_lib.app.sweep import RECORDS, Sweep
from mutmeta_lib.records.plain import fingerprint
from mutmeta_lib.records.record import NOT_PARAMETERS


@dataclass(frozen=True)
class Run:
    """One run of a sweep: all its parameters, those that vary in the sweep, where it is kept.

    ``hash`` covers what the run asks, ``code`` the notebook's code alone.
    """

    notebook: Path
    folder: Path
    hash: str
    code: str
    parameters: dict[str, Any]
    varied: dict[str, Any]

    @property
    def name(self) -> str:
        """The notebook's name and the hash of the question."""
        return f"{self.notebook.stem}-{self.hash}"

    @property
    def executed(self) -> Path:
        """The executed copy of the notebook."""
        return self.folder / f"{self.name}.ipynb"

    @property
    def record(self) -> Path:
        """The record of the run."""
        return self.folder / f"{self.name}.json"


def expand(sweep: Sweep) -> tuple[Run, ...]:
    """Every combination of the axes as a run, the last axis (the seeds) fastest.

    Raises:
        DataError: a run's parameters do not fit the notebook.

    """
    defaults = default_parameters(sweep.notebook)
    common = profile_parameters(sweep.notebook, sweep.profile) if sweep.profile else {}
    code = code_hash(sweep.notebook)
    ignored = {*NOT_PARAMETERS, RECORDS} - set(sweep.axes)
    hashes: dict[Path, str] = {}
    runs = []
    for values in itertools.product(*sweep.axes.values()):
        varied = dict(zip(sweep.axes, values, strict=True))
        parameters = check_parameters(sweep.notebook, common | sweep.parameters | varied)
        asked = {k: v for k, v in (defaults | parameters).items() if k not in ignored}
        contents = {}
        for name, value in asked.items():
            for found in named_paths(name, value, sweep.notebook.parent):
                if found not in hashes:
                    hashes[found] = content_hash(found)
                contents.setdefault(name, []).append(hashes[found])
        question = fingerprint([sweep.notebook.stem, code, asked, contents])[:12]
        runs.append(Run(sweep.notebook, sweep.output, question, code, parameters, varied))
    return tuple(runs)


def code_hash(notebook: Path) -> str:
    """A hash of a notebook's code cells; text and outputs do not count."""
    cells = read_notebook(notebook).cells
    return fingerprint([cell.source for cell in cells if cell.cell_type == "code"])


def named_paths(name: str, value: Any, folder: Path) -> list[Path]:
    """Files and folders that a parameter names, seen from the notebook's folder.

    A text that is the path of a file names it. Folders are named by ``encoder`` and parameters
    that end in ``_dir`` only: no word that happens to be a folder's name is taken for one.
    ``demo`` as ``data_dir`` is the bundled data.
    """
    if name == "data_dir" and value == "demo":
        from mutmeta_lib.data.assays import demo_dir

        return [demo_dir()]
    texts = [item for item in (value if isinstance(value, list) else [value]) if item]
    paths = [folder / item for item in texts if isinstance(item, str)]
    is_folder = name == "encoder" or name.endswith("_dir")
    return [p for p in paths if os.path.isfile(p) or (is_folder and os.path.isdir(p))]


def content_hash(path: Path) -> str:
    """The sha256 of a file, or of all files of a folder with their names, but hidden ones."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    names = {p.relative_to(path).as_posix(): p for p in path.rglob("*") if p.is_file()}
    shown = {n: p for n, p in names.items() if not any(x[0] == "." for x in n.split("/"))}
    return fingerprint({name: content_hash(shown[name]) for name in sorted(shown)})
