"""Progress of long work with the time that is left: bars, lines, or nothing, as the place demands.

On a terminal there are bars on standard error. Where standard error is a file or a pipe, a plain
line comes now and then, and none for what is soon done. Notebooks are left alone: what they print
is part of a page.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from mutmeta_lib.records.record import duration

Report = Callable[[str, int, int], None]
"""Called with ``(what, done, total)`` as work goes on; several things may be under way at once."""


def silent(what: str, done: int, total: int) -> None:
    """The report that shows nothing."""


@contextmanager
def shown_progress(console: Console | None = None, *, every: float = 30.0) -> Iterator[Report]:
    """Show reports of progress until the block ends.

    Args:
        console: where to; standard error by default.
        every: seconds between two plain lines, where it is no terminal.

    >>> with shown_progress(Console(file=None), every=1e9) as report:
    ...     report("maml", 1, 200)
    """
    console = console or Console(stderr=True, highlight=False)
    if console.is_jupyter:
        yield silent
    elif console.is_terminal:
        with _bars(console) as report:
            yield report
    else:
        yield lines(lambda text: console.print(text, soft_wrap=True, markup=False), every)


@contextmanager
def _bars(console: Console) -> Iterator[Report]:
    """One bar per thing under way; it goes when the thing is done."""
    display = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
    bars: dict[str, TaskID] = {}

    def report(what: str, done: int, total: int) -> None:
        if what not in bars:
            bars[what] = display.add_task(what, total=total)
        display.update(bars[what], completed=done, total=total)
        if done >= total:
            display.remove_task(bars.pop(what))

    with display:
        yield report


def lines(
    say: Callable[[str], None], every: float, clock: Callable[[], float] = time.monotonic
) -> Report:
    """A report that says a line at most every so many seconds.

    >>> seconds = iter([0.0, 10.0, 40.0, 41.0])
    >>> report = lines(print, 30.0, lambda: next(seconds))
    >>> for step in (1, 2, 5, 6):
    ...     report("maml", step, 9)
    maml: 5 of 9, about 40 s left
    """
    first: dict[str, tuple[float, int]] = {}
    last: list[float] = []

    def report(what: str, done: int, total: int) -> None:
        now = clock()
        began, before = first.setdefault(what, (now, done))
        if not last:
            last.append(now)
        if now - last[0] < every:
            return
        last[0] = now
        left = "" if done == before else _left((now - began) / (done - before) * (total - done))
        say(f"{what}: {done} of {total}{left}")

    return report


def _left(seconds: float) -> str:
    return f", about {duration(seconds)} left" if seconds > 0 else ""
