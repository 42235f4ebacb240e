"""A sweep file: one notebook, many parameters and seeds, in one YAML. Nothing runs here.

The file is checked as a whole, every parameter against the notebook, and every problem is told.
"""

import difflib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mutmeta_lib.app.notebooks import check_parameters, default_parameters, profile_parameters
from mutmeta_lib.errors import DataError
from mutmeta_lib.records.plain import canonical

RECORDS = "records_dir"
"""The notebook's parameter that says where records go. Every run of a sweep gets a folder."""


@dataclass(frozen=True)
class Sweep:
    """What a sweep file says. ``axes`` are the grid and the seeds: name → values."""

    file: Path
    notebook: Path
    output: Path
    profile: str | None
    parameters: dict[str, Any]
    axes: dict[str, list]
    retries: int
    cpus_per_run: float
    gpus_per_run: float
    address: str | None


def is_number(value: Any) -> bool:
    """Tell a number from true and false."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_share(value: Any) -> bool:
    """Tell what may be asked of processors: any fraction below one, whole numbers above.

    >>> is_share(0.5), is_share(2), is_share(1.5), is_share(-1)
    (True, True, False, False)
    """
    return is_number(value) and (0 <= value < 1 or (value >= 1 and value == int(value)))


def is_seeds(value: Any) -> bool:
    """Tell whether seeds are a list of whole numbers, or one name with such a list."""
    if isinstance(value, dict) and len(value) == 1:
        ((name, value),) = value.items()
        if not isinstance(name, str):
            return False
    return isinstance(value, list) and all(type(item) is int for item in value) and bool(value)


_RULES: dict[str, tuple[Callable[[Any], bool], str, Any]] = {
    "notebook": (lambda v: isinstance(v, str), "write an .ipynb file, relative to this file", None),
    "output": (lambda v: isinstance(v, str), "write a folder, relative to this file", None),
    "profile": (lambda v: isinstance(v, str), "write its name: quick or full", None),
    "parameters": (lambda v: isinstance(v, dict), "write 'name: value' lines", {}),
    "grid": (
        lambda v: isinstance(v, dict) and all(isinstance(x, list) and x for x in v.values()),
        "write 'name: [value, value]' lines",
        {},
    ),
    "seeds": (is_seeds, "write whole numbers, [0, 1], or the parameter's name and them", []),
    "retries": (lambda v: type(v) is int and v >= 0, "write a whole number, 0 or more", 2),
    "cpus_per_run": (lambda v: is_share(v) and v > 0, "write a number above 0, whole above 1", 1),
    "gpus_per_run": (is_share, "write a number, whole above 1", 0),
    "address": (lambda v: isinstance(v, str), "write host:port, or null for this machine", None),
}
"""Key → test of its value, mend, and what stands for a key left out. Two keys are required."""

REQUIRED = ("notebook", "output")


def read_sweep(path: str | os.PathLike[str]) -> Sweep:
    """Read a sweep file.

    ``notebook`` and ``output`` are relative to the file. ``seeds`` set the notebook's parameter
    ``seed``, or the one they name: ``seeds: {fold: [0, 1, 2]}``.

    Raises:
        DataError: the first of `sweep_problems`.

    """
    for problem in sweep_problems(path):
        raise problem
    path = Path(path)
    content = _complete(_load(path))
    return Sweep(
        file=path,
        notebook=(path.parent / content["notebook"]).resolve(),
        output=(path.parent / content["output"]).resolve(),
        axes=content["grid"] | _seeds(content["seeds"]),
        **{name: content[name] for name in ("profile", "parameters", "retries", "address")},
        **{name: content[name] for name in ("cpus_per_run", "gpus_per_run")},
    )


def sweep_problems(path: str | os.PathLike[str]) -> list[DataError]:
    """List everything that keeps a sweep file from being run; empty if nothing does.

    Every value of every parameter is compared with the notebook's defaults, as
    `mutmeta_lib.app.notebooks.check_parameters` does, before anything runs.
    """
    try:
        content = _load(Path(path))
    except DataError as error:
        return [error]
    return [problem.at(file=path) for problem in _problems(content, Path(path).parent)]


class _UniqueKeys(yaml.SafeLoader):
    """YAML that refuses a key written twice, of which only the last would count."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise DataError(
                    f"'{key.value}' is written twice",
                    "keep one of them",
                    row=key.start_mark.line + 1,
                )
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return super().construct_mapping(node, deep=deep)


def _load(path: Path) -> dict:
    """The file as a mapping, whatever its keys."""
    if not path.is_file():
        raise DataError("there is no such sweep file", "give the path of a .yml file", file=path)
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
    if not isinstance(content, dict):
        raise DataError(
            "a sweep is 'key: value' lines", f"begin with {' and '.join(REQUIRED)}", file=path
        )
    return content


def _complete(content: Mapping[str, Any]) -> dict[str, Any]:
    """What was left out or left empty is filled in."""
    filled = {key: default for key, (_, _, default) in _RULES.items()}
    return filled | {key: value for key, value in content.items() if value is not None}


def _seeds(value: Any) -> dict[str, list]:
    """The seeds as one more axis."""
    if not value:
        return {}
    return dict(value) if isinstance(value, dict) else {"seed": value}


def _problems(content: dict, folder: Path) -> Iterator[DataError]:
    """Problems of the file's keys, then of every parameter."""
    sound = {}
    for key, value in content.items():
        if key not in _RULES:
            near = difflib.get_close_matches(str(key), _RULES, n=1)
            mend = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(_RULES)}"
            yield DataError(f"there is no key '{key}'", mend)
        elif value is not None and not _RULES[key][0](value):
            yield DataError(f"'{key}' is {value!r}", _RULES[key][1])
        else:
            sound[key] = value
    for key in REQUIRED:
        if content.get(key) is None:
            yield DataError(f"'{key}' is missing", _RULES[key][1])
    if sound.get("notebook") is None:
        return
    given = _complete(sound)
    notebook = folder / given["notebook"]
    try:
        defaults = default_parameters(notebook)
    except DataError as error:
        yield DataError(f"notebook '{given['notebook']}': {error.problem}", error.mend)
        return
    if RECORDS not in defaults:
        yield DataError(
            f"notebook '{notebook.name}' has no parameter '{RECORDS}'",
            "add it and write the record there, so that every run keeps its own",
        )
    if given["profile"] is not None:
        try:
            check_parameters(notebook, profile_parameters(notebook, given["profile"]))
        except DataError as error:
            yield DataError(f"profile '{given['profile']}': {error.problem}", error.mend)
    seeds = _seeds(given["seeds"])
    for name in seeds.keys() - defaults.keys():
        yield DataError(
            f"seeds: {notebook.name} has no parameter '{name}'",
            "name the one that is its seed, 'seeds: {name: [0, 1]}', or leave seeds out",
        )
    places: dict[str, str] = {RECORDS: ""}
    for key, axis in (
        ("parameters", {name: [value] for name, value in given["parameters"].items()}),
        ("grid", given["grid"]),
        ("seeds", {name: values for name, values in seeds.items() if name in defaults}),
    ):
        for name, values in axis.items():
            yield from _parameter_problems(notebook, f"{key}.{name}", name, values)
            if name in places:
                yield DataError(
                    f"'{key}.{name}' is set by {places[name] or 'the sweep itself'}",
                    "leave one of them out" if places[name] else "leave it out",
                )
            places[name] = f"'{key}.{name}'"


def _parameter_problems(notebook: Path, place: str, name: Any, values: list) -> Iterator[DataError]:
    """Problems of one parameter's values, the first of each kind."""
    if not isinstance(name, str):
        yield DataError(f"'{place}' is no name of a parameter", "write a name")
        return
    seen = set()
    for value in values:
        try:
            json.dumps(value, allow_nan=False)
            check_parameters(notebook, {name: value})
        except (TypeError, ValueError) as error:
            if isinstance(error, DataError):
                yield DataError(f"{place}: {error.problem}", _mend(value, error))
            else:
                yield DataError(
                    f"'{place}' holds {value!r}", "write numbers, text, lists, true or false"
                )
            return
        if canonical(value) in seen:
            yield DataError(f"'{place}' holds {value!r} twice", "leave one out")
            return
        seen.add(canonical(value))


def _mend(value: Any, error: DataError) -> str:
    """The mend of a parameter; numbers such as 1e-3 are text in YAML, which surprises."""
    try:
        number = float(value) if isinstance(value, str) else None
    except ValueError:
        number = None
    if number is None or "e" not in value.lower():
        return error.mend
    return f"{error.mend}; YAML takes {value} for text, write {number:.1e}"
