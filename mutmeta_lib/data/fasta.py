"""Wild types from FASTA files."""

from __future__ import annotations

import io
import re
from os import PathLike
from pathlib import Path

from biotite import InvalidFileError
from biotite.sequence.io.fasta import FastaFile

from mutmeta_lib.data.tables import read_text
from mutmeta_lib.data.variants import check_sequence
from mutmeta_lib.errors import DataError


def read_fasta(path: str | PathLike[str]) -> dict[str, str]:
    """Read protein sequences: identifier (the header up to the first space) -> sequence.

    Sequences may span lines and must be amino acids in capitals (``X`` allowed for a residue not
    resolved). Raises `DataError` for a file that is missing, empty or not FASTA, an identifier
    that is missing or occurs twice, and a sequence with another letter.
    """
    path = Path(path)
    content = read_text(path).strip()
    if not content:
        raise DataError("the file is empty", "begin each record with a line '>name'", file=path)
    if not content.startswith(">"):
        if re.search("[,;\t]", content.partition("\n")[0]):
            raise DataError("this is a table, not FASTA", "give the wild type's file", file=path)
        raise DataError("the sequence has no name", "write a line '>name' above it", file=path)
    try:
        records = list(FastaFile.read_iter(io.StringIO(content)))
    except InvalidFileError as error:
        raise DataError(
            f"the file is not FASTA ({error})", "begin each record with a line '>name'", file=path
        ) from error
    sequences: dict[str, str] = {}
    for header, text in records:
        name, sequence = (header.split() or [""])[0], "".join(text.split())
        if not name:
            raise DataError("a record has no name", "write '>name' above it", file=path)
        if name in sequences:
            raise DataError(f"'{name}' occurs twice", "give each record its own name", file=path)
        try:
            check_sequence(sequence)
        except DataError as error:
            raise DataError(f"in '{name}', {error.problem}", error.mend, file=path) from None
        sequences[name] = sequence
    return sequences


def read_wild_type(path: str | PathLike[str], record: str | None = None) -> str:
    """Read the one sequence of a FASTA file, or the one called `record`.

    Raises `DataError` as `read_fasta`, for several sequences and none named, and a wrong name.
    """
    sequences = read_fasta(path)
    names = ", ".join(sequences)
    if record is None and len(sequences) > 1:
        raise DataError(
            f"the file holds {len(sequences)} sequences",
            f"choose the wild type with --record (one of {names})",
            file=path,
        )
    if record is not None and record not in sequences:
        raise DataError(f"there is no record '{record}'", f"use one of {names}", file=path)
    return sequences[record or next(iter(sequences))]
