"""Progress of long work with the time that is left: bars, lines, or nothing, as the place demands.

On a terminal there are bars on standard error. Where standard error is a file or a pipe, a line
comes now and then, and none for what is soon done. Notebooks are left alone: what they print is
part of a page.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from tqdm import tqdm

Report = Callable[[str, int, int], None]
"""Called with ``(what, done, total)`` as work goes on; several things may be under way at once."""


def silent(what: str, done: int, total: int) -> None:
    """The report that shows nothing."""


class _Lines:
    """A stream on which every state of a bar is a line of its own."""

    def __init__(self, stream: TextIO):
        self.stream = stream

    def write(self, text: str) -> None:
        if line := text.strip():
            self.stream.write(line + "\n")

    def flush(self) -> None:
        self.stream.flush()


@contextmanager
def shown_progress(stream: TextIO | None = None, *, every: float = 30.0) -> Iterator[Report]:
    """Show reports of progress until the block ends, on standard error or another stream.

    ``every`` is the seconds between two lines of one thing, where the stream is no terminal.
    """
    stream = stream or sys.stderr
    if type(stream).__module__.startswith("ipykernel"):
        yield silent
        return
    look: dict[str, Any] = {"file": stream, "mininterval": min(every, 0.1), "dynamic_ncols": True}
    if not stream.isatty():
        look = {"file": _Lines(stream), "mininterval": every, "delay": every, "position": 0}
        look["bar_format"] = "{desc}: {n_fmt} of {total_fmt}, {remaining} left"
    bars: dict[str, tqdm] = {}

    def report(what: str, done: int, total: int) -> None:
        if what not in bars:
            # What a resumed run had done before says nothing about its speed.
            bars[what] = tqdm(desc=what, initial=done, total=total, miniters=1, leave=False, **look)
        bars[what].total = total
        bars[what].update(done - bars[what].n)
        if done >= total:
            bars.pop(what).close()

    try:
        yield report
    finally:
        for bar in bars.values():
            bar.close()
