"""Strict reading of csv files: columns of text, or an error that names file, row and column.

pandas guesses (an extra cell becomes an index, ``NA`` a number, a short row is padded). A table of
measurements must not be guessed at, so cells stay text here until a parser has accepted them.
"""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np

from mutmeta_lib.errors import DataError

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
FIRST_ROW = 2
"""The row number of the first row of data; the header is row 1."""


def read_columns(
    path: str | PathLike[str], required: Sequence[str], optional: Sequence[str] = ()
) -> dict[str, list[str]]:
    """Read the named columns of a comma-separated file (plain or ``.gz``, UTF-8) as text.

    Returns one list per column found, all of one length; index i is spreadsheet row i + 2.
    Empty lines at the end of the file are no rows. Raises `DataError` for a file that is missing,
    empty or damaged, a missing or repeated column, and rows with too few or too many cells.
    """
    path = Path(path)
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig", newline="") as handle:
            rows = list(csv.reader(handle, strict=True))
    except FileNotFoundError:
        raise DataError("the file does not exist", "check the path", file=path) from None
    except IsADirectoryError:
        raise DataError("this is a folder", "give a csv file", file=path) from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"the file is damaged ({error})", "fetch or copy it again", file=path
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(
            "the file is not UTF-8 text", "save it as csv with UTF-8 encoding", file=path
        ) from error
    except csv.Error as error:
        raise DataError(
            f"the file is not a csv file ({error})", "save it as comma-separated text", file=path
        ) from error
    while rows and not any(rows[-1]):
        rows.pop()
    if not rows:
        raise DataError("the file is empty", "give a csv file with a header", file=path)
    return _select(path, rows[0], rows[1:], required, optional)


def _select(path, header, body, required, optional) -> dict[str, list[str]]:
    wanted = [*required, *optional]
    if len(header) == 1 and header[0] not in wanted and re.search(r"[;\t]", header[0]):
        raise DataError("cells are not separated by commas", "save it with commas", file=path)
    for name in wanted:
        if header.count(name) > 1:
            raise DataError(
                f"the header has '{name}' twice", "keep one", file=path, row=1, column=name
            )
    for name in required:
        if name not in header:
            raise DataError(
                f"the column is missing (found: {', '.join(header)})",
                "add it or name another column",
                file=path,
                row=1,
                column=name,
            )
    for row, cells in enumerate(body, start=FIRST_ROW):
        if len(cells) != len(header):
            # csv.reader gives an empty line as no cells at all.
            raise DataError(
                f"the row has {len(cells)} cells and the header {len(header)}"
                if cells
                else "the row is empty",
                "quote cells that hold commas" if cells else "delete the row",
                file=path,
                row=row,
            )
    columns = {name: header.index(name) for name in wanted if name in header}
    return {name: [cells[i] for cells in body] for name, i in columns.items()}


def parse_number(text: str) -> float:
    """Turn the text of one cell into a finite number; raises `DataError` otherwise.

    >>> parse_number("-1.5e-3")
    -0.0015
    """
    if _NUMBER.fullmatch(text):
        value = float(text)
        if np.isfinite(value):
            return value
        raise DataError(f"'{text}' is too large for a number", "correct it or leave the row out")
    word = text.strip().lower()
    if not word:
        raise DataError("the value is empty", "fill it in or leave the row out")
    if word in {"na", "nan", "n/a", "null", "none", "-"}:
        raise DataError(f"the value is missing ('{text}')", "leave the row out")
    if word.lstrip("+-") in {"inf", "infinity"}:
        raise DataError(f"'{text}' is infinite", "leave the row out")
    if re.fullmatch(r"[+-]?[0-9]+,[0-9]+", word):
        raise DataError(f"'{text}' has a decimal comma", "write a decimal point")
    if text != text.strip():
        raise DataError(f"'{text}' has a space around the number", "delete the space")
    raise DataError(f"'{text}' is not a number", "correct it or leave the row out")


def parse_numbers(
    texts: Sequence[str], *, file: str | PathLike[str], column: str, first_row: int = FIRST_ROW
) -> np.ndarray:
    """Turn a column of text into finite float64 numbers, shape (n,); errors name the row."""
    values = np.empty(len(texts))
    for i, text in enumerate(texts):
        try:
            values[i] = parse_number(text)
        except DataError as error:
            raise error.at(file=file, row=first_row + i, column=column) from None
    return values
