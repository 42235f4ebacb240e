"""What the commands share: how they print, how they fail, and how they read their arguments."""

import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperCommand, TyperGroup

from mutmeta_lib.errors import DataError


class Commands(TyperGroup):
    """A group of commands in which a `DataError` becomes one sentence and exit code 2.

    Ctrl-C ends with exit code 130, and with a sentence where the work has something to say.
    """

    def invoke(self, ctx: typer.Context) -> Any:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except DataError as error:
            say_error(str(error))
            raise typer.Exit(2) from None
        except KeyboardInterrupt as stop:
            say_error(str(stop) or "stopped")
            raise typer.Exit(130) from None


class NameValueCommand(TyperCommand):
    """A command whose option ``-p`` takes a name and a value (typer knows only single values)."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:
        """Join ``-p name value`` to ``-p name=value``, which is accepted as well."""
        rest, joined = list(args), []
        while rest:
            word = rest.pop(0)
            joined.append(word)
            if word == "-p" and rest and "=" not in rest[0]:
                name = rest.pop(0)
                if not rest:
                    raise typer.BadParameter(f"-p {name} needs a value after the name")
                joined.append(f"{name}={rest.pop(0)}")
        return super().parse_args(ctx, joined)


class DropCommand(TyperCommand):
    """A command whose option ``--drop`` may stand without a value, and then means every kind."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:
        """Give a bare ``--drop`` its value."""
        from mutmeta_lib.data.variants import DROP

        bare = [
            word == "--drop" and (after is None or after.startswith("-"))
            for word, after in zip_longest(args, args[1:])
        ]
        every = f"--drop={','.join(DROP)}"
        return super().parse_args(
            ctx, [every if alone else word for word, alone in zip(args, bare, strict=True)]
        )


def out() -> Console:
    """Standard output; wide when it is not a terminal, so that nothing is cut in a pipe."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=160)


def say_error(sentence: str) -> None:
    """Print one red sentence on standard error."""
    Console(stderr=True, highlight=False).print(Text(sentence, style="red"), soft_wrap=True)


def say_warning(sentence: str) -> None:
    """Print one yellow sentence on standard error."""
    Console(stderr=True, highlight=False).print(Text(sentence, style="yellow"), soft_wrap=True)


@contextmanager
def said_warnings() -> Iterator[None]:
    """Print the warnings of the block as sentences, without the place in the code."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        say_warning(str(warning.message))


SHOWN = 50
"""How many problems are printed; a table in triplicate has thousands of one kind."""


def say_problems(problems: Sequence[DataError]) -> None:
    """Print problems on standard error, how many there are, and what would leave them out."""
    for problem in problems[:SHOWN]:
        say_error(str(problem))
    if len(problems) < 2:
        return
    shown = "" if len(problems) <= SHOWN else f", the first {SHOWN} shown"
    say_error(f"{len(problems)} problems found{shown}")
    counts = Counter(problem.drop for problem in problems if problem.drop)
    if counts:
        counted = ", ".join(f"{count} {word}" for word, count in counts.items())
        say_error(f"--drop {','.join(counts)} leaves rows out: {counted}")


def say_progress(line: str) -> None:
    """Print a line about work under way on standard error."""
    Console(stderr=True, highlight=False).print(line, style="dim", markup=False)


def curve_table(title: str, summary: Any, methods: Sequence[str]) -> Table:
    """A table method x shots of ``mean [low, high]`` out of a tidy summary."""
    shots = sorted(summary["shots"].unique())
    table = Table("method", *[f"{k} shots" if k != 1 else "1 shot" for k in shots], title=title)
    cells = {
        (row.method, row.shots): f"{row.mean:.2f} [{row.low:.2f}, {row.high:.2f}]"
        if row.mean == row.mean
        else "not defined"
        for row in summary.itertuples()
    }
    for method in methods:
        table.add_row(Text(method), *[Text(cells.get((method, k), "")) for k in shots])
    return table


def sweep_table(results: Sequence[tuple[Any, Any]]) -> Table:
    """A table of a sweep's runs: what varies, and what became of each."""
    names = list(results[0][0].varied)
    table = Table("run", *names, "state", "attempts", "seconds", "record")
    for run, outcome in results:
        seconds = "" if outcome.seconds is None else f"{outcome.seconds:.1f}"
        ended = [outcome.state, str(outcome.attempts), seconds, outcome.record or ""]
        cells = [run.name, *[str(run.varied[name]) for name in names], *ended]
        table.add_row(*map(Text, cells))
    return table


def whole_numbers(text: str, option: str) -> list[int]:
    """Read whole numbers separated by commas.

    >>> whole_numbers("0, 5,10", "--shots")
    [0, 5, 10]
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise DataError(f"{option} got '{text}'", "write whole numbers with commas: 0,1,5,10")
    numbers = [int(part) for part in parts]
    if twice := [n for n, count in Counter(numbers).items() if count > 1]:
        raise DataError(f"{option} names {twice[0]} twice", "name each number once")
    return numbers


def check_known(names: Sequence[str], known: Sequence[str], what: str) -> None:
    """Refuse a name that is not one of the known ones.

    >>> check_known(["ridge"], ["ridge", "gp"], "method")
    """
    for name in names:
        if name not in known:
            raise DataError(f"there is no {what} '{name}'", f"use one of {', '.join(known)}")


def check_device(device: str) -> None:
    """Refuse a device that this machine has not, before any work."""
    import torch

    check_known([device.split(":")[0]], ["auto", "cpu", "cuda"], "device")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise DataError("this machine has no CUDA device that torch can use", "use --device cpu")


def seen_from_here(path: Path) -> str:
    """Write a path as seen from the working folder, whole where it lies outside."""
    relative = os.path.relpath(path)
    return str(path.resolve()) if relative.startswith(os.pardir) else relative


def is_file(text: str) -> bool:
    """Tell a path from a sequence: a sequence has no dot, no slash, and is no file."""
    return "." in text or "/" in text or (len(text) < 256 and Path(text).is_file())
