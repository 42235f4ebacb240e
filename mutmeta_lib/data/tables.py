"""Strict reading of csv and FASTA files: text, or an error that names file, row and column.

pandas guesses (an extra cell becomes an index, ``NA`` a number, a short row is padded); a table of
measurements must not be guessed at.
"""

import csv
import difflib
import gzip
import io
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from biotite.sequence.io.fasta import FastaFile

from mutmeta_lib.data.variants import MISSING, check_sequence
from mutmeta_lib.errors import DataError, located

FIRST_ROW = 2  # of the data, as spreadsheets count; the header is row 1
_SEPARATORS = ",;\t|"
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_DECIMAL_COMMA = re.compile(r"[+-]?([0-9]*|[0-9]{1,3}(\.[0-9]{3})+),[0-9]+([eE][+-]?[0-9]+)?")
_THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2}(,[0-9]{3})+")
_MINUS = str.maketrans(dict.fromkeys("\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d", "-"))


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Turn what the system says about a file or folder that cannot be read into a `DataError`."""
    try:
        yield
    except FileNotFoundError:
        problem, mend = "the file does not exist", "check the path"
    except IsADirectoryError:
        problem, mend = "this is a folder", "give a file"
    except UnicodeDecodeError:
        problem, mend = "the file is not UTF-8 text", "save it (an Excel sheet, too) as UTF-8 csv"
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        problem, mend = f"the file is damaged ({error})", "fetch or copy it again"
    except OSError as error:
        problem, mend = f"this cannot be read ({error.strerror})", "check path and permissions"
    else:
        return
    raise DataError(problem, mend, file=path)


def read_text(path: str | Path, limit: int = -2) -> str:
    """Read a text file (plain or ``.gz``, UTF-8) whole; raises `DataError` where that fails.

    One that holds more than ``limit`` bytes, unpacked, is refused without being read further.
    """
    with reading(path):
        opened = gzip.open if Path(path).suffix == ".gz" else open
        with opened(path, "rb") as stream:
            content = stream.read(limit + 1)
        if len(content) > limit >= 0:
            told = f"the file holds more than {limit / 1e6:g} MB"
            raise DataError(told, "give the part that is needed", file=path)
        return content.decode("utf-8-sig")


def read_columns(
    path: str | Path,
    required: Sequence[str | tuple[str, ...]],
    optional: Sequence[str] = (),
    *,
    mend: str = "add what is missing",
) -> dict[str, list[str]]:
    """Read the named columns of a table (plain or ``.gz``, UTF-8) as text, blanks around it off.

    Cells are separated by commas, or by semicolons, tabs or ``|`` if that makes the header fit; in
    such a table a column of numbers may have decimal commas, which become points. Of a tuple in
    `required` one name has to be there. `mend` ends the sentence about a missing column. Raises
    `DataError` for what is no such file, missing columns, and rows that do not fit the header.
    """
    with located(file=path):
        return columns_of(read_text(path), required, optional, mend=mend)


def columns_of(
    text: str,
    required: Sequence[str | tuple[str, ...]],
    optional: Sequence[str] = (),
    *,
    mend: str = "add what is missing",
) -> dict[str, list[str]]:
    """The columns of a table's text, as `read_columns` reads them from a file."""
    groups = [(name,) if isinstance(name, str) else name for name in required]
    names = list(dict.fromkeys([name for group in [*groups, optional] for name in group]))
    first = re.split("[\r\n]", text, maxsplit=1)[0]

    def known(separator: str) -> int:
        return len({cell.strip(' "') for cell in first.split(separator)}.intersection(names))

    separator = max(_SEPARATORS, key=known)
    header, *body = _rows(text, separator)
    with located(row=1):
        if not any(header):
            raise DataError("the first row is empty", "begin with the header")
        if twice := [name for name in names if header.count(name) > 1]:
            raise DataError(f"the header has '{twice[0]}' twice", "keep one", column=twice[0])
        if missing := [group[0] for group in groups if set(group).isdisjoint(header)]:
            raise _without(missing, header, mend).at(column=missing[0])
    for row, cells in enumerate(body, start=FIRST_ROW):
        if problem := _misshapen(header, cells, separator):
            raise problem.at(row=row)
    table = {n: [row[header.index(n)] for row in body] for n in names if n in header}
    for name, cells in table.items() if separator != "," else ():
        with located(column=name):
            table[name] = _decimal_points(cells)
    return table


def _rows(text: str, separator: str) -> list[list[str]]:
    rows: list[list[str]] = []
    try:
        for cells in csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True):
            rows.append([cell.strip() for cell in cells])
    except csv.Error as error:
        mend = "mend its quotation marks, of which one may be open"
        raise DataError(f"the row is not csv ({error})", mend, row=len(rows) + 1) from None
    while rows and not any(rows[-1]):
        rows.pop()
    if not rows:
        raise DataError("the file is empty", "give a csv file with a header")
    return rows


def _without(missing: Sequence[str], header: Sequence[str], mend: str) -> DataError:
    lower = {name.lower(): name for name in header}
    near = [difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.6) for name in missing]
    hints = [f"did you mean '{lower[match[0]]}'?" for match in near if match]
    if any(map(_NUMBER.fullmatch, header)) or header[0].startswith(("#", ">")):
        hints.append("is the header missing? Begin the file with it;")
    columns = f"{' and no '.join(map(repr, missing))} (found: {', '.join(header)})"
    return DataError(f"there is no column {columns}", " ".join([*hints, mend]))


def _misshapen(header: list[str], cells: list[str], separator: str) -> DataError | None:
    """Say what is wrong with the shape of a row."""
    if not cells:  # how csv.reader gives an empty line
        return DataError("the row is empty", "delete the row")
    if len(cells) != len(header):
        mend = "write decimals with a point, quote cells that hold a separator, end on none"
        mend = mend if len(cells) > len(header) else "fill in what is missing"
        return DataError(f"the row has {len(cells)} cells and the header {len(header)}", mend)
    for name, cell in zip(header[1:], cells[1:], strict=True):
        # The first column may have no name: it is the index that pandas writes.
        if cell and not name:
            mend = "name the column, or write a decimal point if it belongs to the cell before"
            return DataError(f"'{cell}' stands in a column without a name", mend)
    for line in (line for cell in cells if "\n" in cell for line in cell.splitlines()[1:]):
        if line.count(separator) == len(header) - 1:
            mend = "delete the quotation marks, or the line breaks between them"
            return DataError(f"a cell in quotation marks holds a row, '{line}'", mend)
    return None


def _decimal_points(cells: list[str]) -> list[str]:
    """Turn decimal commas into points, if the numbers of a column show them beyond doubt.

    >>> _decimal_points(["0,5", "high", "-1,234"]), _decimal_points(["1,234", "2"])
    (['0.5', 'high', '-1.234'], ['1,234', '2'])
    """
    read = [cell.translate(_MINUS) for cell in cells]
    numbers = {c for c in read if re.fullmatch(r"[+-]?[.,]?[0-9][0-9.,]*([eE][+-]?[0-9]+)?", c)}
    decimals = set(filter(_DECIMAL_COMMA.fullmatch, numbers))
    if all(map(_THOUSANDS.fullmatch, decimals)):
        return cells
    for row, cell in enumerate(read, start=FIRST_ROW):
        if cell in numbers and "," not in cell and "." in cell:
            problem = f"'{cell}' has a point, and other cells of the column a decimal comma"
            raise DataError(problem, "write all decimals alike, and no thousands", row=row)
    if not all(n in decimals or re.fullmatch("[+-]?[0-9]+", n) for n in numbers):
        return cells
    return [c.replace(".", "").replace(",", ".") if c in numbers else c for c in read]


def parse_number(text: str) -> float:
    """Turn the text of one cell into a finite number, with any minus sign or dash for a minus."""
    text = text.strip().translate(_MINUS)
    is_number = _NUMBER.fullmatch(text)
    if is_number and np.isfinite(float(text)):
        return float(text)
    if text.lower() in MISSING:
        problem = f"the value is missing ('{text}')" if text else "the value is empty"
        raise DataError(problem, "fill it in or leave the row out", drop="missing")
    if is_number or text.lower().lstrip("+-") in {"inf", "infinity"}:
        raise DataError(f"'{text}' is infinite", "leave the row out")
    readings = [text.replace(",", "")] if _THOUSANDS.fullmatch(text) else []
    readings += [text.replace(".", "").replace(",", ".")] if _DECIMAL_COMMA.fullmatch(text) else []
    if readings:
        problem = f"'{text}' has thousands separators or a decimal comma"
        raise DataError(problem, f"write {' or '.join(readings)}")
    raise DataError(f"'{text}' is not a number", "correct it or leave the row out")


def parse_numbers(texts: Sequence[str], *, file: str | Path, column: str) -> np.ndarray:
    """Turn a column of text into finite float64 numbers, shape (n,); errors name the row."""
    values = np.empty(len(texts))
    for i, text in enumerate(texts):
        with located(file=file, row=FIRST_ROW + i, column=column):
            values[i] = parse_number(text)
    return values


def read_wild_type(path: str | Path, record: str | None = None, limit: int = -2) -> str:
    """Read the one sequence of a FASTA file, or that of `record` (a header up to the first space).

    Raises `DataError` for what is not FASTA, and what is no wild type (`check_sequence`).
    """
    content = read_text(path, limit).strip()
    sequences: dict[str, str] = {}
    with located(file=path):
        if not content.startswith(">"):
            problem = "the sequence has no name" if content else "the file is empty"
            raise DataError(problem, "write a line '>name' above each sequence")
        for header, sequence in FastaFile.read_iter(io.StringIO(content, newline=None)):
            name = (header.split() or [""])[0]
            if name in sequences:
                raise DataError(f"'{name}' occurs twice", "give each record a name of its own")
            sequences[name] = "".join(sequence.split())
            check_sequence(sequences[name], f"wild type '{name}'")
        names = ", ".join(sequences)
        if record is None and len(sequences) > 1:
            problem = f"the file holds {len(sequences)} sequences"
            raise DataError(problem, f"choose one with --record: {names}")
        if record is not None and record not in sequences:
            raise DataError(f"there is no record '{record}'", f"use one of {names}")
    return sequences[record or next(iter(sequences))]
