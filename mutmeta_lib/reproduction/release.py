"""The csv files of the public repository, read as they are.

The repository (github.com/kuku0202/maml, see the chapter on the audit) states no licence, so none
of its files is part of this library: a user who has a copy gives its folder. Two layouts are
read: the repository's own (``preprocess_data/fireprot_dTm_test.csv``) and all files in one folder
(``preprocess_data__fireprot_dTm_test.csv``), each plain or gzipped.

Rows are kept as written, sound or not: `findings` counts what they hold.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mutmeta_lib.data.tables import FIRST_ROW, parse_numbers, read_columns
from mutmeta_lib.data.variants import AMINO_ACIDS, Substitution, Variant
from mutmeta_lib.errors import DataError

LABELS = {
    "binding_affinity": "binding_affinity",
    "combined_ddG": "ddG",
    "enrichment_score": "enrichment_score",
    "fireprot_dTm": "dTm",
    "fluorescence_intensity": "fluorescence_intensity",
    "functional_fitness": "functional_fitness",
    "soluprotmut_solubility": "solubility_change",
    "stability_proxy": "stability_proxy",
}
"""Data set -> the column of its measured values."""

FOLDERS = {"train": "preprocess_data", "test": "preprocess_data", "raw": "raw_dataset"}
"""Part of a data set -> the repository's folder."""

LISTED = tuple(
    f"{name}_{part}"
    for name in LABELS
    for part in FOLDERS
    if name != "functional_fitness" or part == "raw"
)
"""Every table that the version of 22 July 2025 lists. (A last one, ``combined_ddG_all``, is the
train and test part of ``combined_ddG`` one after the other.)"""

MOST_MUTATIONS = 7
_WRITTEN = re.compile(r"([A-Z])([1-9][0-9]*)([A-Z])", re.ASCII)


class Written(NamedTuple):
    """A mutation as a row writes it: two letters and a position that counts from 1.

    Nothing is implied about which letter the sequence holds.
    """

    first: str
    position: int
    last: str

    def __str__(self) -> str:
        return f"{self.first}{self.position}{self.last}"


@dataclass(frozen=True, eq=False)
class ReleaseFile:
    """One table of the public repository; n rows, one per measurement.

    Attributes:
        name: The data set, such as ``fireprot_dTm``.
        part: ``train``, ``test`` or ``raw``.
        sequences: The sequence that each row states.
        mutations: Per row the mutations that it writes, one or more.
        labels: The measured values, shape (n,), float64, read-only; scaled in train and test.
        sources: Where each row comes from, in the repository's words.
        features: Which column of that source, in the repository's words.
        sha256: Hash of the csv file's bytes (unpacked).

    """

    name: str
    part: str
    sequences: tuple[str, ...]
    mutations: tuple[tuple[Written, ...], ...]
    labels: np.ndarray
    sources: tuple[str, ...]
    features: tuple[str, ...]
    sha256: str

    def __len__(self) -> int:
        return len(self.sequences)

    @property
    def id(self) -> str:
        """Name and part: ``fireprot_dTm_test``."""
        return f"{self.name}_{self.part}"


def find_file(release_dir: str | PathLike[str], id: str) -> Path | None:
    """Where a table lies in a copy of the repository, or None."""
    name, _, part = id.rpartition("_")
    if part not in FOLDERS or name not in LABELS:
        raise DataError(f"there is no table '{id}'", f"use one of {', '.join(LISTED)}")
    stem = name if part == "raw" else id
    for between in ("/", "__"):
        for ending in (".csv", ".csv.gz"):
            path = Path(release_dir, f"{FOLDERS[part]}{between}{stem}{ending}")
            if path.is_file():
                return path
    return None


def read_release(
    release_dir: str | PathLike[str], ids: Sequence[str] | None = None
) -> dict[str, ReleaseFile]:
    """Read tables of the public repository, by id.

    Without `ids`, every listed table that is there: copies often lack the largest. With `ids`,
    exactly those. Raises `DataError` where one is missing or none is found, and for any row that
    cannot be read, naming file, row and column.
    """
    found = {id: find_file(release_dir, id) for id in ids or LISTED}
    missing = [id for id, path in found.items() if path is None]
    if len(missing) == len(found) or (ids is not None and missing):
        raise DataError(
            f"the folder holds no table '{missing[0]}'",
            "give a copy of the public repository, or of its two data folders",
            file=Path(release_dir),
        )
    return {id: read_release_file(path, id) for id, path in found.items() if path is not None}


def read_release_file(path: str | PathLike[str], id: str) -> ReleaseFile:
    """Read one table.

    Raises `DataError` naming file, row and column for a row without a sequence, without a
    mutation, or with one that is not two letters around a position inside the sequence, and for a
    label that is not a number.
    """
    path = Path(path)
    name, _, part = id.rpartition("_")
    numbered = [f"mutation{i}" for i in range(1, MOST_MUTATIONS + 1)]
    needed = ["sequence", "mutation1", LABELS[name], "source", "original_feature"]
    columns = read_columns(path, needed, numbered[1:])
    mutations = []
    for i, sequence in enumerate(columns["sequence"]):
        try:
            mutations.append(_mutations(sequence, columns, numbered, i))
        except DataError as error:
            raise error.at(file=path, row=FIRST_ROW + i) from None
    labels = parse_numbers(columns[LABELS[name]], file=path, column=LABELS[name])
    labels.setflags(write=False)
    content = path.read_bytes()
    return ReleaseFile(
        name,
        part,
        tuple(columns["sequence"]),
        tuple(mutations),
        labels,
        tuple(columns["source"]),
        tuple(columns["original_feature"]),
        hashlib.sha256(gzip.decompress(content) if path.suffix == ".gz" else content).hexdigest(),
    )


def _mutations(
    sequence: str, columns: dict[str, list[str]], numbered: Sequence[str], row: int
) -> tuple[Written, ...]:
    if not sequence:
        raise DataError("the row has no sequence", "fill it in", column="sequence")
    found = []
    for column in numbered:
        text = columns[column][row] if column in columns else ""
        if not text:
            continue
        match = _WRITTEN.fullmatch(text)
        if match is None:
            raise DataError(
                f"'{text}' is not a letter, a position and a letter", "correct it", column=column
            )
        written = Written(match[1], int(match[2]), match[3])
        if written.position > len(sequence):
            raise DataError(
                f"position {written.position} lies outside the sequence ({len(sequence)} residues)",
                "correct it",
                column=column,
            )
        found.append(written)
    if not found:
        raise DataError("the row has no mutation", "fill it in", column=numbered[0])
    return tuple(found)


def undo(sequence: str, mutations: Sequence[Written]) -> str:
    """Put the last letter of each mutation at its position.

    For a row whose sequence is the mutant and whose mutation is written backwards this is the
    wild type; for a row that states the wild type it is the mutant.

    >>> undo("MGTA", [Written("G", 2, "K")])
    'MKTA'
    """
    letters = list(sequence)
    for written in mutations:
        letters[written.position - 1] = written.last
    return "".join(letters)


def as_stated(sequence: str, mutations: Sequence[Written]) -> tuple[str, Variant]:
    """A row taken at its word: the sequence is the wild type, first letters turn into last ones.

    A mutation into the same letter is left out (``A24A`` changes nothing). Raises `DataError` when
    a letter is not an amino acid.
    """
    changed = [w for w in mutations if w.first != w.last]
    return sequence, tuple(sorted(Substitution(w.position, w.first, w.last) for w in changed))


def as_restored(sequence: str, mutations: Sequence[Written]) -> tuple[str, Variant]:
    """A row read as mutant sequence with the mutation written backwards: its true wild type."""
    reversed_ = [Written(w.last, w.position, w.first) for w in mutations]
    return undo(sequence, mutations), as_stated(sequence, reversed_)[1]


def is_amino_acids(written: Written) -> bool:
    """Whether both letters are amino acids (``A79X`` is not a substitution)."""
    return written.first in AMINO_ACIDS and written.last in AMINO_ACIDS
