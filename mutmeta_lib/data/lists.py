"""Lists of assays: which of a data directory an experiment uses, and how many variants of each.

A list holds ids and counts, no measured value. ``sound`` is that of the book's third arm: proteins
of at most 500 residues, per role one assay for each protein cluster, the one with most variants
(chosen by counts, without a look at scores).
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from mutmeta_lib.data.assays import Assay, check_property
from mutmeta_lib.data.folders import read_data_dir
from mutmeta_lib.data.tables import FIRST_ROW, parse_numbers, read_columns
from mutmeta_lib.errors import DataError, located
from mutmeta_lib.seeds import stable_seed

LISTS = Path(__file__).parent / "lists"


def read_list(name: str | Path = "sound") -> pd.DataFrame:
    """Read a list by the name it has in `LISTS`, or from a csv file of your own.

    Columns: id (of a data set, or ``<data set>/<protein>``), property, role (assays of one kind of
    measurement), variants (how many the assay has), length (residues of the wild type), cap (how
    many variants to use at most). Raises `DataError` for what is not so, and for an id twice.

    >>> read_list("sound")["property"].value_counts().to_dict()
    {'stability': 56, 'fitness': 24, 'solubility': 14}
    """
    path = next((p for p in (LISTS / f"{name}.csv", Path(name)) if p.exists()), None)
    if path is None:
        known = ", ".join(sorted(file.stem for file in LISTS.glob("*.csv")))
        raise DataError(f"there is no list of assays '{name}'", f"name {known}, or a csv file")
    counts = ("variants", "length", "cap")
    table = pd.DataFrame(read_columns(path, ["id", "property", "role", *counts]), dtype=str)
    for column in counts:
        table[column] = parse_numbers(table[column].tolist(), file=path, column=column).astype(int)
    twice = table["id"].duplicated()
    for i, row in enumerate(table.itertuples()):
        with located(file=path, row=FIRST_ROW + i, column="property"):
            check_property(row.property)
            if row.cap < 1:
                raise DataError("the cap leaves no variant", "write 1 or more", column="cap")
            if twice[i]:
                raise DataError(f"'{row.id}' is listed twice", "list it once", column="id")
    return table


def read_listed(
    data_dir: str | Path,
    name: str | Path = "sound",
    *,
    cap: int | None = None,
    roles: Sequence[str] | None = None,
) -> list[Assay]:
    """Read the assays of a list (of `roles` only) from a data directory, in order of id.

    Each is cut to its cap in the list, or to `cap` if that is lower (`cap_assay`). Raises
    `DataError` for an assay that is not there, or differs from the list in its property, number of
    variants or length, so that other data would be tested under the same name.
    """
    table = read_list(name).sort_values("id")
    if unknown := sorted(set(roles or ()) - set(table["role"])):
        known = ", ".join(pd.unique(table["role"]))
        raise DataError(f"no listed assay has the role '{unknown[0]}'", f"use one of {known}")
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
