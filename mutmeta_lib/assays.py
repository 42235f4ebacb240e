"""Assays: one property of one protein, measured on many variants; and the tables they come from.

Four layouts are read: ProteinGym's own csv with its reference file, a data directory (a manifest
and one csv per assay or per collection of proteins), the bundled demo data (such a directory), and
a plain csv of your own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from os import PathLike
from pathlib import Path

import numpy as np

from mutmeta_lib.errors import DataError
from mutmeta_lib.manifest import PROPERTIES, check_property, read_manifest
from mutmeta_lib.measurements import check_variants, read_variants, rows_kept
from mutmeta_lib.mutations import Variant, check_sequence, format_variant
from mutmeta_lib.tables import FIRST_ROW, parse_numbers, read_columns

__all__ = [
    "PROPERTIES",
    "Assay",
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

HIGHER_IS_BETTER = "higher = better"


@dataclass(frozen=True, eq=False)
class Assay:
    """Measured variants of one wild type.

    `scores` has shape (n,), float64 and read-only, in `units`; higher is better, and `sign` says
    how that was arranged. `source` is the DOI of the measurement where known. Raises `DataError`
    when a variant does not fit the wild type or occurs twice, or a score is not finite.
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
    synonymous: str = "refuse",
) -> Assay:
    """Read a csv of your own: a column of mutations and a column of scores, one protein.

    Mutations may be in ProteinGym (``A24G:F30L``) or HGVS notation (``p.Ala24Gly``), ``WT`` or
    ``p.=`` for the wild type. A column `mutated_sequence`, where there is one, must agree. `id`
    and `protein` default to the file's name. Rows like ``A24A`` or ``p.Ala24=`` measure the wild
    type once more; they are refused, or left out with ``synonymous="drop"``. Raises `DataError`
    naming file, row and column.
    """
    path = Path(csv)
    check_property(property)
    check_sequence(wild_type)
    columns = read_columns(path, [mutant_column, score_column], ["mutated_sequence"])
    scores = parse_numbers(columns[score_column], file=path, column=score_column)
    index = rows_kept(columns[mutant_column], synonymous)
    variants = _variants(columns, index, wild_type, path, mutant_column)
    name = path.name.removesuffix(".gz").removesuffix(".csv")
    return Assay(
        id or name,
        protein or name,
        property,
        wild_type,
        variants,
        scores[index],
        units,
        sign,
        source,
    )


def _variants(
    columns: dict[str, list[str]], index: Sequence[int], wild_type: str, path: Path, mutant: str
) -> tuple[Variant, ...]:
    """Parse and check the rows `index` of a file; errors carry file, row and column."""
    if not index:
        raise DataError("the file has a header but no rows to read", "add rows", file=path)
    mutated = columns.get("mutated_sequence")
    try:
        return read_variants(
            [columns[mutant][i] for i in index],
            None if mutated is None else [mutated[i] for i in index],
            wild_type,
            [FIRST_ROW + i for i in index],
            mutant,
        )
    except DataError as error:
        raise error.at(file=path) from None


def read_proteingym(csv: str | PathLike[str], reference: str | PathLike[str]) -> Assay:
    """Read one assay csv of ProteinGym (Notin et al. 2023, doi:10.1101/2023.12.07.570727).

    `csv` has the columns mutant, mutated_sequence and DMS_score; `reference` is ProteinGym's
    reference file, in which the assay is found by its name (DMS_id = the csv's name).
    `coarse_selection_type` gives the property: stability and expression as named, all others
    fitness. Scores are taken as they are: by ProteinGym's convention higher is better, but look
    at the assay (TADBP_HUMAN_Bolognesi_2019 is toxicity and A4_HUMAN_Seuma_2022 fibril
    nucleation, both unflipped). Raises `DataError` naming file, row and column.
    """
    path = Path(csv)
    needed = ["DMS_id", "UniProt_ID", "target_seq", "coarse_selection_type"]
    table = read_columns(reference, needed, ["jo"])
    name = path.name.removesuffix(".gz").removesuffix(".csv")
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
        source=table["jo"][i] if "jo" in table else "",
    )


def read_data_dir(
    data_dir: str | PathLike[str],
    *,
    ids: Sequence[str] | None = None,
    properties: Sequence[str] | None = None,
    synonymous: str = "refuse",
) -> list[Assay]:
    """Read the assays of a data directory, in the order of its manifest.

    Layout: ``MANIFEST.csv`` (see `read_manifest`) and ``<property>/<id>.csv`` or ``.csv.gz`` with
    the columns mutant and score (and mutated_sequence, checked where present). A file with the
    columns protein and wild_type_sequence is a collection: it gives one assay per protein, called
    ``<id>/<protein>``. `ids` selects data sets, or single proteins of a collection; `properties`
    selects kinds; ``synonymous="drop"`` leaves out rows like ``A24A``, which are refused otherwise.
    Raises `DataError` for an id that is not there and for any row that is not valid.
    """
    manifest = read_manifest(data_dir)
    for name in properties or ():
        check_property(name)
    missing = [name for name in ids or () if name.split("/")[0] not in set(manifest["id"])]
    if missing:
        raise DataError(
            f"there is no data set '{missing[0]}'",
            "see the column 'id'",
            file=Path(data_dir) / "MANIFEST.csv",
        )
    wanted = None if ids is None else {name.split("/")[0] for name in ids}
    assays = []
    for entry in manifest.itertuples():
        if wanted is not None and entry.id not in wanted:
            continue
        if properties is not None and entry.property not in properties:
            continue
        assays += _read_entry(Path(data_dir), entry, synonymous)
    if ids is None:
        return assays
    found = {assay.id for assay in assays}
    for name in ids:
        if "/" in name and name not in found and (properties is None):
            raise DataError(f"there is no protein '{name}'", "see the column 'protein'")
    return [a for a in assays if a.id in ids or a.id.split("/")[0] in ids]


def _read_entry(data_dir: Path, entry, synonymous: str) -> list[Assay]:
    plain = data_dir / entry.property / f"{entry.id}.csv"
    path = plain if plain.exists() else plain.with_name(f"{entry.id}.csv.gz")
    if not path.exists():
        raise DataError("the file does not exist", "restore it or its manifest row", file=plain)
    required, optional = ["mutant", "score"], ["mutated_sequence"]
    collection = ["protein", "wild_type_sequence"]
    if entry.target_seq:
        columns = read_columns(path, required, [*optional, *collection])
    else:
        columns = read_columns(path, [*required, *collection], optional)
    scores = parse_numbers(columns["score"], file=path, column="score")
    index = rows_kept(columns["mutant"], synonymous)
    if set(collection) <= set(columns):
        groups = _group_rows(columns, index, path)
    else:
        groups = {"": (entry.target_seq, index)}
    return [
        Assay(
            f"{entry.id}/{protein}" if protein else entry.id,
            protein or entry.protein,
            entry.property,
            wild_type,
            _variants(columns, rows, wild_type, path, "mutant"),
            scores[rows],
            entry.score_units,
            entry.sign,
            entry.doi,
        )
        for protein, (wild_type, rows) in groups.items()
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
