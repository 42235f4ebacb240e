"""What is written: JSON values that have a name, and files that are whole or not there."""

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pandas as pd

from mutmeta_lib.errors import DataError


class DiskError(DataError):
    """The disk or the folder refuses, whatever a file holds."""


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        problem = f"the file cannot be written ({error.strerror})"
        mend = "free some space or choose another place; what was there is kept"
        raise DiskError(problem, mend, file=path) from error


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary file that takes the place of ``path`` when the block ends well, or is deleted.

    The folder is made. Processes that write at once do not meet: the last one wins. A disk or
    folder that refuses is a `DiskError`, and the old file is kept.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.part")
    with _writing(path):
        try:
            yield temporary
            with temporary.open("rb+") as written:
                os.fsync(written.fileno())  # the new content is on the disk before the old one goes
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def check_writable(path: str | Path) -> None:
    """Before long work, make a file's folder and raise `DiskError` if nothing can be written."""
    if Path(path).is_dir():
        raise DiskError("this is a folder", "give the name of a file in it", file=path)
    with _writing(Path(path)), tempfile.TemporaryFile(dir=Path(path).parent):
        pass


def plain(value: Any) -> Any:
    """The value as JSON knows it; what JSON cannot hold, such as a function, is a `TypeError`.

    >>> plain({"shots": (0, np.int64(1)), "loss": float("nan")})
    {'shots': [0, 1], 'loss': None}
    >>> plain(pd.DataFrame({"shots": [0, 1], "mse": [0.5, np.nan]}))
    {'columns': ['shots', 'mse'], 'rows': [[0, 0.5], [1, None]]}
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is pd.NA or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(item) for item in value]
    if isinstance(value, pd.DataFrame):
        rows = value.astype(object).to_numpy().tolist()
        return {"columns": plain(list(value.columns)), "rows": plain(rows)}
    raise TypeError(f"a record cannot hold a {type(value).__name__}: {value!r}")


def canonical(value: Any) -> str:
    """The same text for the same plain value: sorted keys, and 1.0 written as 1."""

    def whole(text: str) -> float:
        number = float(text)
        return int(number) if number.is_integer() else number

    value = json.loads(json.dumps(value), parse_float=whole)
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def fingerprint(value: Any) -> str:
    """The SHA-256 of a plain value's canonical text, in hexadecimal."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def layout(value: Any, indent: str = "") -> str:
    """JSON with one entry of a dict and one row of a table per line, so that diffs are legible."""
    inner = indent + " "
    if isinstance(value, dict) and value:
        lines = [f"{layout(key)}: {layout(item, inner)}" for key, item in value.items()]
    elif isinstance(value, list) and any(isinstance(item, list | dict) for item in value):
        lines = [json.dumps(item, ensure_ascii=False) for item in value]
    else:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return opening + "".join(f"\n{inner}{line}," for line in lines)[:-1] + f"\n{indent}{closing}"
