"""Plain JSON values: how records are made canonical, hashed and laid out."""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd


def plain(value: Any) -> Any:
    """The value as JSON knows it: dict, list, str, int, float, bool or None.

    Tuples and arrays become lists, DataFrames ``{"columns", "rows"}``, numpy scalars Python ones,
    numbers that are not finite None.

    Raises:
        TypeError: something that JSON cannot hold, such as a function.

    >>> plain({"shots": (0, 1), "loss": float("nan")})
    {'shots': [0, 1], 'loss': None}
    """
    if value is None or isinstance(value, str | bool | int) or value is pd.NA:
        return None if value is pd.NA else value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"the keys of a record must be text, not {list(value)}")
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(item) for item in value]
    if isinstance(value, pd.DataFrame):
        rows = value.astype(object).to_numpy().tolist()
        return {"columns": plain(list(value.columns)), "rows": plain(rows)}
    raise TypeError(f"a record cannot hold a {type(value).__name__}: {value!r}")


def canonical(value: Any) -> str:
    """The same text for the same plain value: sorted keys, and 1.0 written as 1."""

    def whole(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: whole(inner) for key, inner in item.items()}
        if isinstance(item, list):
            return [whole(inner) for inner in item]
        return int(item) if isinstance(item, float) and item.is_integer() else item

    return json.dumps(whole(value), sort_keys=True, ensure_ascii=True, separators=(",", ":"))


def fingerprint(value: Any) -> str:
    """The sha256 of a plain value's canonical text, in hexadecimal."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def layout(value: Any, indent: str = "") -> str:
    """JSON with one entry of a dict and one row of a table per line, so that diffs are legible."""
    inner = indent + " "
    if isinstance(value, dict) and value:
        lines = [
            f"{inner}{json.dumps(key, ensure_ascii=False)}: {layout(item, inner)}"
            for key, item in value.items()
        ]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(item, list | dict) for item in value):
        lines = [inner + json.dumps(item, ensure_ascii=False) for item in value]
        return "[\n" + ",\n".join(lines) + f"\n{indent}]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
