"""Finished parts of a long run, kept so that a run started again need not do them twice.

A piece is one JSON file that says what question it answers, with a checksum. Only whole pieces of
the same question are used: one that is damaged or answers another question is computed anew.
"""

import glob
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mutmeta_lib.errors import DataError
from mutmeta_lib.records.drafts import draft_of
from mutmeta_lib.records.plain import fingerprint


@dataclass(frozen=True)
class Pieces:
    """The pieces of one run in a folder; without a folder nothing is kept.

    ``question`` is everything their content depends on, as plain JSON values.
    """

    folder: Path | None
    question: dict

    def get(self, name: str, compute: Callable[[], Any]) -> Any:
        """The piece of this name: read if it was kept, else computed and kept.

        Content is what JSON makes of the computed value (tuples become lists), kept or not, so
        that a resumed run sees no other values than one that was never stopped.

        Raises:
            DataError: the piece cannot be written.

        """
        if self.folder is None:
            return json.loads(json.dumps(compute()))
        file = self.folder / f"{quote(name, safe='')}.json"
        question = fingerprint([self.question, name])
        if file.exists():
            try:
                return _read(file, question)
            except ValueError as error:
                warnings.warn(
                    f"{file}: this part of an earlier run {error}; it is computed anew",
                    stacklevel=2,
                )
        content = json.loads(json.dumps(compute()))
        _write(file, {"question": question, "sha256": fingerprint(content), "content": content})
        return content


def _read(file: Path, question: str) -> Any:
    """The content; `ValueError` says what is wrong with the file."""
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"cannot be read ({type(error).__name__})") from error
    if not isinstance(kept, dict) or set(kept) != {"question", "sha256", "content"}:
        raise ValueError("is not one of ours")
    if kept["question"] != question:
        raise ValueError("belongs to other parameters, data or version")
    if kept["sha256"] != fingerprint(kept["content"]):
        raise ValueError("has a wrong checksum")
    return kept["content"]


def _write(file: Path, kept: dict) -> None:
    try:
        with draft_of(file) as draft:
            for left in file.parent.glob(f".{glob.escape(file.name)}.*.part"):  # by a killed run
                left.unlink(missing_ok=True)
            draft.write_text(json.dumps(kept), encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"a finished part of the run cannot be kept ({error.strerror})",
            "free some space or choose a folder that can be written to, and start again",
            file=file,
        ) from error
