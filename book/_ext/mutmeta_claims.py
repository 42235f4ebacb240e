"""What sentences say of committed records, checked: ``<!-- holds: few_shot.maml_10 > 0 -->``.

Such a comment stands under a sentence, one claim a line, and shows on no page. In a claim

- ``few_shot.maml_10`` is a number of ``book/records/full/few_shot.json``; it counts as its value,
  has ``.low``, ``.high`` and ``.n``, and ``0 in few_shot.maml_10`` asks its interval, as behind
  ``in`` rows of a table with these columns are asked for theirs;
- ``few_shot.results[shots == 10 and method == "maml"]`` are rows of a table, of which there must
  be one; ``.spearman`` behind it is a column, ``(spearman > mse)`` a claim about each row;
- ``few_shot.parameters.seeds`` and ``few_shot.seconds["tuning"]`` are what they are called;
- ``{maml,ridge}`` stands for each of these in turn, and the same braces for the same.

A claim that does not hold, or names what is not there, fails the build.
"""

import ast
import functools
import itertools
import json
import operator
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from mutmeta_book import find_record
from pandas import DataFrame
from sphinx.application import Sphinx
from sphinx.util import logging

COMMENT = re.compile(r"\n?[ ]*<!-- holds:(.*?)-->", re.S)
BRACES = re.compile(r"\{([^{}]*)\}")
SYMBOLS = {
    **{"Lt": "lt", "LtE": "le", "Gt": "gt", "GtE": "ge", "Eq": "eq", "NotEq": "ne", "Is": "is_"},
    **{"Add": "add", "Sub": "sub", "Mult": "mul", "Div": "truediv", "USub": "neg"},
}
OPERATORS = {name: getattr(operator, symbol) for name, symbol in SYMBOLS.items()}
OPERATORS |= {"And": np.logical_and, "Or": np.logical_or, "Not": np.logical_not}
FUNCTIONS = {name: getattr(np, name) for name in ("abs", "max", "mean", "min", "size", "sum")}
FUNCTIONS["distinct"] = lambda column: len(set(column))


def claims(text: str) -> Iterator[str]:
    """The claims of a page, each choice of alternatives a claim of its own."""
    lines = (line.strip() for comment in COMMENT.findall(text) for line in comment.splitlines())
    for line in filter(None, lines):
        several = list(dict.fromkeys(BRACES.findall(line)))
        for chosen in itertools.product(*(part.split(",") for part in several)):
            words = dict(zip(several, chosen, strict=True))
            yield BRACES.sub(lambda found, words=words: words[found[1]], line)


def faults(text: str, root: str | Path) -> list[str]:
    """The claims of a page that do not hold, or cannot be asked, in words."""
    found = []
    for claim in claims(text):
        try:
            held = np.asarray(evaluate(ast.parse(claim, mode="eval").body, root, {}))
            if held.dtype != bool or not held.all():
                found.append(f"this does not hold: {claim}")
        except (AttributeError, LookupError, TypeError, ValueError, SyntaxError) as error:
            found.append(f"this cannot be asked: {claim} ({error!r})")
    return found


def evaluate(node: ast.AST, root: str | Path, columns: dict[str, Any]) -> Any:
    """The value of an expression, in which names are columns, or records where there are none."""

    def ask(part: ast.AST) -> Any:
        found = evaluate(part, root, columns)
        return found["value"] if isinstance(found, dict) else found

    def table(part: ast.AST) -> DataFrame:
        return ask(part.value).table(part.attr) if isinstance(part, ast.Attribute) else ask(part)

    def ask_rows(rows: DataFrame, part: ast.AST) -> Any:
        return evaluate(part, root, {name: rows[name].to_numpy() for name in rows})

    def apply(op: ast.AST, *sides: Any) -> Any:
        return OPERATORS[type(op).__name__](*sides)

    match node:
        case ast.Constant(value=constant):
            return constant
        case ast.Name(id=name):
            return columns[name] if columns else find_record(root, f"{name}@full")[0]
        case ast.Attribute(value=whole, attr=name) | ast.Subscript(whole, ast.Constant(name)):
            whole = evaluate(whole, root, columns)
            if isinstance(whole, dict | DataFrame):
                return whole[name] if isinstance(whole, dict) else whole[name].to_numpy()
            named = {"parameters": whole.parameters, "seconds": whole.seconds, **whole.numbers}
            return named[name] if name in named else whole.table(name)
        case ast.Subscript(value=whole, slice=condition):
            rows = table(whole)
            rows = rows[ask_rows(rows, condition)]
            return rows if len(rows) else rows.loc["no such row"]
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
            return FUNCTIONS[name](*map(ask, arguments))
        case ast.Call(func=rows, args=[claim], keywords=[]):
            return ask_rows(table(rows), claim)
        case ast.Compare(left=number, ops=[ast.In()], comparators=[interval]):
            ends, inside = evaluate(interval, root, columns), ask(number)
            return np.logical_and(ends["low"] <= inside, inside <= ends["high"])
        case ast.Compare(left=left, ops=ops, comparators=others):
            sides = [ask(part) for part in (left, *others)]
            held = map(apply, ops, sides, sides[1:])
            return functools.reduce(np.logical_and, held)
        case ast.BoolOp(op=op, values=parts):
            return functools.reduce(functools.partial(apply, op), map(ask, parts))
        case ast.BinOp(left=left, op=op, right=right):
            return apply(op, ask(left), ask(right))
        case ast.UnaryOp(op=op, operand=operand):
            return apply(op, ask(operand))
    raise ValueError(f"{type(node).__name__} is no part of a claim")


def check(app: Sphinx, docname: str, source: list[str]) -> None:
    """Take the claims out of a page or notebook, and report those that do not hold."""
    notebook = json.loads(source[0]) if source[0].startswith("{") else {}
    for cell in notebook.get("cells", [{"source": source}]):
        text = "".join(cell["source"])
        for fault in faults(text, app.srcdir):
            logging.getLogger(__name__).error("%s", fault, location=docname)
        cell["source"][:] = [COMMENT.sub("", text)]
    if notebook:
        source[0] = json.dumps(notebook)


def setup(app: Sphinx) -> dict[str, bool]:
    """Check every page when it is read."""
    app.connect("source-read", check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
