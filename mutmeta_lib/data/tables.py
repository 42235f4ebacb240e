"""Strict reading of csv files: columns of text, or an error that names file, row and column.

pandas guesses (an extra cell becomes an index, ``NA`` a number, a short row is padded). A table of
measurements must not be guessed at, so cells stay text here until a parser has accepted them.
"""

from __future__ import annotations

import csv
import difflib
import gzip
import io
import re
import zlib
from collections.abc import Mapping, Sequence
from itertools import chain
from os import PathLike
from pathlib import Path
from types import MappingProxyType

import numpy as np

from mutmeta_lib.errors import DataError

FIRST_ROW = 2
"""The row number of the first row of data; the header is row 1."""
MISSING = frozenset({"", "na", "nan", "n/a", "#n/a", "null", "none", "-", "--", "."})
"""What stands in cells without a value, in lower case."""

_SEPARATORS = ",;\t|"
_EXCEL = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
_NUMBER = re.compile(r"[+-]?([0-9]+(?:\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]*,[0-9]+([eE][+-]?[0-9]+)?")
_THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2}(,[0-9]{3})+")
_MINUS = str.maketrans(dict.fromkeys("\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d", "-"))


def read_text(path: str | PathLike[str]) -> str:
    """Read a text file (plain or ``.gz``, UTF-8) whole; raises `DataError` where that fails."""
    path = Path(path)
    try:
        content = path.read_bytes()
        if content.startswith(_EXCEL):
            raise DataError("this is an Excel file", "save the sheet as csv (UTF-8)", file=path)
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError("the file does not exist", "check the path", file=path) from None
    except IsADirectoryError:
        raise DataError("this is a folder", "give a file", file=path) from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"the file is damaged ({error})", "fetch or copy it again", file=path
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(
            "the file is not UTF-8 text", "save it as csv with UTF-8 encoding", file=path
        ) from error
    except OSError as error:
        raise DataError(
            f"the file cannot be read ({error.strerror})", "check path and permissions", file=path
        ) from error


def read_columns(
    path: str | PathLike[str],
    required: Sequence[str],
    optional: Sequence[str] = (),
    *,
    instead: Mapping[str, Sequence[str]] = MappingProxyType({}),
    mend: str = "add what is missing",
) -> dict[str, list[str]]:
    """Read the named columns of a table (plain or ``.gz``, UTF-8) as text.

    Cells are separated by commas, or by semicolons, tabs or ``|`` if that makes the header fit; in
    such a table a column of numbers may have decimal commas, which become points. Blanks around a
    cell go, as do empty lines at the end. `instead` names, by required column, those that may stand
    in its place. `mend` ends the sentence about a missing column.

    Returns one list per column found, all of one length; index i is spreadsheet row i + 2. Raises
    `DataError` for a file that is missing, empty or damaged, a missing or repeated column, rows
    with too few or too many cells, and cells in a column without a name.
    """
    path = Path(path)
    text = read_text(path)
    names = list(dict.fromkeys(chain(required, optional, *instead.values())))
    headers = {sign: _header(text, sign) for sign in _SEPARATORS}
    separator = max(_SEPARATORS, key=lambda sign: (len({*names} & {*headers[sign]}), sign == ","))
    if set(names).isdisjoint(headers[separator]):
        separator = max(_SEPARATORS, key=lambda sign: len(headers[sign]))
    rows = _rows(path, text, separator)
    while rows and not any(rows[-1]):
        rows.pop()
    if not rows:
        raise DataError("the file is empty", "give a csv file with a header", file=path)
    if not any(rows[0]):
        raise DataError("the first row is empty", "begin with the header", file=path, row=1)
    for name in names:
        if rows[0].count(name) > 1:
            place = {"file": path, "row": 1, "column": name}
            raise DataError(f"the header has '{name}' twice", "keep one", **place)
    missing = [name for name in required if {name, *instead.get(name, ())}.isdisjoint(rows[0])]
    if missing:
        raise _without(missing, rows[0], mend).at(file=path, row=1, column=missing[0])
    _check_rows(path, rows[0], rows[1:])
    columns = {name: rows[0].index(name) for name in names if name in rows[0]}
    table = {name: [cells[i] for cells in rows[1:]] for name, i in columns.items()}
    if separator == ",":
        return table
    return {name: _decimal_points(cells) for name, cells in table.items()}


def _header(text: str, separator: str) -> list[str]:
    try:
        first = next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), [])
    except csv.Error:
        return []  # told with its row when the whole file is read
    return [cell.strip() for cell in first]


def _rows(path: Path, text: str, separator: str) -> list[list[str]]:
    rows: list[list[str]] = []
    try:
        for cells in csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True):
            rows.append([cell.strip() for cell in cells])
    except csv.Error as error:
        problem, mend = f"the row is not csv ({error})", "mend its quotation marks"
        if "unexpected end" in str(error):
            problem, mend = "a quotation mark is opened and not closed", "close it or delete it"
        if "field limit" in str(error):
            mend = "close the quotation mark that begins the cell, or shorten the cell"
        raise DataError(problem, mend, file=path, row=len(rows) + 1) from None
    return rows


def _without(missing: Sequence[str], header: Sequence[str], mend: str) -> DataError:
    if header[0].startswith("#"):
        return DataError("the file begins with a comment", "delete the lines with '#'")
    if header[0].startswith(">"):
        return DataError("this is FASTA, not a table", "give the table of scores")
    if len(header) == 1 and not set(missing).isdisjoint(header[0].split()):
        return DataError("cells are separated by blanks", "separate them by commas")
    lower = {name.lower(): name for name in header}
    near = [difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.6) for name in missing]
    hints = [f"did you mean '{lower[match[0]]}'?" for match in near if match]
    if any(map(_NUMBER.fullmatch, header)):
        hints.append("is the header missing? Write it above the first row;")
    columns = " and no ".join(f"'{name}'" for name in missing)
    return DataError(
        f"there is no column {columns} (found: {', '.join(header)})", " ".join([*hints, mend])
    )


def _check_rows(path, header, body) -> None:
    # The first column may have no name: it is the index that pandas writes.
    nameless = [i for i, name in enumerate(header) if i and not name]
    for row, cells in enumerate(body, start=FIRST_ROW):
        place = {"file": path, "row": row}
        if not cells:  # how csv.reader gives an empty line
            raise DataError("the row is empty", "delete the row", **place)
        if len(cells) != len(header):
            if len(cells) > len(header) and not any(cells[len(header) :]):
                mend = "write decimals with a point, and delete the separator left over at its end"
            elif len(cells) > len(header):
                mend = "quote cells that hold a separator, and write decimals with a point"
            else:
                mend = "fill in what is missing"
            raise DataError(
                f"the row has {len(cells)} cells and the header {len(header)}", mend, **place
            )
        for i in nameless:
            if cells[i]:
                raise DataError(
                    f"'{cells[i]}' stands in a column without a name",
                    "name the column, or write a decimal point if it belongs to the cell before",
                    **place,
                )


def _decimal_points(cells: list[str]) -> list[str]:
    """Turn decimal commas into points, if all of a column are numbers that show them beyond doubt.

    >>> _decimal_points(["0,5", "", "-1,234"]), _decimal_points(["1,234", "2"])
    (['0.5', '', '-1.234'], ['1,234', '2'])
    """
    plain = [cell.translate(_MINUS) for cell in cells]
    told = [cell for cell in plain if cell.lower() not in MISSING]
    with_comma = [cell for cell in told if "," in cell]
    sure = all(re.fullmatch("[+-]?[0-9]+", c) or _DECIMAL_COMMA.fullmatch(c) for c in told)
    if sure and not all(map(_THOUSANDS.fullmatch, with_comma)):
        return [cell.replace(",", ".") for cell in plain]
    return cells


def parse_number(text: str) -> float:
    """Turn the text of one cell into a finite number; raises `DataError` otherwise.

    Blanks around it go, and the minus signs and dashes of word processors are read as minus.

    >>> parse_number("-1.5e-3"), parse_number("\u22120.5")
    (-0.0015, -0.5)
    """
    text = text.strip().translate(_MINUS)
    if _NUMBER.fullmatch(text):
        value = float(text)
        if np.isfinite(value):
            return value
        raise DataError(f"'{text}' is too large for a number", "correct it or leave the row out")
    word = text.lower()
    if word in MISSING:
        problem = f"the value is missing ('{text}')" if text else "the value is empty"
        mend = "fill it in or leave the row out (--drop missing)"
        raise DataError(problem, mend, drop="missing")
    if word.lstrip("+-") in {"inf", "infinity"}:
        raise DataError(f"'{text}' is infinite", "leave the row out")
    if _THOUSANDS.fullmatch(text):
        plain, decimal = text.replace(",", ""), text.replace(",", ".")
        either = f"{plain} or {decimal}" if text.count(",") == 1 else plain
        raise DataError(f"'{text}' has a thousands separator or decimal comma", f"write {either}")
    if re.fullmatch(r"[+-]?[0-9]{1,3}(\.[0-9]{3})+,[0-9]+", text):
        plain = text.replace(".", "").replace(",", ".")
        raise DataError(f"'{text}' has thousands separators and a decimal comma", f"write {plain}")
    if _DECIMAL_COMMA.fullmatch(text):
        raise DataError(f"'{text}' has a decimal comma", f"write {text.replace(',', '.')}")
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
