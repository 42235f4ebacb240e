"""Notebooks as functions of their parameters: checked before anything runs, then executed.

Stock papermill warns about an unknown parameter and runs for an hour without it. Here the cell
tagged ``parameters`` is read first, as Python and without running it; a name it does not assign, or
a value of another type than its default, is refused. (papermill's ``inspect_notebook`` reads lines
by a pattern, and loses those with a second ``=``, a ``#`` in a text or ``int | None``.)
"""

import ast
import difflib
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

from mutmeta_lib.errors import DataError
from mutmeta_lib.records.drafts import check_writable, draft_of

WORDS = {bool: "true or false", int: "whole number", float: "decimal number", str: "text"}
BINARY = ("image/png", "image/jpeg", "application/pdf")
"""Base64 in a notebook's outputs, which must not be searched for paths."""


def read_notebook(notebook: str | Path) -> nbformat.NotebookNode:
    """Read an .ipynb file; a missing or broken one is a `DataError`."""
    path = Path(notebook)
    if not path.is_file():
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.ipynb")])
        hint = f"did you mean {near[0]}?" if near else "give the path of an .ipynb file"
        raise DataError("there is no such notebook", hint, file=notebook)
    try:
        content = json.loads(path.read_bytes())
        cells = content.get("cells") if isinstance(content, dict) else None
        if isinstance(cells, list) and all(isinstance(cell, dict) for cell in cells):
            return nbformat.read(path, as_version=4)
    except (ValueError, nbformat.ValidationError):
        pass  # no JSON, no text, or no notebook: told as one
    raise DataError("this is not a Jupyter notebook", "give an .ipynb file", file=notebook)


def default_parameters(notebook: str | Path) -> dict[str, Any]:
    """Name → default, in the order of the cell tagged ``parameters``; empty without such a cell.

    Raises:
        DataError: the notebook cannot be read, or a default is not a literal.

    """
    for cell in read_notebook(notebook).cells:
        if cell.cell_type == "code" and "parameters" in cell.metadata.get("tags", []):
            return parse_defaults(cell.source, file=Path(notebook).name)
    return {}


def parse_defaults(source: str, *, file: str | None = None) -> dict[str, Any]:
    """Read ``name = literal`` lines.

    >>> parse_defaults("shots = [0, 5]  # labels\\nencoder: str | None = 'tiny'")
    {'shots': [0, 5], 'encoder': 'tiny'}
    """
    defaults = {}
    mend = "write a literal (number, text, list) in the parameters cell"
    try:
        lines = ast.parse(source).body
    except SyntaxError:
        raise DataError("its parameters are not lines of Python", mend, file=file) from None
    for line in lines:
        if not isinstance(line, ast.Assign | ast.AnnAssign) or line.value is None:
            continue
        targets = line.targets if isinstance(line, ast.Assign) else [line.target]
        for target in [target for target in targets if isinstance(target, ast.Name)]:
            try:
                defaults[target.id] = ast.literal_eval(line.value)
            except ValueError:
                problem = f"the default of parameter '{target.id}' is not a plain value"
                raise DataError(problem, mend, file=file) from None
    return defaults


def type_of(default: Any) -> Any:
    """The type of what may stand in the place of a default; anything for ``None``.

    >>> type_of([0, 5]), type_of(0.5)
    (typing.Annotated[list[int], Strict(strict=False)], <class 'float'>)
    """
    if default is None:
        return Any
    if isinstance(default, list | tuple):
        items = Union[tuple(map(type_of, default))] if default else Any  # noqa: UP007
        return Annotated[list[items], Strict(False)]  # a tuple will do
    return type(default)


def kind(value: Any) -> str:
    """Name a value's type in plain words.

    >>> kind(1), kind([0.5]), kind([])
    ('whole number', 'list of decimal number', 'list')
    """
    if isinstance(value, list | tuple):
        return f"list of {kind(value[0])}" if value else "list"
    return "nothing" if value is None else WORDS.get(type(value), type(value).__name__)


def check_parameters(notebook: str | Path, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters, each of the type of its default; whole numbers may stand for decimal ones.

    Raises:
        DataError: an unknown name (with the nearest known one) or a value of another type.

    """
    defaults, file = default_parameters(notebook), Path(notebook).name
    checked = {}
    for name, value in parameters.items():
        if name not in defaults:
            near = difflib.get_close_matches(name, defaults, n=1)
            known = f"it has {', '.join(defaults) or 'no parameters'}"
            mend = f"did you mean '{near[0]}'?" if near else known
            raise DataError(f"there is no parameter '{name}'", mend, file=file)
        wanted = TypeAdapter(type_of(defaults[name]), config=ConfigDict(strict=True))
        try:
            checked[name] = wanted.validate_python(value)
        except ValidationError as error:
            got = error.errors()[0]["input"]  # the first wrong item of a list
            raise DataError(
                f"parameter '{name}' got {got!r} ({kind(got)})",
                f"its default is {defaults[name]!r} ({kind(defaults[name])})",
                file=file,
            ) from None
    return checked


def parse_value(text: str, default: Any) -> Any:
    """Read a value typed on the command line, in the light of the default.

    Text stays text when the default is text; otherwise Python literals and YAML are understood.

    >>> parse_value("10", "tiny"), parse_value("1e-3", 0.5), parse_value("[ridge, gp]", ["maml"])
    ('10', 0.001, ['ridge', 'gp'])
    """
    if isinstance(default, str):
        return text
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        pass  # not Python; YAML writes lists of words and true/false more freely
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


class _UniqueKeys(yaml.SafeLoader):
    """YAML that refuses a key written twice, of which only the last would count."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                row = key.start_mark.line + 1
                raise DataError(f"'{key.value}' is written twice", "keep one of them", row=row)
            if isinstance(key, yaml.ScalarNode):
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file as a mapping; what keeps it from being read is a `DataError`."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except DataError as error:
        raise error.at(file=path) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        row = None if mark is None else mark.line + 1
        raise DataError("this is not valid YAML", "mend the syntax", file=path, row=row) from None
    except UnicodeDecodeError:
        raise DataError("this is not UTF-8 text", "save it as UTF-8", file=path) from None
    if not isinstance(content or {}, dict):
        raise DataError("this is no mapping", "write 'name: value' lines", file=path)
    return content or {}


def read_profile(path: str | Path) -> dict[str, dict[str, Any]]:
    """A profile file: notebook stem → parameters that differ from the notebook's defaults.

    Raises:
        DataError: the file is missing, is not YAML, or is not a mapping of mappings.

    """
    path = Path(path)
    if not path.is_file():
        known = sorted(p.stem for p in path.parent.glob("*.yml"))
        mend = f"choose one of {', '.join(known)}" if known else "add it beside the notebook"
        raise DataError(f"there is no profile '{path.stem}'", mend, file=path)
    profile = {str(stem): entry or {} for stem, entry in read_yaml(path).items()}
    for stem, entry in profile.items():
        if not isinstance(entry, dict):
            problem = f"the entry '{stem}' is not a mapping"
            raise DataError(problem, "write 'name: value' lines", file=path)
    return profile


def profile_parameters(notebook: Path, profile: str) -> dict[str, Any]:
    """What ``params/<profile>.yml`` beside a notebook says of it; a `DataError` if nothing."""
    path = notebook.parent / "params" / f"{profile}.yml"
    entries = read_profile(path)
    if notebook.stem not in entries:
        problem = f"the profile has no entry for '{notebook.stem}'"
        raise DataError(problem, f"add a line '{notebook.stem}:' (it may be empty)", file=path.name)
    return entries[notebook.stem]


def run_notebook(
    notebook: str | Path,
    output: str | Path,
    parameters: Mapping[str, Any] | None = None,
    *,
    profile: str | None = None,
) -> Path:
    """Execute a notebook in its own folder and write the executed copy, which is returned.

    ``parameters`` override the profile, which overrides the notebook's defaults. The copy is
    written in one step, only when every cell succeeded, and holds no path of this machine.

    Raises:
        DataError: a parameter or the profile is wrong, or the output is the notebook itself or
            cannot be written; nothing has run then.
        papermill.PapermillExecutionError: a cell failed; `cell_index` counts the notebook's own
            cells, from 1.

    """
    notebook, output = Path(notebook), Path(output)
    chosen = profile_parameters(notebook, profile) if profile else {}
    chosen = check_parameters(notebook, chosen | dict(parameters or {}))
    if output.suffix != ".ipynb":
        raise DataError("an executed copy is a notebook", "name it .ipynb", file=output)
    if output.exists() and output.samefile(notebook):
        raise DataError("the output is the notebook itself", "choose another name", file=output)
    check_writable(output)

    import papermill  # slow to import, and only needed here

    with tempfile.TemporaryDirectory() as folder:
        executed = Path(folder) / "executed.ipynb"
        try:
            papermill.execute_notebook(
                str(notebook),
                str(executed),
                parameters=chosen,
                cwd=str(notebook.parent),
                progress_bar=sys.stderr.isatty(),
                kernel_name="python3",
                language="python",
                # The kernel remarks on its socket and its own shutdown; a cell that fails raises.
                extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
            )
        except papermill.PapermillExecutionError as error:
            # papermill counts from 0, and its cell of parameters as well, which stands before.
            error.cell_index += 1 - bool(chosen)
            raise
        content = nbformat.read(executed, as_version=4)
    clean = nbformat.from_dict(scrub(content, machine_paths(notebook, chosen)))
    clean.metadata.papermill |= {"input_path": notebook.name, "output_path": output.name}
    for cell in clean.cells:  # when each cell began and ended would be most of a diff
        for timing in ("execution", "papermill"):
            cell.metadata.pop(timing, None)
    with draft_of(output) as draft:
        nbformat.write(clean, draft)
    return output


def machine_paths(notebook: Path, parameters: Mapping[str, Any]) -> dict[str, str]:
    """Paths of this machine that must not stand in an executed copy, and what replaces them."""
    folder = notebook.resolve().parent
    given = [v for v in parameters.values() if isinstance(v, str) and os.path.isabs(v)]
    replaced = {value: Path(value).name for value in given} | {
        str(folder): ".",
        str(folder.parent): "..",
        sys.prefix: "<python>",
        sys.base_prefix: "<python>",
        tempfile.gettempdir(): "<tmp>",
        str(Path.home()): "~",
    }
    replaced.pop(os.sep, None)
    return replaced


def scrub(content: Any, paths: Mapping[str, str]) -> Any:
    """Replace machine paths in every text of a notebook, the longest first; pictures stay.

    >>> scrub({"text": ["/home/ada/mutmeta/a.csv", 3]}, {"/home/ada/mutmeta": "."})
    {'text': ['./a.csv', 3]}
    """
    if isinstance(content, str):
        content = re.sub(r"\S*/ipykernel_\d+/\d+\.py", "<cell>", content)
        for path in sorted(paths, key=len, reverse=True):
            # Whole components only: /home/ada touches neither /home/adam nor a.org/home/ada.
            whole = r"(?<![\w.~<-])" + re.escape(path.rstrip("/")) + r"(?![\w.-])"
            content = re.sub(whole, lambda _, to=paths[path]: to, content)
        return content
    if isinstance(content, dict):
        return {k: v if k in BINARY else scrub(v, paths) for k, v in content.items()}
    return [scrub(item, paths) for item in content] if isinstance(content, list) else content
