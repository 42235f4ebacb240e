"""A user's table as they have it: columns guessed and told, repeats averaged, bounds kept in mind.

What is read is strict all the same: a cell that might mean two things is a `DataError`, and of what
is read and not used every row says why.
"""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path

import numpy as np
import pandas as pd

from mutmeta_lib.data.measurements import MUTATED, Rows, parse_cell, read_rows
from mutmeta_lib.data.tables import (
    FIRST_ROW,
    columns_of,
    parse_number,
    parse_numbers,
    read_text,
    read_wild_type,
    reading,
)
from mutmeta_lib.data.variants import (
    DROP,
    MISSING,
    WILD_TYPE_WORDS,
    Variant,
    check_sequence,
    check_variant,
    format_variant,
)
from mutmeta_lib.errors import DataError, located
from mutmeta_lib.ranking.sheets import read_sheet

MOST_BYTES, MOST_SEQUENCE_BYTES, MOST_RESIDUES = 20_000_000, 1_000_000, 10_000
"""Larger tables, FASTA files and proteins are refused in one sentence."""

MUTANTS = "mutant mutation mutations variant variants hgvs_pro hgvs substitution substitutions "
MUTANTS += "aa_change aa_substitution aa_substitutions protein_change mutated_sequence sequence"
SCORES = "score dms_score value measurement fitness stability solubility expression activity"
ERRORS = "sd std se sem error err stderr stdev std_error std_dev standard_error standard_deviation "
ERRORS += "sigma uncertainty"
"""How tables call mutations, scores and the errors of scores; case and blanks do not matter."""
_OTHERS = "position pos site index idx id no number n replicate rep plate well row batch round day"

_BOUND = re.compile(r"\s*([<>≤≥])\s*=?\s*(?=[\d.,+-])")
_MOST = 1e30


@dataclass(frozen=True, eq=False)
class Measurements:
    """What a table says: `variants` and `scores` ``(n,)`` to learn from, averaged over repeats.

    `told` has one row per variant used and one per row not used: mutant, score, sd, n, used, why.
    `columns` are the names behind mutant, score and error, `wild_type` the wild type's mean score
    if it was measured, `notes` what is odd, `text` the table as csv.
    """

    variants: tuple[Variant, ...]
    scores: np.ndarray
    told: pd.DataFrame
    columns: Mapping[str, str]
    wild_type: float | None
    notes: tuple[str, ...]
    text: str


def read_protein(given: str | Path, record: str | None = None) -> tuple[str, str]:
    """Name and sequence of a wild type, given as FASTA file (one record of it) or as letters."""
    text = str(given)
    if "." in text or "/" in text or "\\" in text or (len(text) < 256 and Path(text).exists()):
        name, sequence = record, read_wild_type(given, record, MOST_SEQUENCE_BYTES)
        if name is None:
            name = (read_text(given).lstrip()[1:].split(maxsplit=1) or [""])[0]
    else:
        name, sequence = "protein", text.strip()
        check_sequence(sequence)
    if len(sequence) > MOST_RESIDUES:
        told = f"the wild type has {len(sequence)} residues, and at most {MOST_RESIDUES} are read"
        raise DataError(told, "give the domain that was mutated")
    return name, sequence


def table_text(table: str | Path | pd.DataFrame) -> str:
    """A table as text: of a csv, tsv or Excel file, or of a DataFrame."""
    if isinstance(table, pd.DataFrame):
        return table.to_csv(index=False, lineterminator="\n")
    with reading(table), Path(table).open("rb") as stream:
        start = stream.read(4)
        if start == b"PK\3\4":
            stream.seek(0)
            content = stream.read(MOST_BYTES + 1)
            if len(content) > MOST_BYTES:
                told = f"the file holds more than {MOST_BYTES / 1e6:g} MB"
                raise DataError(told, "give the part that is needed", file=table)
            with located(file=table):
                return read_sheet(content, MOST_BYTES)
    if start == b"\xd0\xcf\x11\xe0":
        told = "this is an Excel file of the old kind, or one with a password"
        raise DataError(told, "save it as xlsx, or as UTF-8 csv", file=table)
    return read_text(table, MOST_BYTES)


def read_measurements(
    table: str | Path | pd.DataFrame,
    wild_type: str,
    *,
    mutant_column: str = "",
    score_column: str = "",
    drop: Sequence[str] = (),
) -> Measurements:
    """Read a table of measured variants of one protein; raises `DataError` for what is unclear.

    Columns that are not named are guessed, from their names and then their cells, and a guess
    that could be another is refused with all names. Not used are rows without mutation or score,
    and those of the kinds in `drop` (`variants.DROP`). Repeats are averaged, weighted by 1/error²
    where a column of errors has them all; they may be rows of one variant or columns, such as
    ``rep1`` and ``rep2`` (``score_column="a, b"`` names others). ``<0.1`` and ``>95`` count as 0.1
    and 95.
    """
    file = None if isinstance(table, pd.DataFrame) else table
    text = table_text(table)
    with located(file=file):
        names = guess_columns(text, wild_type, mutant_column, score_column)
        repeats = _several(names["score"], peek(text)[0])
        needed = [names["mutant"], *repeats]
        columns = columns_of(text, needed, [*(names[n] for n in names if n == "error"), MUTATED])
    texts, bounds = columns[names["mutant"]], {}
    for cells, i in product([columns[name] for name in repeats], range(len(texts))):
        if found := _BOUND.match(cells[i]):
            bounds.setdefault(FIRST_ROW + i, []).append(cells[i])
            cells[i] = cells[i][found.end() :]
    how = {"wild_type": wild_type, "mutant_column": names["mutant"], "repeats": True}
    read = _together(
        [read_rows(file or "the table", columns, score_column=n, **how) for n in repeats]
    )
    left_out = [problem for problem in read.problems if problem.drop in {"missing", *drop}]
    if unknown := [word for word in drop if word not in DROP]:
        raise DataError(f"'{unknown[0]}' cannot be dropped", f"use {', '.join(DROP)}")
    refused = [problem for problem in read.problems if problem not in left_out]
    if len(read.rows) + len(left_out) == 0 and len(refused) == 1 and refused[0].row is None:
        refused = []  # a table with a header alone: nothing was measured
    if refused:
        first, more = refused[0], len(refused) - 1
        words = sorted({problem.drop for problem in refused if problem.drop})
        first.mend += f" (--drop {','.join(words)} leaves such rows out)" if words else ""
        first.mend += f"; and {more} more such problem{'s' * (more > 1)}" if more else ""
        raise first
    if (most := np.abs(read.scores).max(initial=0.0)) > _MOST:
        raise DataError(f"a score is as large as {most:g}", "use another unit", file=file)
    errors = _errors(columns, names, file)
    groups: dict[Variant, list[int]] = {}
    for i, variant in enumerate(read.variants):
        groups.setdefault(variant, []).append(i)
    told, variants, scores, measured_wild_type = [], [], [], None
    for variant, rows in groups.items():
        mean, sd = _average(read.scores[rows], [errors.get(read.rows[i]) for i in rows])
        own = dict.fromkeys(read.rows[i] for i in rows)
        signs = [cell for row in own for cell in bounds.get(row, ())]
        why = f"{', '.join(signs)}: counted as the bound" if signs else ""
        if variant:
            variants.append(variant)
            scores.append(mean)
        else:
            measured_wild_type = mean
            why = "the wild type is compared with, not learned from"
        told.append((format_variant(variant), mean, sd, len(rows), bool(variant), why))
    for problem in left_out:
        why = f"row {problem.row}: {problem.problem}"
        told.append((texts[problem.row - FIRST_ROW], np.nan, np.nan, 1, False, why))
    frame = pd.DataFrame(told, columns=["mutant", "score", "sd", "n", "used", "why"])
    notes = tuple(dict.fromkeys(read.notes))
    return Measurements(
        tuple(variants), np.array(scores), frame, names, measured_wild_type, notes, text
    )


def _several(score: str, header: Sequence[str]) -> list[str]:
    """The columns of scores that a name, or several with commas between them, stand for."""
    return [score] if score in header else [name.strip() for name in score.split(",")]


def _together(reads: Sequence[Rows]) -> Rows:
    """What several columns of scores say; no row misses a score that has one in any of them."""
    if len(reads) == 1:
        return reads[0]
    every, problems = {row for one in reads for row in one.rows}, {}
    for problem in (problem for one in reads for problem in one.problems):
        if problem.drop != "missing" or problem.row not in every:
            problems.setdefault((problem.row, problem.problem), problem)
    return Rows(
        tuple(variant for one in reads for variant in one.variants),
        np.concatenate([one.scores for one in reads]),
        {},
        list(problems.values()),
        [note for one in reads for note in one.notes],
        tuple(row for one in reads for row in one.rows),
    )


def _errors(columns: Mapping[str, list[str]], names: Mapping[str, str], file) -> dict[int, float]:
    """The error of each row that has one, by row."""
    if "error" not in names:
        return {}
    cells = columns[names["error"]]
    filled = [i for i, cell in enumerate(cells) if cell.lower() not in MISSING]
    values = parse_numbers([cells[i] for i in filled], file=file, column=names["error"])
    return {FIRST_ROW + i: value for i, value in zip(filled, values, strict=True)}


def _average(scores: np.ndarray, errors: Sequence[float | None]) -> tuple[float, float]:
    """Mean of repeats, weighted by 1/error² if all errors are positive, and their deviation."""
    weights = None
    if all(error is not None and error > 1e-15 for error in errors):
        least = min(errors)
        weights = [(least / error) ** 2 for error in errors]
    spread = float(np.std(scores, ddof=1)) if len(scores) > 1 else float("nan")
    return float(np.average(scores, weights=weights)), spread


def guess_columns(text: str, wild_type: str, mutant: str = "", score: str = "") -> dict[str, str]:
    """The names of the columns mutant, score and, if there is one, error of a table's text."""
    header, rows = peek(text)
    plain = {name: _plain(name) for name in header}
    if not mutant:
        mutant = guess_mutants(header, rows, wild_type)
    numbers = [n for n in header if n and n != mutant and _numeric(header, rows, n)]
    errors = [n for n in numbers if re.sub("^(dms_)?score_", "", plain[n]) in ERRORS.split()]
    numbers = [n for n in numbers if n not in errors and plain[n] not in _OTHERS.split()]
    if not score:
        named = [n for n in numbers if plain[n] == "score"]
        named = named or [n for n in numbers if plain[n] in SCORES.split()] or numbers
        named = named or [n for n in header if plain[n] in SCORES.split()]
        if not named:
            mend = "name it with --score-column (score_column= in Python)"
            raise DataError(f"no column holds scores (found: {', '.join(header)})", mend, row=1)
        if len(set(named)) > 1 and not _are_repeats([plain[n] for n in named]):
            told = f"several columns may be the score: {', '.join(named)}"
            mend = "name one with --score-column (score_column= in Python), or repeats as 'a, b'"
            raise DataError(told, mend, row=1)
        score = ", ".join(dict.fromkeys(named))
    found = {"mutant": mutant, "score": score}
    own = [n for n in errors if n != score]
    return found | ({"error": own[0]} if len(own) == 1 else {})


def _are_repeats(names: Sequence[str]) -> bool:
    """Whether names are the same but for the number of a repeat, such as rep1 and rep2."""
    found = [re.fullmatch(r"(.*?)_?(?:rep|repeat|replicate|run)_?\d+", name) for name in names]
    return all(found) and len({one[1] for one in found}) == 1


def peek(text: str) -> tuple[list[str], list[list[str]]]:
    """Header and up to 200 rows of a table's text, for guesses alone."""
    first = next((line for line in re.split("[\r\n]+", text) if line.strip()), "")
    separator = max(",;\t|", key=first.count)
    try:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        header, *body = [[c.strip() for c in cells] for cells in islice(rows, 201)]
    except csv.Error as error:
        mend = "mend its quotation marks, of which one may be open"
        raise DataError(f"the file is not csv ({error})", mend) from None
    except ValueError:
        raise DataError("the file is empty", "give a csv file with a header") from None
    return header, [cells for cells in body if any(cells)]


def guess_mutants(header: Sequence[str], rows: Sequence[Sequence[str]], wild_type: str) -> str:
    """The column of mutations: by its name, or as the only one whose cells mostly are some."""

    def reads(cell: str) -> Variant:
        return parse_cell(cell, wild_type)

    if any(_is(reads, name) for name in header if name.lower() not in WILD_TYPE_WORDS | MISSING):
        mend = "begin the file with one, such as mutant,score"
        raise DataError("the first row holds mutations, as if the header were missing", mend, row=1)
    names = {_plain(name): name for name in reversed(header)}
    for known in MUTANTS.split():
        if known in names:
            return names[known]
    found = [name for name in header if name and _share(header, rows, name, reads) > 0.5]
    if len(found) != 1:
        told = f"several columns may hold mutations: {', '.join(found)}"
        told = told if found else f"no column holds mutations (found: {', '.join(header)})"
        raise DataError(told, "name it with --mutant-column (mutant_column= in Python)", row=1)
    return found[0]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _numeric(header: Sequence[str], rows: Sequence[Sequence[str]], name: str) -> bool:
    def number(cell: str) -> float:
        cell = re.sub(_BOUND, "", cell)
        return parse_number(cell.replace(",", ".") if cell.count(",") == 1 else cell)

    return _share(header, rows, name, number) >= 0.5


def _share(header, rows, name, reads) -> float:
    """Of the cells of a column that are not missing, the share that can be read so."""
    at = list(header).index(name)
    cells = [row[at] for row in rows if at < len(row) and row[at].lower() not in MISSING]
    return sum(_is(reads, cell) for cell in cells) / len(cells) if cells else 0.0


def _is(reads, cell: str) -> bool:
    try:
        reads(cell)
    except DataError:
        return False
    return True


def read_variants(path: str | Path, wild_type: str) -> list[Variant]:
    """The variants of a list of candidates: a table with a column of mutations; each once."""
    text = table_text(path)
    with located(file=path):
        header, rows = peek(text)
        name = guess_mutants(header, rows, wild_type)
        texts, found = columns_of(text, [name])[name], {}
        for row, cell in enumerate(texts, start=FIRST_ROW):
            with located(row=row, column=name):
                variant = parse_cell(cell, wild_type)
                check_variant(variant, wild_type)
                found[variant] = None
    return list(found)
