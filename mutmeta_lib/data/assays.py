"""Assays: one property of one protein, measured on many variants; and tables of your own."""

import hashlib
import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from mutmeta_lib.data.measurements import MUTATED, Rows, read_rows
from mutmeta_lib.data.tables import FIRST_ROW, read_columns
from mutmeta_lib.data.variants import Variant, check_sequence, check_variant, format_variant
from mutmeta_lib.errors import DataError, located

PROPERTIES = ("fitness", "stability", "solubility", "expression")
HIGHER_IS_BETTER = "higher = better"

_COLLECTION = ("protein", "wild_type_sequence")


def check_property(name: str) -> None:
    """Raise `DataError` unless `name` is one of `PROPERTIES`."""
    if name not in PROPERTIES:
        raise DataError(f"'{name}' is not a property", f"use one of {', '.join(PROPERTIES)}")


@dataclass(frozen=True, eq=False)
class Assay:
    """Measured variants of one wild type.

    `scores` has shape (n,), float64 and read-only, in `units`; higher is better, and `sign` says
    how that was arranged. `source` is a DOI where known; `left_out` counts the rows left out of the
    table, by word of `variants.DROP`. Raises `DataError` when a variant does not fit the wild type
    or occurs twice, or a score is not finite.
    """

    id: str
    protein: str
    property: str
    wild_type: str
    variants: tuple[Variant, ...]
    scores: np.ndarray
    units: str = ""
    sign: str = HIGHER_IS_BETTER
    source: str = ""
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        scores = np.array(self.scores, dtype=np.float64)
        scores.setflags(write=False)
        object.__setattr__(self, "scores", scores)
        object.__setattr__(self, "variants", tuple(self.variants))
        check_property(self.property)
        check_sequence(self.wild_type)
        if scores.shape != (len(self.variants),):
            problem = f"{self.id} has {len(self.variants)} variants and scores {scores.shape}"
            raise DataError(problem, "give one score per variant")
        if not np.isfinite(scores).all():
            raise DataError(f"{self.id} has a score that is not finite", "leave the row out")
        for variant, count in Counter(self.variants).items():
            check_variant(variant, self.wild_type)
            if count > 1:
                raise DataError(f"{format_variant(variant)} occurs twice", "keep one of them")

    def __len__(self) -> int:
        return len(self.variants)

    @cached_property
    def sha256(self) -> str:
        """Hash of the content (wild type, variants, scores); names and units do not enter."""
        digest = hashlib.sha256(self.wild_type.encode())
        digest.update("\n".join(map(format_variant, self.variants)).encode())
        digest.update(self.scores.astype("<f8").tobytes())
        return digest.hexdigest()


def read_table(
    csv: str | Path,
    wild_type: str,
    *,
    property: str,
    mutant_column: str = "mutant",
    score_column: str = "score",
    drop: Sequence[str] = (),
) -> Assay:
    """Read a table of your own: a column of mutations and a column of scores, one protein.

    Mutations may be in any notation of `parse_variant`, on positions of `wild_type` from 1. Where
    there is no such column, but one called ``mutated_sequence`` or ``sequence``, the mutations are
    its differences from the wild type; beside mutations, ``mutated_sequence`` must agree with them.
    Rows of the kinds in `drop` (`variants.DROP`) are left out and counted. Raises `DataError` for
    what cannot be read; warns of what is read and odd all the same.
    """
    check_property(property)
    columns = {"mutant_column": mutant_column, "score_column": score_column}
    rows, id = check_table(csv, wild_type, **columns, drop=drop), table_name(csv)
    if rows.problems:
        raise rows.problems[0]
    for note in rows.notes:
        warnings.warn(f"{csv}: {note}", stacklevel=2)
    measured = rows.variants, rows.scores
    return Assay(id, id, property, wild_type, *measured, left_out=rows.left_out)


def table_name(path: str | Path) -> str:
    """Return a table's name without ``.csv`` and ``.gz``."""
    return Path(path).name.removesuffix(".gz").removesuffix(".csv")


def check_table(
    csv: str | Path,
    wild_type: str,
    *,
    mutant_column: str = "mutant",
    score_column: str = "score",
    drop: Sequence[str] = (),
) -> Rows:
    """Read a table as `read_table` does, and find everything that is wrong or odd in its rows.

    Raises `DataError` for a problem of the whole file, since rows cannot be judged then.
    """
    check_sequence(wild_type)
    # Sequences do not stand in for a name that was given, which may be mistyped.
    names = (mutant_column, *((MUTATED, "sequence") if mutant_column == "mutant" else ()))
    mend = "name your columns with --mutant-column and --score-column "
    mend += "(mutant_column= and score_column= in Python)"
    columns = read_columns(csv, [names, score_column], [MUTATED], mend=mend)
    found = next(name for name in names if name in columns)
    rows = read_rows(csv, columns, wild_type, found, score_column, drop)
    for problem in rows.problems:
        problem.mend += f" (--drop {problem.drop})" if problem.drop else ""
    return rows


@dataclass(frozen=True)
class DataSet:
    """A table in a folder (``.csv``, or ``.csv.gz`` beside it), and what the folder says of it.

    `about` holds the texts of an `Assay`; its wild_type may be empty for a collection, a file with
    the columns protein and wild_type_sequence, of which each protein is an assay.
    """

    path: Path
    about: dict[str, str]
    score_column: str = "score"

    def read(self) -> list[Assay]:
        """Read its assays; raises the first problem of the file."""
        packed = self.path.with_name(f"{self.path.name}.gz")
        path = packed if packed.exists() and not self.path.exists() else self.path
        needed = ["mutant", self.score_column, *(() if self.about["wild_type"] else _COLLECTION)]
        columns = read_columns(path, needed, [MUTATED, *_COLLECTION])
        with located(file=path):
            groups = self._proteins(columns)
        found = {
            key: read_rows(path, columns, key[1], "mutant", self.score_column, index=index)
            for key, index in groups.items()
        }
        if problems := [problem for rows in found.values() for problem in rows.problems]:
            raise min(problems, key=lambda problem: problem.row or 0)
        assays = []
        for (protein, wild_type), rows in found.items():
            own = {"id": f"{self.about['id']}/{protein}", "protein": protein} if protein else {}
            about = {**self.about, **own, "wild_type": wild_type}
            assays.append(Assay(**about, variants=rows.variants, scores=rows.scores))
        return assays

    def _proteins(self, columns: Mapping[str, list[str]]) -> dict[tuple[str, str], list[int]]:
        """Return (protein, wild type) -> row indices; one without name unless a collection."""
        if not set(_COLLECTION) <= set(columns):
            return {("", self.about["wild_type"]): list(range(len(columns["mutant"])))}
        wild_types: dict[str, str] = {}
        groups: dict[tuple[str, str], list[int]] = defaultdict(list)
        for i, (protein, wild_type) in enumerate(zip(*map(columns.get, _COLLECTION), strict=True)):
            with located(row=FIRST_ROW + i, column="wild_type_sequence"):
                if not protein:
                    raise DataError("the protein has no name", "fill it in", column="protein")
                if protein not in wild_types:
                    check_sequence(wild_type)
                if wild_types.setdefault(protein, wild_type) != wild_type:
                    problem = f"{protein} has another wild type than in the rows above"
                    raise DataError(problem, "give each wild type its own protein name")
                if self.about["wild_type"] not in ("", wild_type):
                    mend = "leave it empty there, or correct one of the two"
                    raise DataError("the wild type is not the manifest's target_seq", mend)
            groups[protein, wild_type].append(i)
        if not groups:
            raise DataError("the file has no rows to read", "add rows")
        return groups
