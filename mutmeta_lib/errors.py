"""The one error that bad input raises: a sentence that says where, what, and how to mend it."""

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from typing import Any, Self


class DataError(ValueError):
    """Input that cannot be used, told in one sentence.

    `file`, `row` and `column` tell the place as far as it is known. Rows are counted as a
    spreadsheet shows them: the header is row 1. `drop` is the word of
    `mutmeta_lib.data.variants.DROP` by which such rows can be left out, empty where they cannot.

    >>> print(DataError("the score is empty", "fill it in or leave the row out",
    ...                 file="scores.csv", row=7, column="score"))
    scores.csv, row 7, column 'score': the score is empty; fill it in or leave the row out
    """

    def __init__(
        self,
        problem: str,
        mend: str,
        *,
        file: str | PathLike[str] | None = None,
        row: int | None = None,
        column: str | None = None,
        drop: str = "",
    ):
        # Pickling hands on positional arguments and __dict__, where the place is.
        super().__init__(problem, mend)
        self.problem = problem
        self.mend = mend
        self.file = None if file is None else str(file)
        self.row = row
        self.column = column
        self.drop = drop

    def __str__(self) -> str:
        row = None if self.row is None else f"row {self.row}"
        column = None if self.column is None else f"column '{self.column}'"
        where = ", ".join(part for part in (self.file, row, column) if part)
        what = "; ".join(part for part in (self.problem, self.mend) if part)
        return f"{where}: {what}" if where else what

    def at(self, **place: Any) -> Self:
        """Return a copy that also tells the place; what is already known is kept."""
        names = ("file", "row", "column")
        known = {name: told for name in names if (told := getattr(self, name)) is not None}
        return type(self)(self.problem, self.mend, **(place | known), drop=self.drop)


class Diverged(DataError):
    """Meta-training that cannot go on, since a loss or a gradient is not finite."""


@contextmanager
def located(**place: Any) -> Iterator[None]:
    """Tell file, row and column of a `DataError` of the block, as far as they are not known."""
    try:
        yield
    except DataError as error:
        raise error.at(**place) from None
