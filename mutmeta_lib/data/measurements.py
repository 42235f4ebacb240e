"""Rows of measurements: mutations and scores of one protein, parsed and checked row by row."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mutmeta_lib.data.tables import FIRST_ROW, parse_number
from mutmeta_lib.data.variants import (
    DROP,
    WILD_TYPE_WORDS,
    Variant,
    apply_variant,
    check_sequence,
    check_variant,
    difference,
    format_variant,
    parse_variant,
    written_sites,
)
from mutmeta_lib.errors import DataError

MUTATED = "mutated_sequence"
"""The column of mutated sequences, which must agree with the mutations where there is one."""

_SEQUENCE = re.compile(r"[A-Z*-]{4,}")
_FEWEST_SITES = 5  # fewer sites fit at some offset by chance


@dataclass(frozen=True)
class Rows:
    """What was read of the rows of one protein.

    `scores` has shape (n_variants,); `left_out` counts the rows left out by word of
    `mutations.DROP`; `problems` are in order of rows, and unless there are none, variants and
    scores are not to be used. `notes` say in sentences what is readable and still odd: unusual
    words for the wild type, equal scores, a numbering that could be another.
    """

    variants: tuple[Variant, ...]
    scores: np.ndarray
    left_out: dict[str, int]
    problems: list[DataError]
    notes: list[str]


def read_rows(
    columns: Mapping[str, Sequence[str]],
    index: Sequence[int],
    wild_type: str,
    *,
    mutant_column: str,
    score_column: str,
    drop: Sequence[str] = (),
) -> Rows:
    """Read the rows `index` of columns of text, and find every problem in them.

    A cell of `mutant_column` is a mutation in any notation of `mutations.parse_variant`, or the
    mutated sequence. Rows whose problem is one of `drop` are left out and counted. Where the
    positions fit the wild type after one number is added to all of them, the problems say so;
    nothing is shifted.

    Raises:
        DataError: A word of `drop` is not one of `mutations.DROP`.

    """
    for word in drop:
        if word not in DROP:
            raise DataError(f"there is nothing called '{word}' to drop", f"use {', '.join(DROP)}")
    texts = columns[mutant_column]
    variants, scores, left_out = [], [], Counter()
    problems, misfits = [], []
    first_rows: dict[Variant, int] = {}
    for i in index:
        row, found, variant, score = FIRST_ROW + i, [], None, None
        try:
            variant = parse_cell(texts[i], wild_type)
            check_variant(variant, wild_type)
        except DataError as error:
            found.append(error.at(row=row, column=mutant_column))
        try:
            score = parse_number(columns[score_column][i])
        except DataError as error:
            found.append(error.at(row=row, column=score_column))
        if dropped := next((error.drop for error in found if error.drop in drop), ""):
            left_out[dropped] += 1
        elif found:
            if found[0].column == mutant_column and _misplaced(variant, texts[i]):
                misfits.append(len(problems))
            problems += found
        else:
            problems += _agreement(variant, columns, i, wild_type)
            first = first_rows.setdefault(variant, row)
            if first != row:
                problems.append(_repeat(variant, first).at(row=row, column=mutant_column))
            variants.append(variant)
            scores.append(score)
    if misfits:
        _explain(problems, misfits, {FIRST_ROW + i: texts[i] for i in index}, wild_type)
    words = {i: texts[i] for i in index if texts[i].lower() in WILD_TYPE_WORDS - {"wt", "p.="}}
    notes = [f"row {FIRST_ROW + i}: '{w}' is read as the wild type" for i, w in words.items()]
    notes += _doubts(variants, scores, wild_type)
    return Rows(tuple(variants), np.array(scores), dict(left_out), problems, notes)


def parse_cell(text: str, wild_type: str) -> Variant:
    """Parse a mutation, or a whole mutated sequence, which is compared with the wild type.

    >>> [format_variant(parse_cell(text, "MKTAY")) for text in ("p.Lys2Arg", "MRTAY", "MRTAY*")]
    ['K2R', 'K2R', 'K2R']
    """
    text = text.strip()
    try:
        return parse_variant(text)
    except DataError as error:
        if error.drop or not _SEQUENCE.fullmatch(text):
            raise
    sequence = text.removesuffix("*")
    for sign, what, drop in (("*", "a stop codon", "nonsense"), ("-", "a deletion", "indels")):
        if sign in sequence:
            raise DataError(
                f"the sequence has {what} at position {sequence.index(sign) + 1}",
                f"leave such rows out (--drop {drop})",
                drop=drop,
            )
    check_sequence(sequence, "mutated sequence")
    return difference(wild_type, sequence)


def _misplaced(variant: Variant | None, text: str) -> bool:
    """Tell whether a row is refused for its positions: parsed and not fitting, or below 1."""
    return variant is not None or any(position < 1 for position, _ in written_sites(text))


def _repeat(variant: Variant, first: int) -> DataError:
    return DataError(
        f"{format_variant(variant)} occurs twice (first in row {first})",
        "keep one row, or average repeats beforehand",
    )


def check_variants(variants: Sequence[Variant], wild_type: str) -> None:
    """Raise `DataError` for the first variant that does not fit the wild type or repeats."""
    seen: set[Variant] = set()
    for variant in variants:
        check_variant(variant, wild_type)
        if variant in seen:
            raise DataError(f"{format_variant(variant)} occurs twice", "keep one of them")
        seen.add(variant)


def _agreement(
    variant: Variant, columns: Mapping[str, Sequence[str]], i: int, wild_type: str
) -> list[DataError]:
    if MUTATED not in columns:
        return []
    expected, found = apply_variant(variant, wild_type), columns[MUTATED][i].removesuffix("*")
    if found == expected:
        return []
    if len(expected) != len(found):
        where = f"{len(found)} residues, not {len(expected)}"
    else:
        pairs = enumerate(zip(expected, found, strict=True), start=1)
        position, (right, wrong) = next((n, pair) for n, pair in pairs if pair[0] != pair[1])
        where = f"{wrong} at position {position}, not {right}"
    return [
        DataError(
            f"the sequence is not the wild type with {format_variant(variant)} ({where})",
            "correct the sequence or the mutation",
            row=FIRST_ROW + i,
            column=MUTATED,
        )
    ]


def numbering_offsets(sites: set[tuple[int, str]], wild_type: str) -> list[int]:
    """Return the numbers that, added to all positions, make most sites fit; best first.

    `sites` are (position, wild-type letter). Nine of ten must fit, or all but one, and there must
    be five of them; equally good numbers are all returned.

    >>> numbering_offsets({(i + 24, letter) for i, letter in enumerate("MKTAYI")}, "GMKTAYIAK")
    [-22]
    """
    if len(sites) < _FEWEST_SITES:
        return []
    places: dict[str, list[int]] = {}
    for place, letter in enumerate(wild_type, start=1):
        places.setdefault(letter, []).append(place)
    votes = Counter(place - at for at, letter in sites for place in places.get(letter, ()))
    most = max(votes.values(), default=0)
    if most < max(_FEWEST_SITES, len(sites) - max(1, len(sites) // 10)):
        return []
    return sorted((n for n, count in votes.items() if count == most), key=abs)


def _explain(
    problems: list[DataError], misfits: list[int], texts: Mapping[int, str], wild_type: str
) -> None:
    """Put the one offset that most rows agree on into the mends of the rows that do not fit."""
    sites = {row: written_sites(text) for row, text in texts.items()}
    offsets = numbering_offsets({site for row in sites.values() for site in row}, wild_type)
    if len(offsets) != 1 or offsets == [0]:
        return
    (offset,) = offsets

    def fits(row: int) -> bool:
        places = [(position + offset - 1, letter) for position, letter in sites[row]]
        return all(p >= 0 and wild_type[p : p + 1] == letter for p, letter in places)

    told = [row for row in sites if sites[row]]
    fitting = sum(map(fits, told))
    counted = "all" if fitting == len(told) else f"{fitting} of {len(told)} rows"
    for place in misfits:
        error = problems[place]
        mend = (
            f"add {offset} to every position: then {counted} fit"
            if fits(error.row)
            else f"correct this row; {counted} fit with {offset} added to every position"
        )
        problems[place] = DataError(error.problem, mend, row=error.row, column=error.column)


def _doubts(variants: Sequence[Variant], scores: Sequence[float], wild_type: str) -> list[str]:
    """Say what makes a readable table doubtful.

    >>> _doubts([parse_variant(f"A{i}G") for i in range(2, 8)], range(6), "MAAAAAAAA")
    ['the positions would also fit with 1 or 2 added to each; make sure of the numbering']
    >>> _doubts([parse_variant("K2R"), parse_variant("T3G")], [0, 0], "MKT")
    ['all scores are equal, so that nothing can be ranked']
    """
    doubts = []
    if len(set(scores)) == 1 and len(scores) > 1:
        doubts.append("all scores are equal, so that nothing can be ranked")
    sites = {(s.position, s.wild_type) for variant in variants for s in variant}
    others = [str(offset) for offset in numbering_offsets(sites, wild_type) if offset]
    if others:
        doubts.append(
            f"the positions would also fit with {' or '.join(others[:3])} added to each; "
            "make sure of the numbering"
        )
    return doubts
