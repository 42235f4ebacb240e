"""Assays: one property of one protein, measured on many variants; and the tables they come from.

Four layouts are read: ProteinGym's own csv with its reference file, a data directory (a manifest
and one csv per assay or per collection of proteins), the bundled demo data (such a directory), and
a plain csv of your own.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.resources import files
from os import PathLike
from pathlib import Path

import numpy as np
import pandas as pd

from mutmeta_lib.data.manifest import PROPERTIES, check_property, read_manifest
from mutmeta_lib.data.measurements import MUTATED, Rows, check_variants, read_rows
from mutmeta_lib.data.tables import FIRST_ROW, read_columns
from mutmeta_lib.data.variants import Variant, check_sequence, format_variant
from mutmeta_lib.errors import DataError

__all__ = [
    "PROPERTIES",
    "Assay",
    "check_table",
    "demo_dir",
    "read_data_dir",
    "read_demo",
    "read_manifest",
    "read_proteingym",
    "read_table",
]

PROTEINGYM_PROPERTY = {
    "Activity": "fitness",
    "Binding": "fitness",
    "OrganismalFitness": "fitness",
    "Stability": "stability",
    "Expression": "expression",
}
"""ProteinGym's `coarse_selection_type` and the property we file it under."""

PROTEINGYM_UNFLIPPED = {
    "TADBP_HUMAN_Bolognesi_2019": "as in ProteinGym: higher = more toxic",
    "A4_HUMAN_Seuma_2022": "as in ProteinGym: higher = nucleates fibrils faster",
}
"""Assays of ProteinGym in which higher is not better, and what it is."""

HIGHER_IS_BETTER = "higher = better"


@dataclass(frozen=True, eq=False)
class Assay:
    """Measured variants of one wild type.

    `scores` has shape (n,), float64 and read-only, in `units`; higher is better, and `sign` says
    how that was arranged. `source` is the DOI of the measurement where known; `left_out` counts
    the rows left out of the table, by word of `mutations.DROP`. Raises `DataError` when a variant
    does not fit the wild type or occurs twice, or a score is not finite.
    """

    id: str
    protein: str
    property: str
    wild_type: str
    variants: tuple[Variant, ...]
    scores: np.ndarray
    units: str
    sign: str
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
            raise DataError(
                f"{self.id} has {len(self.variants)} variants and scores of shape {scores.shape}",
                "give one score per variant",
            )
        if not np.isfinite(scores).all():
            raise DataError(f"{self.id} has a score that is not finite", "leave the row out")
        check_variants(self.variants, self.wild_type)

    def __len__(self) -> int:
        return len(self.variants)

    @cached_property
    def sha256(self) -> str:
        """Hash of the content (wild type, variants, scores); names and units do not enter."""
        digest = hashlib.sha256(self.wild_type.encode())
        digest.update("\n".join(map(format_variant, self.variants)).encode())
        digest.update(self.scores.astype("<f8").tobytes())
        return digest.hexdigest()


_SEQUENCES = (MUTATED, "sequence")
_NAME_COLUMNS = (
    "name your columns with --mutant-column and --score-column "
    "(mutant_column= and score_column= in Python)"
)


def read_table(
    csv: str | PathLike[str],
    wild_type: str,
    *,
    property: str,
    id: str | None = None,
    protein: str | None = None,
    mutant_column: str = "mutant",
    score_column: str = "score",
    units: str = "",
    sign: str = HIGHER_IS_BETTER,
    source: str = "",
    drop: Sequence[str] = (),
) -> Assay:
    """Read a table of your own: a column of mutations and a column of scores, one protein.

    Mutations may be in any notation of `mutations.parse_variant`. Where there is no such column,
    but one called `mutated_sequence` or `sequence`, the mutations are its differences from the
    wild type; beside mutations, a column `mutated_sequence` must agree with them.

    Args:
        csv: The file; see `tables.read_columns` for what it may look like.
        wild_type: The sequence that positions count on, from 1.
        property: One of `PROPERTIES`.
        id: Name of the assay; the file's by default, as for `protein`.
        protein: Name of the protein.
        mutant_column: The column of mutations.
        score_column: The column of scores, higher is better.
        units: What the scores are measured in.
        sign: How it came about that higher is better.
        source: A DOI.
        drop: Kinds of rows to leave out (`mutations.DROP`); `Assay.left_out` counts them. They
            stop the reading otherwise.

    Raises:
        DataError: What cannot be read, with file, row, column and the mend.

    """
    path = Path(csv)
    check_property(property)
    columns = {"mutant_column": mutant_column, "score_column": score_column}
    rows = check_table(path, wild_type, **columns, drop=drop)
    if rows.problems:
        raise rows.problems[0]
    name = table_name(path)
    return Assay(
        id or name,
        protein or name,
        property,
        wild_type,
        rows.variants,
        rows.scores,
        units,
        sign,
        source,
        rows.left_out,
    )


def check_table(
    csv: str | PathLike[str],
    wild_type: str,
    *,
    mutant_column: str = "mutant",
    score_column: str = "score",
    drop: Sequence[str] = (),
) -> Rows:
    """Read a table as `read_table` does, and find everything that is wrong or odd in its rows.

    Raises `DataError` for a problem of the whole file (no such file, a missing column, a wild type
    that is none), since rows cannot be judged then.
    """
    check_sequence(wild_type)
    path = Path(csv)
    columns = read_columns(
        path,
        [mutant_column, score_column],
        instead={"mutant": _SEQUENCES},  # not for a name that was given, and may be mistyped
        mend=_NAME_COLUMNS,
    )
    mutations = next(name for name in (mutant_column, *_SEQUENCES) if name in columns)
    index = range(len(columns[score_column]))
    return _rows_of(path, columns, index, wild_type, mutations, score_column, drop)


def _rows_of(path, columns, index, wild_type, mutations, score_column, drop) -> Rows:
    rows = read_rows(
        columns,
        index,
        wild_type,
        mutant_column=mutations,
        score_column=score_column,
        drop=drop,
    )
    if not rows.variants and not rows.problems:
        left = f" but {sum(rows.left_out.values())} left out" if rows.left_out else ""
        raise DataError(f"the file has a header but no rows to read{left}", "add rows", file=path)
    return replace(rows, problems=[problem.at(file=path) for problem in rows.problems])


def read_proteingym(
    csv: str | PathLike[str], reference: str | PathLike[str], *, drop: Sequence[str] = ()
) -> Assay:
    """Read one assay csv of ProteinGym (Notin et al. 2023, doi:10.1101/2023.12.07.570727).

    `csv` has the columns mutant, mutated_sequence and DMS_score; `reference` is ProteinGym's
    reference file, in which the assay is found by its name (DMS_id = the csv's name).
    `coarse_selection_type` gives the property: stability and expression as named, all others
    fitness. Scores are taken as they are: by ProteinGym's convention higher is better, but for
    those in `PROTEINGYM_UNFLIPPED`, whose `sign` says so. `drop` is as in `read_table`. Raises
    `DataError` naming file, row and column.
    """
    path = Path(csv)
    needed = ["DMS_id", "UniProt_ID", "target_seq", "coarse_selection_type"]
    table = read_columns(reference, needed, ["jo"])
    name = table_name(path)
    if table["DMS_id"].count(name) != 1:
        raise DataError(
            f"'{name}' is there {table['DMS_id'].count(name)} times",
            "name the csv as its DMS_id, or use the reference file of the same release",
            file=reference,
            column="DMS_id",
        )
    i = table["DMS_id"].index(name)
    kind = table["coarse_selection_type"][i]
    if kind not in PROTEINGYM_PROPERTY:
        raise DataError(
            f"'{kind}' is not a known selection type",
            f"use one of {', '.join(PROTEINGYM_PROPERTY)}",
            file=reference,
            row=FIRST_ROW + i,
            column="coarse_selection_type",
        )
    try:
        check_sequence(table["target_seq"][i])
    except DataError as error:
        raise error.at(file=reference, row=FIRST_ROW + i, column="target_seq") from None
    return read_table(
        path,
        table["target_seq"][i],
        property=PROTEINGYM_PROPERTY[kind],
        protein=table["UniProt_ID"][i],
        score_column="DMS_score",
        units="DMS_score",
        sign=PROTEINGYM_UNFLIPPED.get(name, HIGHER_IS_BETTER),
        source=table["jo"][i] if "jo" in table else "",
        drop=drop,
    )


def read_data_dir(
    data_dir: str | PathLike[str],
    *,
    ids: Sequence[str] | None = None,
    properties: Sequence[str] | None = None,
    drop: Sequence[str] = (),
) -> list[Assay]:
    """Read the assays of a data directory, in the order of its manifest.

    Layout: ``MANIFEST.csv`` (see `read_manifest`) and ``<property>/<id>.csv`` or ``.csv.gz`` with
    the columns mutant and score (and mutated_sequence, checked where present). A file with the
    columns protein and wild_type_sequence is a collection: it gives one assay per protein, called
    ``<id>/<protein>``. A folder without manifest that holds ProteinGym's reference file is read as
    such (`read_proteingym`). `ids` selects data sets, or single proteins of a collection;
    `properties` selects kinds; `drop` is as in `read_table`. Warns of a csv that the manifest does
    not name. Raises `DataError` for an id that is not there and for any row that is not valid.
    """
    folder = Path(data_dir)
    for name in properties or ():
        check_property(name)
    reference = proteingym_reference(folder)
    if reference is None:
        manifest = read_manifest(folder)
        entries = {entry.id: entry for entry in manifest.itertuples()}
        if unlisted := unlisted_files(folder, manifest):
            names = f"the manifest does not name {', '.join(unlisted)}"
            warnings.warn(f"{folder}: {names}; not read", stacklevel=2)
    else:
        tables = sorted({*folder.rglob("*.csv"), *folder.rglob("*.csv.gz")} - {reference})
        entries = {table_name(path): path for path in tables}
    if missing := [name for name in ids or () if name.split("/")[0] not in entries]:
        raise DataError(
            f"there is no data set '{missing[0]}'",
            "see the column 'id'" if reference is None else "see the names of the csv files",
            file=folder if reference else folder / "MANIFEST.csv",
        )
    wanted = entries if ids is None else {name.split("/")[0] for name in ids}
    chosen = [entry for name, entry in entries.items() if name in wanted]
    if reference is None:
        kept = [e for e in chosen if properties is None or e.property in properties]
        assays = [assay for entry in kept for assay in _read_entry(folder, entry, drop)]
    else:
        read = [read_proteingym(path, reference, drop=drop) for path in chosen]
        assays = [a for a in read if properties is None or a.property in properties]
    if ids is None:
        return assays
    found = {assay.id for assay in assays}
    for name in ids:
        if "/" in name and name not in found and (properties is None):
            raise DataError(f"there is no protein '{name}'", "see the column 'protein'")
    return [a for a in assays if a.id in ids or a.id.split("/")[0] in ids]


def table_name(path: Path) -> str:
    """Return a table's name without ``.csv`` and ``.csv.gz``.

    >>> table_name(Path("data/a.b.csv.gz"))
    'a.b'
    """
    return path.name.removesuffix(".gz").removesuffix(".csv")


def unlisted_files(folder: Path, manifest: pd.DataFrame) -> list[str]:
    """Return the tables in a data directory's property folders that its manifest does not name."""
    listed = set(zip(manifest["property"], manifest["id"], strict=True))
    found = [path for name in PROPERTIES for path in sorted((folder / name).glob("*.csv*"))]
    return [
        f"{path.parent.name}/{path.name}"
        for path in found
        if (path.parent.name, table_name(path)) not in listed
    ]


def proteingym_reference(folder: Path) -> Path | None:
    """Return the reference file of a folder of ProteinGym; None where there is a manifest."""
    if (folder / "MANIFEST.csv").exists() or not folder.is_dir():
        return None
    names = sorted(folder.glob("*[sS]ubstitutions*.csv"))
    return next((path for path in names if "DMS_id" in read_columns(path, (), ["DMS_id"])), None)


def _read_entry(data_dir: Path, entry, drop: Sequence[str]) -> list[Assay]:
    plain = data_dir / entry.property / f"{entry.id}.csv"
    path = plain if plain.exists() else plain.with_name(f"{entry.id}.csv.gz")
    if not path.exists():
        raise DataError("the file does not exist", "restore it or its manifest row", file=plain)
    required, optional = ["mutant", "score"], [MUTATED]
    collection = ["protein", "wild_type_sequence"]
    if entry.target_seq:
        columns = read_columns(path, required, [*optional, *collection])
    else:
        columns = read_columns(path, [*required, *collection], optional)
    index = range(len(columns["mutant"]))
    if set(collection) <= set(columns):
        groups = _group_rows(columns, index, path)
    else:
        groups = {"": (entry.target_seq, index)}
    read = {
        protein: _rows_of(path, columns, rows, wild_type, "mutant", "score", drop)
        for protein, (wild_type, rows) in groups.items()
    }
    if problems := [problem for rows in read.values() for problem in rows.problems]:
        raise min(problems, key=lambda problem: problem.row)
    return [
        Assay(
            f"{entry.id}/{protein}" if protein else entry.id,
            protein or entry.protein,
            entry.property,
            groups[protein][0],
            rows.variants,
            rows.scores,
            entry.score_units,
            entry.sign,
            entry.doi,
            rows.left_out,
        )
        for protein, rows in read.items()
    ]


def _group_rows(
    columns: dict[str, list[str]], index: Sequence[int], path: Path
) -> dict[str, tuple[str, list[int]]]:
    """Return protein -> (wild type, row indices) in order of first appearance."""
    groups: dict[str, tuple[str, list[int]]] = {}
    for i in index:
        protein, wild_type = columns["protein"][i], columns["wild_type_sequence"][i]
        if not protein:
            place = {"file": path, "row": FIRST_ROW + i, "column": "protein"}
            raise DataError("the protein has no name", "fill it in", **place)
        if protein not in groups:
            try:
                check_sequence(wild_type)
            except DataError as error:
                place = {"file": path, "row": FIRST_ROW + i, "column": "wild_type_sequence"}
                raise error.at(**place) from None
            groups[protein] = (wild_type, [])
        if groups[protein][0] != wild_type:
            raise DataError(
                f"{protein} has another wild type than in row {FIRST_ROW + groups[protein][1][0]}",
                "give each wild type its own protein name",
                file=path,
                row=FIRST_ROW + i,
                column="wild_type_sequence",
            )
        groups[protein][1].append(i)
    return groups


def demo_dir() -> Path:
    """Return the folder of the bundled demo data, a data directory like any other."""
    return Path(str(files("mutmeta_lib"))) / "data" / "demo"


def read_demo(
    *, ids: Sequence[str] | None = None, properties: Sequence[str] | None = None
) -> list[Assay]:
    """Read the bundled demo data; see `read_data_dir`."""
    return read_data_dir(demo_dir(), ids=ids, properties=properties)
