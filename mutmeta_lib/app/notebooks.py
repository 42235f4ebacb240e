"""Notebooks as functions of their parameters: checked before anything runs, then executed.

The cell tagged ``parameters`` is read without running it; a name it does not assign, or a value of
another type than its default, is refused. (papermill only warns, and its ``inspect_notebook`` loses
lines with a second ``=``, a ``#`` in a text or ``int | None``.)
"""

import ast
import json
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Union

import nbformat
import yaml
from pydantic import ConfigDict, Strict, TypeAdapter, ValidationError

from mutmeta_lib.app.console import unknown
from mutmeta_lib.errors import DataError, located
from mutmeta_lib.records.files import check_writable, replacing


def read_notebook(notebook: str | Path) -> nbformat.NotebookNode:
    """Read an .ipynb file; a missing or broken one is a `DataError`."""
    path = Path(notebook)
    if not path.is_file():
        known = [near.name for near in path.parent.glob("*.ipynb")]
        raise unknown("notebook", path.name, known).at(file=notebook)
    try:
        if all(isinstance(cell, dict) for cell in json.loads(path.read_bytes())["cells"]):
            return nbformat.read(path, as_version=4)
    except (ValueError, TypeError, KeyError, nbformat.ValidationError):
        pass  # no JSON, no text, or no notebook: told as one
    raise DataError("this is not a Jupyter notebook", "give an .ipynb file", file=notebook)


def default_parameters(notebook: str | Path) -> dict[str, Any]:
    """Name → default in the cell tagged ``parameters``; a `DataError` if one is not a literal."""
    for cell in read_notebook(notebook).cells:
        if cell.cell_type == "code" and "parameters" in cell.metadata.get("tags", []):
            return parse_defaults(cell.source, file=Path(notebook).name)
    return {}


def parse_defaults(source: str, *, file: str | None = None) -> dict[str, Any]:
    """Read ``name = literal`` lines.

    >>> parse_defaults("shots = [0, 5]  # labels\\nencoder: str | None = 'tiny'")
    {'shots': [0, 5], 'encoder': 'tiny'}
    """
    defaults, problem = {}, "the parameters are not lines of Python"
    try:
        for line in ast.parse(source).body:
            if isinstance(line, ast.Assign | ast.AnnAssign) and line.value is not None:
                targets = line.targets if isinstance(line, ast.Assign) else [line.target]
                for name in [target.id for target in targets if isinstance(target, ast.Name)]:
                    problem = f"the default of parameter '{name}' is computed"
                    defaults[name] = ast.literal_eval(line.value)
    except (SyntaxError, ValueError):
        mend = "write a literal (number, text, list) in the parameters cell"
        raise DataError(problem, mend, file=file) from None
    return defaults


def _type_of(default: Any) -> Any:
    """The type of what may stand in the place of a default; anything for ``None``."""
    if isinstance(default, list | tuple):
        items = Union[tuple(map(_type_of, default))] if default else Any  # noqa: UP007
        return Annotated[list[items], Strict(False)]  # a tuple will do
    return Any if default is None else type(default)


def check_parameters(notebook: str | Path, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters, each of the type of its default; whole numbers may stand for decimal ones.

    An unknown name, or a value of another type, is a `DataError`.
    """
    defaults, file, checked = default_parameters(notebook), Path(notebook).name, {}
    for name, value in parameters.items():
        if name not in defaults:
            raise unknown("parameter", name, defaults).at(file=file)
        wanted = TypeAdapter(_type_of(defaults[name]), config=ConfigDict(strict=True))
        try:
            checked[name] = wanted.validate_python(value)
        except ValidationError as error:
            got = error.errors()[0]["input"]  # the first wrong item of a list
            problem = f"parameter '{name}' got {got!r} ({type(got).__name__})"
            mend = f"its default is {defaults[name]!r}"
            raise DataError(problem, mend, file=file) from None
    return checked


def parse_value(text: str, default: Any) -> Any:
    """Read a value typed on the command line: text where the default is text, else YAML.

    >>> parse_value("10", "tiny"), parse_value("1e-3", 0.5), parse_value("ridge,gp", ["maml"])
    ('10', 0.001, ['ridge', 'gp'])
    """
    if isinstance(default, str):
        return text
    bare = isinstance(default, list) and not text.startswith("[")
    try:
        return None if text == "None" else yaml.load(f"[{text}]" if bare else text, Loader=_Yaml)
    except (yaml.YAMLError, DataError):
        return text


class _Yaml(yaml.SafeLoader):
    """YAML that takes 1e-3 for a number, and refuses a key written twice: the last would win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [key.value for key, _ in node.value]
        for index, (key, _) in enumerate(node.value):
            if key.value in keys[:index]:
                row = key.start_mark.line + 1
                raise DataError(f"'{key.value}' is written twice", "keep one of them", row=row)
        return super().construct_mapping(node, deep=deep)


_Yaml.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def read_yaml(path: Path) -> dict[Any, Any]:
    """A YAML file as a mapping; what keeps it from being read is a `DataError`."""
    with located(file=path):
        try:
            content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Yaml) or {}
        except FileNotFoundError:
            raise DataError("there is no such file", "give the path of a .yml") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            mark = getattr(error, "problem_mark", None)
            row = None if mark is None else mark.line + 1
            raise DataError("this is not valid YAML", "mend the syntax", row=row) from None
        if not isinstance(content, dict):
            raise DataError("this is no mapping", "write 'name: value' lines")
    return content


def profile_parameters(notebook: Path, profile: str) -> dict[str, Any]:
    """What ``params/<profile>.yml`` beside a notebook says of it; a `DataError` if nothing."""
    path = notebook.parent / "params" / f"{profile}.yml"
    if not path.is_file():
        raise unknown("profile", profile, sorted(p.stem for p in path.parent.glob("*.yml")))
    entry = read_yaml(path).get(notebook.stem, "nothing")
    if not isinstance(entry or {}, dict):
        problem = f"the profile has no 'name: value' lines for '{notebook.stem}'"
        raise DataError(problem, f"add '{notebook.stem}:' (it may be empty)", file=path)
    return entry or {}


def run_notebook(
    notebook: Path, output: Path, given: Mapping[str, Any] | None = None, profile: str | None = None
) -> Path:
    """Execute a notebook in its own folder and write the executed copy, which is returned.

    The ``given`` parameters override the profile, which overrides the notebook's defaults. The
    copy is written whole, only when every cell succeeded, and holds no path of this machine.
    Bad input is a `DataError` before anything runs, a cell that fails a ``PapermillExecutionError``
    whose ``cell_index`` counts the notebook's own cells, from 1.
    """
    chosen = profile_parameters(notebook, profile) if profile else {}
    chosen = check_parameters(notebook, chosen | dict(given or {}))
    if output.suffix != ".ipynb":
        raise DataError("an executed copy is a notebook", "name it .ipynb", file=output)
    if output.exists() and output.samefile(notebook):
        raise DataError("the output is the notebook itself", "choose another name", file=output)
    check_writable(output)

    import papermill  # slow to import, and only needed here

    # The kernel remarks on its socket and its own shutdown; a cell that fails raises.
    how = {"kernel_name": "python3", "language": "python", "progress_bar": sys.stderr.isatty()}
    how["extra_arguments"] = ["--IPKernelApp.log_level=CRITICAL"]
    with tempfile.TemporaryDirectory() as folder:
        executed = Path(folder, "executed.ipynb")
        places = {"input_path": str(notebook), "output_path": str(executed)}
        try:
            papermill.execute_notebook(**places, parameters=chosen, cwd=str(notebook.parent), **how)
        except papermill.PapermillExecutionError as error:
            # papermill counts from 0, and its cell of parameters as well, which stands before.
            error.cell_index += 1 - bool(chosen)
            raise
        content = scrub(nbformat.read(executed, as_version=4), machine_paths(notebook, chosen))
    clean = nbformat.from_dict(content)
    clean.metadata.papermill |= {"input_path": notebook.name, "output_path": output.name}
    for cell in clean.cells:  # when each cell began and ended would be most of a diff
        for timing in ("execution", "papermill"):
            cell.metadata.pop(timing, None)
    with replacing(output) as draft:
        nbformat.write(clean, draft)
    return output


def machine_paths(notebook: Path, parameters: Mapping[str, Any]) -> dict[str, str]:
    """Paths of this machine that must not stand in an executed copy, and what replaces them."""
    folder = notebook.resolve().parent
    given = [v for v in parameters.values() if isinstance(v, str) and os.path.isabs(v)]
    paths = {value: Path(value).name for value in given} | {sys.prefix: "<python>"}
    paths |= {sys.base_prefix: "<python>", str(Path.home()): "~", tempfile.gettempdir(): "<tmp>"}
    paths |= {str(folder.parent): "..", str(folder): "."}
    return {path: shown for path, shown in paths.items() if path != os.sep}


def scrub(content: Any, paths: Mapping[str, str]) -> Any:
    """Replace machine paths in every text of a notebook, the longest first; pictures stay.

    >>> scrub({"text": ["/home/ada/mutmeta/a.csv", 3]}, {"/home/ada/mutmeta": "."})
    {'text': ['./a.csv', 3]}
    """
    if isinstance(content, dict):
        pictures = ("image/png", "image/jpeg", "application/pdf")  # in base64
        return {k: v if k in pictures else scrub(v, paths) for k, v in content.items()}
    if isinstance(content, list):
        return [scrub(item, paths) for item in content]
    if not isinstance(content, str):
        return content
    content = re.sub(r"\S*/ipykernel_\d+/\d+\.py", "<cell>", content)
    for path in sorted(paths, key=len, reverse=True):
        # Whole components only: /home/ada touches neither /home/adam nor a.org/home/ada.
        whole = r"(?<![\w.~<-])" + re.escape(path.rstrip("/")) + r"(?![\w.-])"
        content = re.sub(whole, lambda _, to=paths[path]: to, content)
    return content
