"""Long work and the user who waits: progress with the time left, and a Ctrl-C that saves."""

import signal
import sys
import threading
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
        self.stream, self.flush = stream, stream.flush

    def write(self, text: str) -> None:
        if line := text.strip():
            self.stream.write(line + "\n")


@contextmanager
def shown_progress(stream: TextIO | None = None, *, every: float = 30.0) -> Iterator[Report]:
    """Show progress till the block ends: bars on a terminal, nothing in a notebook.

    Elsewhere, a line for each thing comes every ``every`` seconds, none for what is soon done.
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


@contextmanager
def held_interrupt(enabled: bool = True) -> Iterator[Callable[[], bool]]:
    """Hold the first Ctrl-C (SIGINT) back, so that the block can finish what it is at and save.

    The block gets a function that tells whether Ctrl-C was pressed; ``KeyboardInterrupt`` is raised
    at its end. A second Ctrl-C stops at once. Another handler than Python's own is left in place.
    """
    pending: list[int] = []
    own = signal.default_int_handler

    def hold(number: int, frame: object) -> None:
        pending.append(number)
        signal.signal(signal.SIGINT, own)

    main = threading.current_thread() is threading.main_thread()
    if not (enabled and main and signal.getsignal(signal.SIGINT) is own):
        yield lambda: False
        return
    signal.signal(signal.SIGINT, hold)
    try:
        yield lambda: bool(pending)
    finally:
        signal.signal(signal.SIGINT, own)
    if pending:
        raise KeyboardInterrupt
