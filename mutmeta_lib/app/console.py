"""What the commands share: how they print, how they fail, and how they read their arguments."""

import difflib
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer import Option
from typer.core import TyperCommand, TyperGroup

from mutmeta_lib.errors import DataError

SHOWN = 50
"""How many problems are printed; a table in triplicate has thousands of one kind."""


def option(kind: Any, words: str, *names: str, **limits: Any) -> Any:
    """An option of a command: the type of its value, and what it is."""
    return Annotated[kind, Option(*names, help=words, **limits)]


DataDir = option(str, "A folder like the data card's or ProteinGym's, or 'demo'.")
Encoder = option(str, "'small' (comes with the package), a local directory or a Hugging Face name.")
Encoding = option(
    str, "How variants are written; or a read of sites, no_encoder or wild_type_pass."
)
Device = option(str, "auto, cpu or cuda.")
ORDER = "Order of the meta-gradient."


class Commands(TyperGroup):
    """Commands whose `DataError` ends in a sentence and exit code 2, and Ctrl-C in one and 130.

    A warning is a sentence as well, without its place in the code.
    """

    def invoke(self, ctx: typer.Context) -> Any:
        """Run the chosen command."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                warnings.showwarning = lambda message, *place: say_warning(message)
                return super().invoke(ctx)
        except DataError as error:
            say_error(error)
            raise typer.Exit(2) from None
        except KeyboardInterrupt as stop:
            say_error(str(stop) or "stopped")
            raise typer.Exit(130) from None


class Words(TyperCommand):
    """A command whose ``-p`` takes a name and a value, and whose ``--drop`` may stand alone."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:
        """Write ``-p name value`` as ``-p name=value`` and ``--drop`` as ``--drop=all``."""
        words: list[str] = []
        for word, after in zip(args, [*args[1:], "-"], strict=True):
            if words[-2:-1] == ["-p"] and "=" not in words[-1]:
                words[-1] += f"={word}"
            else:
                words.append("--drop=all" if word == "--drop" and after[:1] == "-" else word)
        return super().parse_args(ctx, words)


def say_error(sentence: object, style: str = "red") -> None:
    """Print one coloured sentence on standard error."""
    Console(stderr=True, highlight=False).print(Text(str(sentence), style=style), soft_wrap=True)


say_warning = partial(say_error, style="yellow")


def refuse(problems: Sequence[DataError]) -> None:
    """If there are problems, print them, how many, and what would leave them out, and stop."""
    for problem in problems[:SHOWN]:
        say_error(problem)
    if len(problems) > 1:
        shown = "" if len(problems) <= SHOWN else f", the first {SHOWN} shown"
        say_error(f"{len(problems)} problems found{shown}")
        if counts := Counter(problem.drop for problem in problems if problem.drop):
            counted = ", ".join(f"{count} {word}" for word, count in counts.items())
            say_error(f"--drop {','.join(counts)} leaves rows out: {counted}")
    if problems:
        raise typer.Exit(2)


def out() -> Console:
    """Standard output; wide when it is not a terminal, so that nothing is cut in a pipe."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=160)


def print_table(headings: Sequence[str], rows: Sequence[Sequence[Any]], title: str = "") -> None:
    """Print a table of texts; None is an empty cell."""
    table = Table(*headings, title=title or None)
    for row in rows:
        table.add_row(*[Text("" if cell is None else str(cell)) for cell in row])
    out().print(table)


def whole_numbers(text: str, name: str) -> list[int]:
    """Read an option's whole numbers, which are separated by commas; none may come twice."""
    numbers = [int(part) for part in text.split(",") if part.strip().isdecimal()]
    if len({*numbers}) < text.count(",") + 1:
        raise DataError(f"{name} got '{text}'", "write different whole numbers: 0,1,5,10")
    return numbers


def unknown(what: str, name: Any, known: Iterable[str]) -> DataError:
    """The error of a name that is none of the known ones, with the nearest of them."""
    known = list(known)
    mend = f"use one of {', '.join(known)}" if known else f"there are no {what}s"
    for near in difflib.get_close_matches(str(name), known, n=1):
        mend = f"did you mean '{near}'?"
    return DataError(f"there is no {what} '{name}'", mend)


def check_known(names: Iterable[str], known: Iterable[str], what: str) -> None:
    """Refuse a name that is not one of the known ones, all of which are told."""
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
