"""Every problem of a table at once, where the readers stop at the first.

Rows are judged by the readers' own functions, one row at a time; nothing is judged differently
here. A reader refuses a file at its first problem because a half-read file is worse than none.
"""

from os import PathLike
from pathlib import Path

from mutmeta_lib.assays import read_table, read_variants
from mutmeta_lib.errors import DataError
from mutmeta_lib.tables import FIRST_ROW, parse_number, read_columns

MUTATED = "mutated_sequence"


def table_problems(
    csv: str | PathLike[str],
    wild_type: str,
    *,
    property: str,
    mutant_column: str = "mutant",
    score_column: str = "score",
) -> list[DataError]:
    """List what keeps `mutmeta_lib.assays.read_table` from reading a csv, by row; empty if nothing.

    A problem of the whole file (no such file, a missing column, a wild type that is none) stands
    alone, since rows cannot be judged then.
    """
    columns = {"mutant_column": mutant_column, "score_column": score_column}
    try:
        read_table(csv, wild_type, property=property, **columns)
    except DataError as error:
        first = error
    else:
        return []
    if first.row is None or first.row < FIRST_ROW:
        return [first]
    try:
        cells = read_columns(csv, [mutant_column, score_column], [MUTATED])
    except DataError as error:
        return [error]
    problems, sound = [], []
    for row, texts in enumerate(zip(*cells.values(), strict=True), start=FIRST_ROW):
        cell = dict(zip(cells, texts, strict=True))
        found = _row_problems(cell, wild_type, row, mutant_column, score_column)
        problems += found
        if not found:
            sound.append((row, cell))
    problems += _repeats(sound, wild_type, mutant_column)
    # The reader saw the whole file, so that its hint may be better (an offset of the numbering).
    place = (first.row, first.column)
    problems = [first if (p.row, p.column) == place else p for p in problems] or [first]
    return sorted((p.at(file=Path(csv)) for p in problems), key=lambda p: p.row or 0)


def _row_problems(
    cell: dict[str, str], wild_type: str, row: int, mutant_column: str, score_column: str
) -> list[DataError]:
    found = []
    try:
        parse_number(cell[score_column])
    except DataError as error:
        found.append(error.at(row=row, column=score_column))
    mutated = [cell[MUTATED]] if MUTATED in cell else None
    try:
        read_variants([cell[mutant_column]], mutated, wild_type, [row], mutant_column)
    except DataError as error:
        found.append(error)
    return found


def _repeats(
    sound: list[tuple[int, dict[str, str]]], wild_type: str, mutant_column: str
) -> list[DataError]:
    """Repeated variants among rows that are sound one by one."""
    found = []
    while sound:
        texts = [cell[mutant_column] for _, cell in sound]
        rows = [row for row, _ in sound]
        try:
            read_variants(texts, None, wild_type, rows, mutant_column)
        except DataError as error:
            found.append(error)
            sound = [(row, cell) for row, cell in sound if row != error.row]
        else:
            break
    return found
