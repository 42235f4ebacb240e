"""Folders of assays: a manifest with one csv per data set, or ProteinGym's files as they come."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import pandas as pd

from mutmeta_lib.data.assays import PROPERTIES, Assay, DataSet, check_property, table_name
from mutmeta_lib.data.proteingym import find_reference, proteingym_sets
from mutmeta_lib.data.tables import FIRST_ROW, read_columns, reading
from mutmeta_lib.data.variants import check_sequence
from mutmeta_lib.errors import DataError, located

DEMO = "demo"
"""The folder that means the data bundled with the library."""

_LOWER = re.compile(
    r"(as in source:? *)?(lower|low|smaller|negative)\b"
    r"|(?!flipped).*(\b(lower|smaller) *(=|is) *better|\bhigher *(=|is) *worse)",
    re.IGNORECASE,
)
_MANIFEST = ("id", "property", "protein", "target_seq", "n_proteins", "score_units", "sign")


def demo_dir() -> Path:
    """Return the folder of the bundled demo data, a data directory like any other."""
    return Path(__file__).parent / "demo"


def read_data_dir(
    data_dir: str | PathLike[str] = DEMO,
    *,
    ids: Sequence[str] | None = None,
    properties: Sequence[str] | None = None,
    drop: Sequence[str] = (),
) -> list[Assay]:
    """Read the assays of a folder; ``demo`` means those bundled with the library.

    The folder holds ``MANIFEST.csv`` (`read_manifest`), whose order is kept, and
    ``<property>/<id>.csv`` or ``.csv.gz`` with the columns mutant and score (and mutated_sequence,
    checked where present). A file with the columns protein and wild_type_sequence is a collection:
    it gives one assay per protein, called ``<id>/<protein>``. A folder without manifest that holds
    ProteinGym's reference file is read as `proteingym.read_proteingym` reads its files.

    `ids` selects data sets, or single proteins of a collection; `properties` selects kinds; `drop`
    is as in `read_table`. Warns of tables that the folder does not name, and of proteins of which
    `drop` leaves nothing. Raises `DataError` for an id that is not there and for any invalid row.

    >>> [assay.id for assay in read_data_dir("demo", properties=["stability"])]
    ['GB1_NISTHAL2019_on_WT']
    """
    folder = demo_dir() if data_dir == DEMO else Path(data_dir)
    for name in properties or ():
        check_property(name)
    with reading(folder):
        reference = find_reference(folder)
        sets = proteingym_sets(folder, reference) if reference else _manifest_sets(folder)
    wanted = sets if ids is None else {name.split("/")[0] for name in ids}
    if missing := sorted(set(wanted) - set(sets)):
        mend = f"see the names in {(reference or folder / 'MANIFEST.csv').name}"
        raise DataError(f"there is no data set '{missing[0]}'", mend, file=folder)
    kinds = PROPERTIES if properties is None else properties
    chosen = [d for name, d in sets.items() if name in wanted and d.about["property"] in kinds]
    assays = [assay for data in chosen for assay in data.read(drop)]
    if ids is None:
        return assays
    absent = {name for name in ids if "/" in name} - {assay.id for assay in assays}
    if absent and properties is None:
        raise DataError(f"there is no protein '{min(absent)}'", "see the column 'protein'")
    return [assay for assay in assays if not {assay.id, assay.id.split("/")[0]}.isdisjoint(ids)]


def read_manifest(data_dir: str | PathLike[str]) -> pd.DataFrame:
    """Read ``MANIFEST.csv`` of a data directory: one row per data set.

    Columns: id, property, protein, target_seq (the wild type; empty for a collection),
    n_proteins (int), score_units, sign, doi (empty where unknown). Raises `DataError` for a file
    in place of the folder, a missing column, a repeated id, an unknown property, a wild type with
    a wrong letter, and a sign that is empty or says that lower is better.
    """
    if Path(data_dir).is_file():
        raise DataError("this is a file", "give the folder with MANIFEST.csv", file=data_dir)
    path = Path(data_dir) / "MANIFEST.csv"
    table = pd.DataFrame(read_columns(path, _MANIFEST, ["doi"]), dtype=str)
    seen: dict[str, int] = {}
    for row, entry in enumerate(table.itertuples(), start=FIRST_ROW):
        with located(file=path, row=row):
            with located(column="id"):
                if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", entry.id):
                    mend = "use letters, digits, '.', '_' and '-'"
                    raise DataError(f"'{entry.id}' cannot name a file", mend)
                if (first := seen.setdefault(entry.id, row)) != row:
                    mend = "give each data set its own id"
                    raise DataError(f"'{entry.id}' is also in row {first}", mend)
            with located(column="property"):
                check_property(entry.property)
            with located(column="target_seq"):
                check_sequence(entry.target_seq or "X")
            with located(column="n_proteins"):
                if not re.fullmatch("[1-9][0-9]*", entry.n_proteins):
                    raise DataError(f"'{entry.n_proteins}' is not a count", "write 1 or more")
            with located(column="sign"):
                if not entry.sign:
                    raise DataError("the sign is empty", "say how higher came to be better")
                if _LOWER.match(entry.sign):
                    problem = f"the sign says '{entry.sign}', and here higher is better"
                    mend = "multiply the scores by -1 and write 'flipped; higher = better'"
                    raise DataError(problem, mend)
    return table.assign(n_proteins=table["n_proteins"].astype(int), doi=table.get("doi", ""))


def _manifest_sets(folder: Path) -> dict[str, DataSet]:
    sets = {}
    for entry in read_manifest(folder).itertuples():
        path = folder / entry.property / f"{entry.id}.csv"
        about = {"id": entry.id, "protein": entry.protein, "property": entry.property}
        about |= {"wild_type": entry.target_seq, "units": entry.score_units, "sign": entry.sign}
        about["source"] = entry.doi
        sets[entry.id] = DataSet(path, about, entry.n_proteins)
    named = {(data.path.parent.name, name) for name, data in sets.items()}
    found = [path for name in PROPERTIES for path in sorted((folder / name).glob("*.csv*"))]
    if others := [path for path in found if (path.parent.name, table_name(path)) not in named]:
        names = ", ".join(path.relative_to(folder).as_posix() for path in others)
        warnings.warn(f"{folder}: the manifest does not name {names}; not read", stacklevel=3)
    return sets
