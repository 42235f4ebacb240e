"""Rows of measurements: the column of mutations of one protein, parsed and checked row by row."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mutmeta_lib.errors import DataError
from mutmeta_lib.mutations import (
    Variant,
    apply_variant,
    check_variant,
    format_variant,
    parse_hgvs,
    parse_variant,
)

_SYNONYMOUS = re.compile(r"([A-Z])[0-9]+\1|p\.([A-Z][a-z]{2})[0-9]+(=|\2)", re.ASCII)


def check_variants(
    variants: Sequence[Variant], wild_type: str, rows: Sequence[int] | None = None
) -> None:
    """Raise `DataError` for the first variant that does not fit or repeats; `rows` locate it.

    Where a single shift of the numbering would make every variant fit, the error says so.
    """
    seen: dict[Variant, int] = {}
    for i, variant in enumerate(variants):
        try:
            check_variant(variant, wild_type)
        except DataError as error:
            shift = _shift(variants, wild_type)
            if shift is not None:
                error = DataError(error.problem, f"add {shift} to every position: then all fit")
            raise error.at(row=None if rows is None else rows[i]) from None
        first = seen.setdefault(variant, i)
        if first != i:
            before = "" if rows is None else f" (first in row {rows[first]})"
            raise DataError(
                f"{format_variant(variant)} occurs twice{before}",
                "keep one row, or average repeats beforehand",
                row=None if rows is None else rows[i],
            )


def _shift(variants: Sequence[Variant], wild_type: str) -> int | None:
    """Return the one number that, added to all positions, makes all of five or more sites fit."""
    sites = {(s.position, s.wild_type) for variant in variants for s in variant}
    if len(sites) < 5:
        return None
    first, last = min(sites)[0], max(sites)[0]
    shifts = [
        shift
        for shift in range(1 - first, len(wild_type) - last + 1)
        if all(wild_type[position - 1 + shift] == letter for position, letter in sites)
    ]
    return shifts[0] if len(shifts) == 1 else None


def read_variants(
    texts: Sequence[str],
    mutated: Sequence[str] | None,
    wild_type: str,
    rows: Sequence[int],
    mutant_column: str,
) -> tuple[Variant, ...]:
    """Parse the mutations of one protein and check them against its wild type.

    `mutated`, the mutated sequences, must agree where given; `rows` are the spreadsheet's row
    numbers. Raises `DataError` with row and column for text that is no mutation, a mutation that
    does not fit or repeats, and a sequence that disagrees.
    """
    variants = []
    for row, text in zip(rows, texts, strict=True):
        try:
            variants.append(parse_notation(text))
        except DataError as error:
            raise error.at(row=row, column=mutant_column) from None
    try:
        check_variants(variants, wild_type, rows)
    except DataError as error:
        raise error.at(column=mutant_column) from None
    for row, variant, sequence in zip(rows, variants, mutated or (), strict=mutated is not None):
        expected = apply_variant(variant, wild_type)
        if sequence != expected:
            raise DataError(
                f"the sequence is not the wild type with {format_variant(variant)} "
                f"({_first_difference(expected, sequence)})",
                "correct the sequence or the mutation",
                row=row,
                column="mutated_sequence",
            )
    return tuple(variants)


def _first_difference(expected: str, found: str) -> str:
    if len(expected) != len(found):
        return f"{len(found)} residues, not {len(expected)}"
    pairs = enumerate(zip(expected, found, strict=True), start=1)
    position, (right, wrong) = next((i, pair) for i, pair in pairs if pair[0] != pair[1])
    return f"{wrong} at position {position}, not {right}"


def is_synonymous(text: str) -> bool:
    """Tell whether a mutation is written as a residue replaced by itself: A24A, p.Ala24=.

    >>> [is_synonymous(text) for text in ("A24A", "p.Ala24=", "p.Ala24Ala", "A24G", "WT")]
    [True, True, True, False, False]
    """
    return _SYNONYMOUS.fullmatch(text) is not None


def rows_kept(texts: Sequence[str], synonymous: str) -> list[int]:
    """Return the indices of the rows to read: all, or all but synonymous ones.

    `synonymous` is ``refuse`` (they are read, and `read_variants` refuses them) or ``drop``.
    """
    if synonymous not in ("refuse", "drop"):
        raise DataError(f"synonymous='{synonymous}' is not known", "use 'refuse' or 'drop'")
    return [i for i, text in enumerate(texts) if synonymous == "refuse" or not is_synonymous(text)]


def parse_notation(text: str) -> Variant:
    """Parse HGVS where the text starts like HGVS (``p.``), ProteinGym notation otherwise.

    >>> parse_notation("p.Ala24Gly") == parse_notation("A24G")
    True
    """
    if re.match(r"([^:]+:)?[cgmnopr]\.", text):
        return parse_hgvs(text)
    return parse_variant(text)
