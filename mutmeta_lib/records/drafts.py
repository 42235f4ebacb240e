"""Files written all or nothing: a reader never meets half a file, whenever a process is killed."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mutmeta_lib.errors import DataError


@contextmanager
def draft_of(path: Path) -> Iterator[Path]:
    """A draft beside a file, which takes its place when the block ends; else it is deleted.

    The folder is made if there is none. What the block wrote is on the disk before the old content
    goes. Drafts of several processes do not meet.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     file = Path(folder, "deeper", "a.txt")
    ...     with draft_of(file) as draft:
    ...         size = draft.write_text("whole")
    ...     [item.name for item in file.parent.iterdir()]
    ['a.txt']
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield draft
        with draft.open("rb+") as written:
            os.fsync(written.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def check_writable(path: str | Path) -> None:
    """Make a file's folder and raise `DataError` if nothing can be written there.

    For use before long work, so that its result has a place to go.
    """
    path = Path(path)
    if path.is_dir():
        raise DataError("this is a folder", "give the name of a file in it", file=path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise DataError(
            f"the file cannot be written ({error.strerror})", "choose another place", file=path
        ) from None
