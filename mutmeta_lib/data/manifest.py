"""The manifest of a data directory: which data sets there are and what they measure."""

from __future__ import annotations

import re
from os import PathLike
from pathlib import Path

import pandas as pd

from mutmeta_lib.data.tables import FIRST_ROW, read_columns
from mutmeta_lib.data.variants import check_sequence
from mutmeta_lib.errors import DataError

PROPERTIES = ("fitness", "stability", "solubility", "expression")
"""The kinds of property an assay may measure."""


def check_property(name: str) -> None:
    """Raise `DataError` unless `name` is one of `PROPERTIES`."""
    if name not in PROPERTIES:
        raise DataError(f"'{name}' is not a property", f"use one of {', '.join(PROPERTIES)}")


_LOWER = re.compile(
    r"(as in source:? *)?(lower|low|smaller|negative)\b"
    r"|(?!flipped).*(\b(lower|smaller) *(=|is) *better|\bhigher *(=|is) *worse)",
    re.IGNORECASE,
)
_MANIFEST_COLUMNS = ("id", "property", "protein", "target_seq", "n_proteins", "score_units", "sign")


def read_manifest(data_dir: str | PathLike[str]) -> pd.DataFrame:
    """Read ``MANIFEST.csv`` of a data directory: one row per data set.

    Columns: id, property, protein, target_seq (the wild type; empty for a collection),
    n_proteins (int), score_units, sign, doi (empty where unknown). Raises `DataError` for a file
    in place of the folder, a missing column, a repeated id, an unknown property, a wild type with
    a wrong letter, or a sign that says that lower is better.
    """
    if Path(data_dir).is_file():
        raise DataError("this is a file", "give the folder with MANIFEST.csv", file=data_dir)
    path = Path(data_dir) / "MANIFEST.csv"
    columns = read_columns(path, _MANIFEST_COLUMNS, ["doi"])
    seen: dict[str, int] = {}
    for i, name in enumerate(columns["id"]):
        row = FIRST_ROW + i
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise DataError(
                f"'{name}' cannot name a file",
                "use letters, digits, '.', '_' and '-'",
                file=path,
                row=row,
                column="id",
            )
        if seen.setdefault(name, row) != row:
            raise DataError(
                f"'{name}' is also in row {seen[name]}",
                "give each data set its own id",
                file=path,
                row=row,
                column="id",
            )
        try:
            column = "property"
            check_property(columns["property"][i])
            column = "n_proteins"
            if not re.fullmatch(r"[1-9][0-9]*", columns["n_proteins"][i]):
                raise DataError(
                    f"'{columns['n_proteins'][i]}' is not a count of proteins", "write 1 or more"
                )
            column = "target_seq"
            if columns["target_seq"][i]:
                check_sequence(columns["target_seq"][i])
            column = "sign"
            if _LOWER.match(columns["sign"][i]):
                raise DataError(
                    f"the sign says '{columns['sign'][i]}', and here higher is better",
                    "multiply the scores by -1 and write 'flipped; higher = better'",
                )
        except DataError as error:
            raise error.at(file=path, row=row, column=column) from None
    table = pd.DataFrame(columns, dtype=str)
    if "doi" not in table:
        table["doi"] = ""
    return table.assign(n_proteins=table["n_proteins"].astype(int))
