"""Lists of assays: which of a data directory an experiment uses, and how many variants of each.

A list holds ids and counts, no measured value. ``sound`` is that of the book's third arm: proteins
of at most 500 residues, per role one assay for each protein cluster, the one with most variants
(chosen by counts, without a look at scores).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from os import PathLike
from pathlib import Path

import numpy as np
import pandas as pd

from mutmeta_lib.data.assays import PROPERTIES, Assay, read_data_dir
from mutmeta_lib.data.tables import FIRST_ROW, parse_numbers, read_columns
from mutmeta_lib.errors import DataError
from mutmeta_lib.seeds import stable_seed

SELECTIONS = Path(str(files("mutmeta_lib"))) / "data" / "selections"
"""The lists that come with the library, one csv each."""

_COLUMNS = ("id", "property", "role", "variants", "length", "cap")


def read_selection(selection: str | PathLike[str] = "sound") -> pd.DataFrame:
    """Read a list by the name it has in `SELECTIONS`, or from a csv file of your own.

    Columns: id (of a data set, or ``<data set>/<protein>``), property, role (text: assays of one
    property and one kind of measurement), variants (how many the assay has), length (residues of
    the wild type), cap (how many variants to use at most).

    Raises:
        DataError: No such list, a missing column, an id twice, an unknown property, or no count.

    >>> read_selection("sound")["property"].value_counts().to_dict()
    {'stability': 56, 'fitness': 24, 'solubility': 14}

    """
    path = SELECTIONS / f"{selection}.csv"
    if not path.exists():
        path = Path(selection)
    if not path.exists():
        known = ", ".join(sorted(file.stem for file in SELECTIONS.glob("*.csv")))
        raise DataError(f"there is no list of assays '{selection}'", f"name {known}, or a csv file")
    table = pd.DataFrame(read_columns(path, _COLUMNS), dtype=str)
    for column in ("variants", "length", "cap"):
        table[column] = parse_numbers(table[column].tolist(), file=path, column=column).astype(int)
    for place, row in enumerate(table.itertuples()):
        where = {"file": path, "row": FIRST_ROW + place}
        if row.property not in PROPERTIES:
            known = ", ".join(PROPERTIES)
            raise DataError(
                f"'{row.property}' is not a property", f"use {known}", **where, column="property"
            )
        if row.cap < 1:
            raise DataError("the cap leaves no variant", "write 1 or more", **where, column="cap")
    if table["id"].duplicated().any():
        place = int(np.argmax(table["id"].duplicated()))
        where = {"file": path, "row": FIRST_ROW + place, "column": "id"}
        raise DataError(f"'{table['id'][place]}' is listed twice", "list it once", **where)
    return table


def load_selection(
    data_dir: str | PathLike[str],
    selection: str | PathLike[str] = "sound",
    *,
    cap: int | None = None,
    seed: int = 0,
    roles: Sequence[str] | None = None,
    flip: Sequence[str] = (),
    drop: Sequence[str] = (),
) -> list[Assay]:
    """Read the listed assays, each cut to its cap by a draw that depends on `seed` and id alone.

    Args:
        data_dir: A data directory, see `assays.read_data_dir`.
        selection: The list, see `read_selection`.
        cap: Use at most so many variants of an assay, whatever the list says; None is its word.
        seed: Of the draw (`cap_assay`), made once, before anything is split.
        roles: Take the assays of these roles alone.
        flip: Ids of assays whose scores are higher for the worse; their sign is changed.
        drop: As in `assays.read_table`.

    Returns:
        The assays in order of id.

    Raises:
        DataError: An assay is not there, or differs from the list in its property, number of
            variants or length, so that another selection would be tested under the same name.

    """
    table = read_selection(selection)
    if roles is not None:
        if unknown := sorted(set(roles) - set(table["role"])):
            known = ", ".join(pd.unique(table["role"]))
            raise DataError(f"no listed assay has the role '{unknown[0]}'", f"use one of {known}")
        table = table[table["role"].isin(roles)]
    if strange := sorted(set(flip) - set(table["id"])):
        raise DataError(f"'{strange[0]}' is to be flipped, but is not listed", "check its name")
    found = read_data_dir(data_dir, ids=table["id"].tolist(), drop=drop)
    assays = {assay.id: assay for assay in found}
    chosen = []
    for row in table.sort_values("id").itertuples():
        if row.id not in assays:
            raise DataError(f"there is no assay '{row.id}'", "see the manifest of the data")
        assay = assays[row.id]
        found_as = (assay.property, len(assay), len(assay.wild_type))
        if found_as != (row.property, row.variants, row.length):
            raise DataError(
                f"{row.id} is {found_as[0]} with {found_as[1]} variants of {found_as[2]} residues, "
                f"the list says {row.property}, {row.variants} and {row.length}",
                "use the data that the list was made for, or write a list of your own",
            )
        if row.id in flip:
            assay = replace(assay, scores=-assay.scores, sign=f"{assay.sign}; flipped")
        chosen.append(cap_assay(assay, row.cap if cap is None else min(cap, row.cap), seed))
    return chosen


def cap_assay(assay: Assay, cap: int, seed: int = 0) -> Assay:
    """At most ``cap`` variants of an assay, drawn evenly, in the order they had.

    The draw depends on seed and id alone, and growing caps are nested.

    Raises:
        DataError: The cap is below 1.

    """
    if cap < 1:
        raise DataError(f"a cap of {cap} leaves no variant", "use 1 or more")
    if len(assay) <= cap:
        return assay
    rng = np.random.default_rng(stable_seed("cap", seed, assay.id))
    rows = np.sort(rng.permutation(len(assay))[:cap])
    variants = tuple(assay.variants[row] for row in rows)
    return replace(assay, variants=variants, scores=assay.scores[rows])
