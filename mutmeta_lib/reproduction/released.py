"""The csv files of the public repository as one tidy table, and the text its code makes of a row.

The repository (github.com/kuku0202/maml) states no licence, so none of its files is part of this
library: a user who has a copy gives its folder. Two layouts are read, each plain or gzipped: the
repository's own (``preprocess_data/fireprot_dTm_test.csv``) and all files in one folder
(``preprocess_data__fireprot_dTm_test.csv``). Rows are kept as written, sound or not.
"""

import gzip
import hashlib
import re
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from mutmeta_lib.data.tables import FIRST_ROW, parse_numbers, read_columns
from mutmeta_lib.data.variants import AMINO_ACIDS, Substitution, Variant
from mutmeta_lib.errors import DataError, located

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
"""Every table that the version of 22 July 2025 lists, but for ``combined_ddG_all``, which is the
train and test part of ``combined_ddG`` one after the other."""
INITIAL = "combined_ddG"
"""The data set of the initial fit, train and test part together."""

NUMBERED = tuple(f"mutation{i}" for i in range(1, 8))
_WRITTEN = re.compile(r"([A-Z])([1-9][0-9]*)([A-Z])", re.ASCII)


class Written(NamedTuple):
    """A mutation as a row writes it: two letters, whichever the sequence holds, and a position."""

    first: str
    position: int
    last: str

    def __str__(self) -> str:
        return f"{self.first}{self.position}{self.last}"


def find_table(release_dir: str | PathLike[str], id: str) -> Path | None:
    """Where a table, such as ``fireprot_dTm_test``, lies in a copy of the repository, or None."""
    name, _, part = id.rpartition("_")
    stem = name if part == "raw" else id
    names = (f"{FOLDERS[part]}{between}{stem}.csv" for between in ("/", "__"))
    paths = (Path(release_dir, name + ending) for name in names for ending in ("", ".gz"))
    return next((path for path in paths if path.is_file()), None)


def read_release(
    release_dir: str | PathLike[str], ids: Sequence[str] | None = None
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Tables of the public repository as one, and the SHA-256 of each csv file (unpacked) by id.

    Without `ids`, every listed table that is there: copies often lack the largest. Columns are
    ``table`` (the id), ``name``, ``part``, ``sequence``, ``mutations`` (a tuple of `Written`),
    ``label`` (scaled in train and test), and in the repository's words ``source`` and ``feature``;
    one row per measurement, in file order. Raises `DataError` where a table of `ids`, or every one,
    is missing, and for a row that is not a sequence, mutations inside it and a number.
    """
    found = {id: find_table(release_dir, id) for id in ids or LISTED}
    missing = [id for id, path in found.items() if path is None]
    if len(missing) == len(found) or (ids is not None and missing):
        problem = f"the folder holds no table '{missing[0]}'"
        mend = "give a copy of the public repository, or of its two data folders"
        raise DataError(problem, mend, file=Path(release_dir))
    rows, hashes = [], {}
    for id, path in found.items():
        if path is not None:
            rows.append(_read(path, id))
            with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
                hashes[id] = hashlib.sha256(file.read()).hexdigest()
    return pd.concat(rows, ignore_index=True), hashes


def _read(path: Path, id: str) -> pd.DataFrame:
    name, _, part = id.rpartition("_")
    measured = LABELS[name]
    needed = ["sequence", NUMBERED[0], measured, "source", "original_feature"]
    columns = read_columns(path, needed, NUMBERED[1:])
    written, mutations = [column for column in NUMBERED if column in columns], []
    cells = zip(columns["sequence"], *(columns[column] for column in written), strict=True)
    for row, (sequence, *texts) in enumerate(cells, FIRST_ROW):
        with located(file=path, row=row):
            mutations.append(_mutations(sequence, zip(written, texts, strict=True)))
    table = {"table": id, "name": name, "part": part, "sequence": columns["sequence"]}
    label = parse_numbers(columns[measured], file=path, column=measured)
    table |= {"mutations": mutations, "label": label, "source": columns["source"]}
    return pd.DataFrame(table | {"feature": columns["original_feature"]})


def _mutations(sequence: str, cells: Iterable[tuple[str, str]]) -> tuple[Written, ...]:
    if not sequence:
        raise DataError("the row has no sequence", "fill it in", column="sequence")
    found = []
    for column, text in ((column, text) for column, text in cells if text):
        match = _WRITTEN.fullmatch(text)
        if not match or int(match[2]) > len(sequence):
            problem = f"'{text}' is not a letter, a position of the sequence and a letter"
            raise DataError(problem, f"count from 1 to {len(sequence)}", column=column)
        found.append(Written(match[1], int(match[2]), match[3]))
    if not found:
        raise DataError("the row has no mutation", "fill it in", column=NUMBERED[0])
    return tuple(found)


def undo(sequence: str, mutations: Sequence[Written]) -> str:
    """Put the last letter of each mutation at its position: the wild type of a backwards row."""
    letters = list(sequence)
    for written in mutations:
        letters[written.position - 1] = written.last
    return "".join(letters)


def described(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of `read_release` with what undoing them shows.

    ``written`` has all mutations as text, ``undone`` their last letters at their positions;
    ``agrees``: the first letters are those of the sequence, which backwards rows pass too. Where
    the rows of a source state many sequences (``stated`` counts them) and undoing leaves one, that
    one is the ``wild_type`` and they are written ``backwards``; elsewhere it is the sequence.
    """
    pairs = list(zip(rows["sequence"], rows["mutations"], strict=True))
    rows = rows.assign(
        written=[" ".join(map(str, mutations)) for _, mutations in pairs],
        agrees=[all(s[m.position - 1] == m.first for m in mutations) for s, mutations in pairs],
        undone=[undo(*pair) for pair in pairs],
    )
    distinct = rows.groupby(["table", "source"])[["sequence", "undone"]].transform("nunique")
    backwards = (distinct["sequence"] > 1) & (distinct["undone"] == 1)
    wild_type = rows["undone"].where(backwards, rows["sequence"])
    return rows.assign(backwards=backwards, wild_type=wild_type, stated=distinct["sequence"])


def as_stated(mutations: Sequence[Written]) -> Variant:
    """The variant of a row taken at its word: first letters turn into last ones.

    ``A24A`` changes nothing and is left out. Raises `DataError` for what is not an amino acid.
    """
    changed = [w for w in mutations if w.first != w.last]
    return tuple(sorted(Substitution(w.position, w.first, w.last) for w in changed))


MAX_LENGTH = 1024
READ = 2
"""How many mutations of a row the public code reads."""
FATES = ("in place", "astray", "skipped", "as words", "not read")
"""Marked at its residue, or at something else of the same letter; another letter was found; the
text was too long; beyond those that are read."""


class ReleaseText(NamedTuple):
    """What a tokenizer is given, and what became of each mutation, one of `FATES`."""

    text: str
    fates: tuple[str, ...]


def release_text(
    sequence: str, mutations: Sequence[Written], *, spaced: bool = True
) -> ReleaseText:
    """Write a row as the public code does, in an implementation of our own.

    In the version of 22 July 2025 (``data.py``: ``_combine_mutations``,
    ``_highlight_mutation_in_sequence``, ``_precompute_tokenization``) each mutation that is read is
    looked up in the text *as it stands*, at the character that its position had in the sequence,
    and replaced by a marked pair of residues if the letter there agrees. A text of more than 974
    characters is given up: at most 924 residues, then the mutations as words. `spaced` is the form
    for ProtBERT, with a blank between residues; ESM-2 and BERT get the sequence without.

    >>> release_text("MKTA", [Written("T", 3, "G")]).text
    'M K  [SEP] T [SEP] G [SEP] A'
    >>> release_text("MKTAYIAK", [Written("K", 2, "R"), Written("A", 4, "G")]).fates
    ('in place', 'skipped')
    """
    # Each character with the residue (from 0) that it stands for, if any.
    letters = [pair for i, letter in enumerate(sequence) for pair in ((" ", None), (letter, i))][1:]
    characters = letters if spaced else letters[::2]
    fates = []
    for written in mutations[:READ]:
        characters, fate = _mark(characters, written)
        fates.append(fate)
    unread = ("not read",) * len(mutations[READ:])
    text = "".join(character for character, _ in characters)
    if len(text) <= MAX_LENGTH - 50:
        return ReleaseText(text, (*fates, *unread))
    kept = (" " if spaced else "").join(sequence[: MAX_LENGTH - 100])
    words = " ".join(map(str, mutations[:READ]))
    return ReleaseText(f"{kept} [SEP] {words}", ("as words",) * len(fates) + unread)


def _mark(
    characters: list[tuple[str, int | None]], written: Written
) -> tuple[list[tuple[str, int | None]], str]:
    """Mark one mutation where the letter at its supposed place agrees."""
    # Any blank counts as the spaced form, also one that an earlier mark has brought in.
    step = 2 if any(character == " " for character, _ in characters) else 1
    place = step * (written.position - 1)
    letters = {written.first, written.last} <= set(AMINO_ACIDS)
    if not letters or place >= len(characters) or characters[place][0] != written.first:
        return characters, "skipped"
    mark = [(c, None) for c in f" [SEP] {written.first} [SEP] {written.last} [SEP] "]
    fate = "in place" if characters[place][1] == written.position - 1 else "astray"
    return characters[:place] + mark + characters[place + step :], fate
