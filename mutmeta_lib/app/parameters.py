"""A notebook's parameters: their defaults, profiles, and the check before anything runs.

Stock papermill warns about an unknown parameter and runs for an hour without it. Here the
parameters cell of the notebook is read first (as Python, without running it); a name it does not
assign, or a value of another type than its default, is refused with one sentence.
"""

import ast
import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
import yaml

from mutmeta_lib.errors import DataError


def default_parameters(notebook: str | Path) -> dict[str, Any]:
    """Read the defaults from the cell tagged ``parameters``, without running anything.

    Returns:
        Name → default, in the order of the cell. Empty when the notebook has no such cell.

    Raises:
        DataError: the notebook cannot be read, or a default is not a plain literal.

    """
    for cell in read_notebook(notebook).cells:
        if cell.cell_type == "code" and "parameters" in cell.metadata.get("tags", []):
            return parse_defaults(cell.source, file=Path(notebook).name)
    return {}


def parse_defaults(source: str, *, file: str | None = None) -> dict[str, Any]:
    """Read ``name = literal`` lines.

    >>> parse_defaults("shots = [0, 5]  # labels\\nencoder: str = 'tiny'")
    {'shots': [0, 5], 'encoder': 'tiny'}
    """
    defaults = {}
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.AnnAssign) and statement.value is not None:
            targets = [statement.target]
        elif isinstance(statement, ast.Assign):
            targets = statement.targets
        else:
            continue
        for target in targets:
            if not isinstance(target, ast.Name):
                continue
            try:
                defaults[target.id] = ast.literal_eval(statement.value)
            except ValueError:
                raise DataError(
                    f"the default of parameter '{target.id}' is not a plain value",
                    "write a literal (number, text, list) in the parameters cell",
                    file=file,
                ) from None
    return defaults


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


def read_profile(path: str | Path) -> dict[str, dict[str, Any]]:
    """Read a profile file: notebook stem → parameters that differ from the notebook's defaults.

    Raises:
        DataError: the file is missing, is not YAML, or is not a mapping of mappings.

    """
    path = Path(path)
    if not path.is_file():
        known = sorted(p.stem for p in path.parent.glob("*.yml"))
        mend = f"choose one of {', '.join(known)}" if known else "add it beside the notebook"
        raise DataError(f"there is no profile '{path.stem}'", mend, file=path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise DataError(
            "this is not valid YAML",
            "mend the syntax",
            file=path,
            row=None if mark is None else mark.line + 1,
        ) from None
    if not isinstance(content, dict):
        raise DataError("a profile maps notebooks to parameters", "write 'notebook:'", file=path)
    for stem, parameters in content.items():
        if not isinstance(parameters or {}, dict):
            raise DataError(
                f"the entry '{stem}' is not a mapping", "write 'name: value' lines", file=path
            )
    return {str(stem): parameters or {} for stem, parameters in content.items()}


def check_parameters(notebook: str | Path, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Compare parameters with the notebook's defaults before anything runs.

    A whole number may stand where the default is a decimal one; lists are compared element by
    element; a default of ``None`` accepts any plain value.

    Returns:
        The parameters, with whole numbers turned into decimals where the default is decimal.

    Raises:
        DataError: an unknown name (with the nearest known one) or a value of another type.

    """
    defaults = default_parameters(notebook)
    file = Path(notebook).name
    checked = {}
    for name, value in parameters.items():
        if name not in defaults:
            near = difflib.get_close_matches(name, defaults, n=1)
            mend = (
                f"did you mean '{near[0]}'?"
                if near
                else f"it has {', '.join(defaults) or 'no parameters'}"
            )
            raise DataError(f"there is no parameter '{name}'", mend, file=file)
        if not fits(value, defaults[name]):
            raise DataError(
                f"parameter '{name}' got {value!r} ({kind(value)})",
                f"its default is {defaults[name]!r} ({kind(defaults[name])})",
                file=file,
            )
        checked[name] = like(value, defaults[name])
    return checked


def fits(value: Any, default: Any) -> bool:
    """Tell whether a value has the type of a default.

    >>> fits(1, 0.5), fits(True, 1), fits([1, 2], [0]), fits(["a"], [0]), fits("x", None)
    (True, False, True, False, True)
    """
    if default is None:
        return True
    if isinstance(default, list | tuple):
        return isinstance(value, list | tuple) and (
            not default or all(any(fits(item, example) for example in default) for item in value)
        )
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is type(default)


def like(value: Any, default: Any) -> Any:
    """Turn whole numbers into decimals where the default is decimal.

    >>> like(1, 0.5), like([1, 2], [0.5]), like([1], [2])
    (1.0, [1.0, 2.0], [1])
    """
    if isinstance(default, float) and isinstance(value, int):
        return float(value)
    if isinstance(default, list | tuple) and default:
        return [like(item, default[0]) for item in value]
    return value


def kind(value: Any) -> str:
    """Name a value's type in plain words.

    >>> kind(1), kind([0.5]), kind([])
    ('whole number', 'list of decimal number', 'list')
    """
    if isinstance(value, list | tuple):
        return f"list of {kind(value[0])}" if value else "list"
    words = {
        bool: "true or false",
        int: "whole number",
        float: "decimal number",
        str: "text",
        dict: "mapping",
        type(None): "nothing",
    }
    return words.get(type(value), type(value).__name__)


def parse_value(text: str, default: Any) -> Any:
    """Read a value typed on the command line, in the light of the default.

    Text stays text when the default is text; otherwise Python literals and YAML are understood.

    >>> parse_value("10", "tiny"), parse_value("1e-3", 0.5), parse_value("[0, 5]", [1])
    ('10', 0.001, [0, 5])
    >>> parse_value("[ridge, gp]", ["maml"]), parse_value("true", False)
    (['ridge', 'gp'], True)
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


def profile_parameters(notebook: Path, profile: str) -> dict[str, Any]:
    """Look a notebook up in ``params/<profile>.yml`` beside it.

    Raises:
        DataError: there is no such profile, or it has no entry for the notebook.

    """
    path = notebook.parent / "params" / f"{profile}.yml"
    entries = read_profile(path)
    if notebook.stem not in entries:
        raise DataError(
            f"the profile has no entry for '{notebook.stem}'",
            f"add a line '{notebook.stem}:' (it may be empty)",
            file=path.name,
        )
    return entries[notebook.stem]
