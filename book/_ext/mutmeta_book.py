"""Sphinx pieces of the book: numbers and provenance out of records, and links into the repository.

``{record}`few_shot@quick maml_10_spearman` `` prints one number of the record
``book/records/quick/few_shot.json`` with its interval and unit; in the place of a name may stand
the one row of a table of estimates, ``differences[shots == 10 and baseline == 'ridge']``.
``{record-plain}`` leaves the unit to the head of a table, ``{record-percent}`` writes a share in
percent. ``{record-card} few_shot@quick`` prints where a record comes from. A record or number that
is missing is an error, which fails the build under ``-W``: a page cannot show a number that no run
has made.
"""

import ast
import functools
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.nodes import Node, system_message
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

from mutmeta_lib import _NAMES
from mutmeta_lib.errors import DataError
from mutmeta_lib.records.record import Record, number, read_record

logger = logging.getLogger(__name__)

MINUS, NO_BREAK = "\u2212", "\u00a0"
EXECUTED = "book/runs/shown/"  # a link to the copies of one profile: see the Makefile
PAIRED = "notebooks/"
ROOMS = (
    *("app", "ranking", "reproduction", "study", "learn", "models", "tasks", "data", "records"),
    *("seeds", "errors"),
)
STUMBLES = {
    'role="doc-biblioentry"': 'role="listitem"',  # it stands in a list
    ' aria-label="Toggle hidden content"': "",  # "Show the code" says more
    r"<th( [^>]*)?>(?:<p></p>)?</th>": r"<td\1></td>",  # a head that names nothing
}
THEBE = ("init_thebe_core", "update_thebe_context")


def find_record(source: str | Path, reference: str) -> tuple[Record, Path]:
    """Read the record named ``experiment@profile`` below a source folder.

    Raises:
        DataError: the reference is malformed, or the record is missing or damaged.

    """
    match = re.fullmatch(r"(\w+)@(\w+)", reference)
    if match is None:
        raise DataError(f"'{reference}' names no record", "write experiment@profile")
    path = Path("book/records", match[2], f"{match[1]}.json")
    whole = Path(source) / path
    try:
        return read_once(whole, whole.stat().st_mtime_ns if whole.exists() else 0), path
    except DataError as error:
        raise error.at(file=path) from None


@functools.lru_cache(maxsize=32)
def read_once(path: Path, changed: int) -> Record:
    """Read a record; a page may ask for a hundred numbers of one that holds megabytes."""
    return read_record(path)


def find_number(record: Record, name: str) -> dict[str, Any]:
    """Look a number up by its name, or as ``table[condition]``, a table's only row of that kind.

    Raises:
        DataError: the record has no such number (the message lists near ones) or not one such row.

    """
    if row := re.fullmatch(r"(\w+)\[(.+)\]", name):
        try:
            found = record.table(row[1]).query(row[2])
            found = found[["mean", "low", "high", "n_assays"]].to_numpy().tolist()
        except (KeyError, NameError, SyntaxError, ValueError) as error:
            raise DataError(
                f"'{name}' cannot be asked: {error}", "name a table's columns"
            ) from None
        if len(found) != 1:
            raise DataError(f"'{name}' are {len(found)} rows", "tell one of them from all others")
        *ends, size = found[0]
        return number(*ends, int(size))
    if name not in record.numbers:
        word = name.split("_")[0]
        near = [known for known in sorted(record.numbers) if word in known] or ["none like it"]
        raise DataError(
            f"the record {record.experiment}@{record.profile} has no number '{name}'",
            f"it has {', '.join(near[:8])}",
        )
    return record.numbers[name]


def decimals(number: dict[str, Any]) -> int:
    """How many decimals are worth printing.

    With an interval, two significant digits of its half-width; without one, three significant
    digits of the value, and none for whole numbers.
    """
    value, low, high = number["value"], number["low"], number["high"]
    if all(x is None or x == round(x) for x in (value, low, high)):
        return 0
    if low is not None and high is not None and high > low:
        return max(0, 1 - math.floor(math.log10((high - low) / 2)))
    return max(0, 2 - math.floor(math.log10(abs(value))))


def format_number(number: dict[str, Any]) -> str:
    """Write a record's number for a reader: ``0.43 [0.31, 0.55] unit``."""
    value, low, high = number["value"], number["low"], number["high"]
    if value is None:
        return "not defined"
    places = decimals(number)

    def write(x: float) -> str:
        text = f"{x:.{places}f}"
        return text.lstrip("-") if float(text) == 0 else text.replace("-", MINUS)

    text = write(value)
    if low is not None and high is not None:
        text += f" [{write(low)}, {write(high)}]"
    return text + (NO_BREAK + number["unit"] if number["unit"] else "")


def plain(number: dict[str, Any]) -> dict[str, Any]:
    """The number without its unit."""
    return number | {"unit": ""}


def percent(number: dict[str, Any]) -> dict[str, Any]:
    """A share (1 is all of it) in percent."""
    ends = {name: number[name] for name in ("value", "low", "high")}
    return number | {k: None if x is None else 100 * x for k, x in ends.items()} | {"unit": "%"}


class RecordNumber(SphinxRole):
    """The role ``{record}`experiment@profile number` ``, in one of its forms."""

    def __init__(self, form: Callable[[dict[str, Any]], dict[str, Any]] = dict) -> None:
        """Print numbers as ``form`` makes them out of the record's."""
        self.form = form

    def run(self) -> tuple[list[Node], list[system_message]]:
        """Print the number; its name, sample size and record show on hovering."""
        reference, _, name = self.text.strip().partition(" ")
        try:
            record, path = find_record(self.env.srcdir, reference)
            number = find_number(record, name.strip())
        except DataError as error:
            logger.error("%s", error, location=self.get_location())
            return [nodes.problematic(self.rawtext, self.rawtext)], []
        self.env.note_dependency(str(Path(self.env.srcdir) / path))
        size = "" if number["n"] is None else f", n = {number['n']}"
        # An interval stays on one line; before it a line may break where the column is narrow.
        text = format_number(self.form(number)).replace(", ", f",{NO_BREAK}")
        node = nodes.abbreviation(self.rawtext, text, classes=["record-number"])
        node["explanation"] = f"{name.strip()}{size}; record {reference} {record.digest}"
        return [node], []


class RecordCard(SphinxDirective):
    """The directive ``{record-card} experiment@profile``."""

    required_arguments = 1

    def run(self) -> list[Node]:
        """Print what was run, on what, when, and for how long."""
        try:
            record, path = find_record(self.env.srcdir, self.arguments[0])
        except DataError as error:
            logger.error("%s", error, location=self.get_location())
            return []
        self.env.note_dependency(str(Path(self.env.srcdir) / path))
        card = nodes.container(classes=["record-card"])
        card += nodes.paragraph("", f"Record {self.arguments[0]} {record.digest}")
        fields = nodes.field_list()
        for name, text in [("File", str(path)), *card_fields(record)]:
            body = nodes.field_body("", nodes.paragraph("", text))
            fields += nodes.field("", nodes.field_name("", name), body)
        card += fields
        return [card]


def told(parameters: dict[str, Any]) -> str:
    """Parameters in a line; of several arms what they share, and what each has of its own."""
    if "arms" in parameters:
        first, *others = parameters["arms"].values()
        shared = {k: v for k, v in first.items() if all(other[k] == v for other in others)}
        own = {
            arm: {k: v for k, v in one.items() if k not in shared}
            for arm, one in parameters["arms"].items()
        }
        return "; ".join([told(shared), *(f"{arm}: {told(one)}" for arm, one in own.items())])
    texts = {name: json.dumps(value) for name, value in parameters.items()}
    long = {name: f"{len(parameters[name])} of them" for name, x in texts.items() if len(x) > 400}
    return ", ".join(f"{name} = {text}" for name, text in (texts | long).items())


def card_fields(record: Record) -> list[tuple[str, str]]:
    """Name and text of what a record card says."""
    at, encoder = record.environment, record.encoder
    packages = ", ".join(f"{k} {v}" for k, v in at.get("packages", {}).items())
    threads = at.get("threads")
    origin = encoder.get("provenance") or {}
    return [
        ("Parameters", told(record.parameters)),
        ("Data", f"{len(record.data)} assays, each identified by its sha256 in the record"),
        (
            "Encoder",
            f"{encoder.get('name', 'none')}, sha256 {str(encoder.get('sha256', ''))[:12]}"
            + "".join(f", {k} {v}" for k, v in origin.items() if k == "seed"),
        ),
        ("Versions", f"Python {at.get('python', 'unknown')}, {packages}".rstrip(", ")),
        ("Commit", str(at.get("commit", "unknown"))),
        (
            "Device",
            str(at.get("device", "unknown")) + (f", {threads} threads" if threads else ""),
        ),
        ("Date", record.created),
        ("Seconds", ", ".join(f"{k} {v:.3g}" for k, v in record.seconds.items())),
        ("Peak memory", f"{record.peak_memory_mb:.0f}{NO_BREAK}MB"),
    ]


def leave_out_thebe(app: Sphinx, config: Any) -> None:
    """Silence thebe, which jupyter-book always loads and which would fetch itself from a network.

    The theme's version loads its settings twice besides, which is a script error on every page.
    """
    for listeners in app.events.listeners.values():
        for listener in list(listeners):
            handler = listener.handler
            if getattr(handler, "__module__", "") == "sphinx_thebe" and handler.__name__ in THEBE:
                app.disconnect(listener.id)


def name_the_logo(app: Sphinx, config: Any) -> None:
    """Write the book's name beside its mark (an option that _config.yml cannot pass alone)."""
    logo = {"text": config.html_title}
    config.html_theme_options = {**config.html_theme_options, "logo": logo}


def point_at_pairs(app: Sphinx, page: str, template: str, context: dict, doctree: Any) -> None:
    """Let launch and source buttons open the notebook itself, not the executed copy.

    The theme builds addresses from the page's name; a copy holds one profile's parameters, and that
    name stands for whichever copies are shown.
    """
    if page.startswith(EXECUTED):
        rewrite_urls(context.get("header_buttons", []))


def rewrite_urls(buttons: Any) -> None:
    """Replace the folder of executed copies in web addresses, at any depth, plain or quoted."""
    if isinstance(buttons, list):
        for button in buttons:
            rewrite_urls(button)
    elif isinstance(buttons, dict):
        for key, value in buttons.items():
            if key == "url" and isinstance(value, str) and value.startswith("http"):
                value = value.replace(EXECUTED, PAIRED)
                quoted = EXECUTED.replace("/", "%2F"), PAIRED.replace("/", "%2F")
                buttons[key] = value.replace(*quoted)
            else:
                rewrite_urls(value)


def mend_markup(app: Sphinx, page: str, template: str, context: dict, doctree: Any) -> None:
    """Mend a page's html where it makes a screen reader stumble."""
    body = mend_signatures(context.get("body", ""))
    for wrong, right in STUMBLES.items():
        body = re.sub(wrong, right, body)
    context["body"] = body


def mend_signatures(body: str) -> str:
    """Write parameters as lines, not as a list of definitions that has no terms; and shorter.

    A span a word, in which no rule of style is, makes the API page a third larger.
    """

    def mend(signature: re.Match) -> str:
        text = re.sub(r"<(/?)d[ld]>", r"<\1div>", signature[0])
        inner = r'<span class="(?:pre|n|p|o|w)">((?:(?!</?span).)*)</span>'
        while (plain := re.sub(inner, r"\1", text, flags=re.DOTALL)) != text:
            text = plain
        return text

    return re.sub(r'<dt class="sig .*?</dt>', mend, body, flags=re.DOTALL)


def tuple_fields(path: Path) -> list[str]:
    """The fields of a module's named tuples, but those that a function there is called too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = {one.name for one in tree.body if isinstance(one, ast.FunctionDef)}
    return [
        line.target.id
        for one in ast.walk(tree)
        if isinstance(one, ast.ClassDef) and "NamedTuple" in map(ast.unparse, one.bases)
        for line in one.body
        if isinstance(line, ast.AnnAssign) and line.target.id not in functions
    ]


def list_rooms(library: Path) -> str:
    """The sections of the API page: every room from the top down, every module in it."""
    made = []
    for room in ROOMS:
        paths = sorted((library / room).glob("**/*.py")) or [library / f"{room}.py"]
        made.append(f"## {room}\n")
        for path in paths:
            name = ".".join(path.relative_to(library).with_suffix("").parts)
            module = f"mutmeta_lib.{name.removesuffix('.__init__')}"
            if path.name != "__init__.py" and name != room:
                made.append(f"### {name.partition('.')[2]}\n")
            fields = ", ".join(tuple_fields(path))  # described in the docstring already
            less = f"   :exclude-members: {fields}\n" if fields else ""
            # A command's options are told by --help; as a signature they are addresses in memory.
            shown = "" if path.stem.startswith("cli") else f"   :members:\n{less}"
            made.append(f"```{{eval-rst}}\n.. automodule:: {module}\n{shown}```\n")
    return "\n".join(made)


def fill_api_page(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put the public names and the rooms where the API page asks for them."""
    if docname == "book/api":
        links = (f"{{py:obj}}`{n} <{module}.{n}>`" for n, module in sorted(_NAMES.items()))
        source[0] = source[0].replace("% names\n", ", ".join(links) + ".\n")
        source[0] = source[0].replace("% rooms\n", list_rooms(Path(app.srcdir, "mutmeta_lib")))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the role, the directive and the address rewriting."""
    app.connect("source-read", fill_api_page)
    app.add_role("record", RecordNumber())
    app.add_role("record-plain", RecordNumber(plain))
    app.add_role("record-percent", RecordNumber(percent))
    app.add_directive("record-card", RecordCard)
    app.connect("config-inited", leave_out_thebe)
    app.connect("config-inited", name_the_logo)
    app.connect("html-page-context", mend_markup)
    app.connect("html-page-context", point_at_pairs, priority=900)  # after the theme's buttons
    return {"parallel_read_safe": True, "parallel_write_safe": True}
