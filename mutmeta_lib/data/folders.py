"""Folders of assays, with a manifest or as ProteinGym has them, and which of a folder to use."""

import re
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from mutmeta_lib.data.assays import PROPERTIES, Assay, DataSet, check_property, table_name
from mutmeta_lib.data.proteingym import find_reference, proteingym_sets
from mutmeta_lib.data.tables import FIRST_ROW, parse_numbers, read_columns, reading
from mutmeta_lib.data.variants import check_sequence
from mutmeta_lib.errors import DataError, located
from mutmeta_lib.seeds import stable_seed

DEMO = "demo"
LISTS = Path(__file__).parent / "lists"
"""Lists of assays: ids and counts, no measured value.

``benchmark`` is every assay of ProteinGym in `CANDIDATES` whose scores are at hand and which has
150 single variants or more, without a cap; a role is ProteinGym's coarse selection type. Signs are
those of the data: ProteinGym's, so that higher is more toxic in ``TADBP_HUMAN_Bolognesi_2019``, but
for ``A4_HUMAN_Seuma_2022``, where higher is less nucleation.

``arms`` is for the paper's three properties, with at most 200 variants of an assay, since a read
of texts runs the encoder once for each: of ``benchmark``, fitness and stability in wild types of at
most 250 residues; every data set of one protein that measures solubility of 150 single variants or
more, and nothing but single ones; and as roles of their own, which have means of their own
(`LITERATURE`), of the largest collection of each kind the proteins with 50 variants or more.

``sound`` is of older records: of proteins of at most 500 residues, one assay per role of a
cluster at 30 % identity, up to 24 in a role. Which of those that fit were taken, no rule says.
"""
LITERATURE = ("literature ddG", "literature dTm")
"""Roles of small sets that were collected from the literature."""
CANDIDATES = Path(__file__).parent / "candidates.csv"
"""All data sets that the lists were made from, with what a rule needs (counts, no measured value),
and ``why`` each is in ``benchmark`` or not; of the collections that ``arms`` has, the proteins with
20 variants or more as well."""

_LOWER = re.compile(
    r"(as in source:? *)?(lower|low|smaller|negative)\b"
    r"|(?!flipped).*(\b(lower|smaller) *(=|is) *better|\bhigher *(=|is) *worse)",
    re.IGNORECASE,
)
_MANIFEST = ("id", "property", "protein", "target_seq", "score_units", "sign")


def demo_dir() -> Path:
    """Return the folder of the bundled demo data, a data directory like any other."""
    return Path(__file__).parent / "demo"


def read_data_dir(
    data_dir: str | Path = DEMO,
    *,
    ids: Sequence[str] | None = None,
    properties: Sequence[str] | None = None,
) -> list[Assay]:
    """Read the assays of a folder; ``demo`` means those bundled with the library.

    The folder holds ``MANIFEST.csv`` (`read_manifest`), whose order is kept, and
    ``<property>/<id>.csv`` or ``.csv.gz`` with the columns mutant and score, or ProteinGym's
    reference file and tables. A file with the columns protein and wild_type_sequence as well is a
    collection: it gives one assay per protein, called ``<id>/<protein>``. `ids` selects data sets,
    or single proteins of a collection. Warns of tables that the folder does not name. Raises
    `DataError` for an id that is not there and for any invalid row.
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
    assays = [assay for data in chosen for assay in data.read()]
    if ids is None:
        return assays
    absent = {name for name in ids if "/" in name} - {assay.id for assay in assays}
    if absent and properties is None:
        raise DataError(f"there is no protein '{min(absent)}'", "see the column 'protein'")
    return [assay for assay in assays if not {assay.id, assay.id.split("/")[0]}.isdisjoint(ids)]


def read_manifest(data_dir: str | Path) -> pd.DataFrame:
    """Read ``MANIFEST.csv`` of a data directory: one row per data set.

    Columns: id, property, protein, target_seq (the wild type; empty for a collection), score_units,
    sign (not empty, and not that lower is better), doi (empty where unknown). Raises `DataError`
    for what is not so, and for an id twice.
    """
    path = Path(data_dir) / "MANIFEST.csv"
    table = pd.DataFrame(read_columns(path, _MANIFEST, ["doi"]), dtype=str)
    seen: dict[str, int] = {}
    for row, entry in enumerate(table.itertuples(), start=FIRST_ROW):
        with located(file=path, row=row):
            with located(column="id"):
                if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", entry.id):
                    raise DataError(f"'{entry.id}' is no name of a file", "use A-Z, 0-9, . _ and -")
                if (first := seen.setdefault(entry.id, row)) != row:
                    raise DataError(f"'{entry.id}' is also in row {first}", "rename one of them")
            with located(column="property"):
                check_property(entry.property)
            with located(column="target_seq"):
                check_sequence(entry.target_seq or "X")
            if _LOWER.match(entry.sign) or not entry.sign:
                problem = f"the sign '{entry.sign}' does not say that higher is better"
                mend = "multiply the scores by -1 if it is not, and say so, as in 'flipped'"
                raise DataError(problem, mend, column="sign")
    return table.assign(doi=table.get("doi", ""))


def _manifest_sets(folder: Path) -> dict[str, DataSet]:
    sets = {}
    names = {"target_seq": "wild_type", "score_units": "units", "doi": "source"}
    for about in read_manifest(folder).rename(columns=names).to_dict("records"):
        path = folder / about["property"] / f"{about['id']}.csv"
        sets[about["id"]] = DataSet(path, about)
    named = {data.path for data in sets.values()}
    found = [path for name in PROPERTIES for path in sorted((folder / name).glob("*.csv*"))]
    if others := [p for p in found if p.with_name(f"{table_name(p)}.csv") not in named]:
        shown = ", ".join(path.relative_to(folder).as_posix() for path in others)
        warnings.warn(f"{folder}: the manifest does not name {shown}; not read", stacklevel=3)
    return sets


def read_list(name: str | Path = "arms") -> pd.DataFrame:
    """Read a list by the name it has in `LISTS`, or from a csv file of your own.

    Columns: id (of a data set, or ``<data set>/<protein>``), property, role (assays of one kind of
    measurement), variants (how many the assay has), length (residues of the wild type), cap (how
    many variants to use at most).
    """
    path = next((p for p in (LISTS / f"{name}.csv", Path(name)) if p.exists()), None)
    if path is None:
        known = ", ".join(sorted(file.stem for file in LISTS.glob("*.csv")))
        raise DataError(f"there is no list of assays '{name}'", f"name {known}, or a csv file")
    counts = ("variants", "length", "cap")
    table = pd.DataFrame(read_columns(path, ["id", "property", "role", *counts]), dtype=str)
    for column in counts:
        table[column] = parse_numbers(table[column].tolist(), file=path, column=column).astype(int)
    return table


def read_listed(
    data_dir: str | Path,
    name: str | Path = "arms",
    *,
    cap: int | None = None,
    roles: Sequence[str] | None = None,
) -> list[Assay]:
    """Read the assays of a list (of `roles` only) from a data directory, in order of id.

    Each is cut to its cap in the list, or to `cap` if that is lower (`cap_assay`). Raises
    `DataError` for an assay that is not there, or that differs from the list in its property,
    number of variants or length.
    """
    table = read_list(name).sort_values("id")
    table = table if roles is None else table[table["role"].isin(roles)]
    assays = {assay.id: assay for assay in read_data_dir(data_dir, ids=table["id"].tolist())}
    chosen = []
    for row in table.itertuples():
        if (assay := assays.get(row.id)) is None:
            raise DataError(f"there is no assay '{row.id}'", "list proteins of a collection")
        listed = row.property, row.variants, row.length
        if (found := (assay.property, len(assay), len(assay.wild_type))) != listed:
            problem = f"{row.id} has (property, variants, residues) {found}, the list says {listed}"
            raise DataError(problem, "use the data that the list was made for")
        chosen.append(cap_assay(assay, row.cap if cap is None else min(cap, row.cap)))
    return chosen


def cap_assay(assay: Assay, cap: int) -> Assay:
    """Keep at most `cap` variants of an assay, drawn evenly by its id, in the order they had.

    Growing caps are nested; `DataError` for a cap below 1.
    """
    if cap < 1:
        raise DataError(f"a cap of {cap} leaves no variant", "use 1 or more")
    if len(assay) <= cap:
        return assay
    rng = np.random.default_rng(stable_seed("cap", 0, assay.id))
    rows = np.sort(rng.permutation(len(assay))[:cap])
    return replace(assay, variants=[assay.variants[i] for i in rows], scores=assay.scores[rows])
