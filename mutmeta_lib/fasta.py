"""Wild types from FASTA files."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from biotite import InvalidFileError
from biotite.sequence.io.fasta import FastaFile

from mutmeta_lib.errors import DataError
from mutmeta_lib.mutations import check_sequence


def read_fasta(path: str | PathLike[str]) -> dict[str, str]:
    """Read protein sequences: identifier (the header up to the first space) -> sequence.

    Sequences may span lines and must be amino acids in capitals (``X`` allowed for a residue not
    resolved). Raises `DataError` for a file that is missing, empty or not FASTA, an identifier
    that is missing or occurs twice, and a sequence with another letter.
    """
    path = Path(path)
    sequences: dict[str, str] = {}
    try:
        with open(path, encoding="utf-8-sig") as handle:
            records = list(FastaFile.read_iter(handle))
    except FileNotFoundError:
        raise DataError("the file does not exist", "check the path", file=path) from None
    except (InvalidFileError, UnicodeDecodeError) as error:
        raise DataError(
            f"the file is not FASTA ({error})", "begin each record with a line '>name'", file=path
        ) from error
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
    if not sequences:
        raise DataError("the file is empty", "begin each record with a line '>name'", file=path)
    return sequences
