"""Files for tests of readers, and what is said of bad ones."""

import gzip
from contextlib import contextmanager

import pytest

from mutmeta_lib.errors import DataError


def write(path, text, encoding="utf-8"):
    """Write text (packed where the name says so), with the folders above; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = text.encode(encoding)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@contextmanager
def refused(says, file, row=None, column=None):
    """Expect a `DataError` that matches `says` and names the place; gives what was caught."""
    with pytest.raises(DataError, match=says) as caught:
        yield caught
    assert (caught.value.file, caught.value.row, caught.value.column) == (str(file), row, column)
