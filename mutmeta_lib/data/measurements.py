"""Rows of measurements: mutations and scores of one protein, parsed and judged row by row."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

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

MUTATED = "mutated_sequence"  # must agree with the mutations where there are both


@dataclass(frozen=True)
class Rows:
    """What was read of the rows of one protein.

    `scores` has shape (n_variants,); `left_out` counts the rows left out, by word of
    `variants.DROP`. Where there are `problems`, variants and scores are not to be used; `notes` say
    what is readable and still odd. `rows` are those of the variants, counted as in a spreadsheet.
    """

    variants: tuple[Variant, ...]
    scores: np.ndarray
    left_out: dict[str, int]
    problems: list[DataError]
    notes: list[str]
    rows: tuple[int, ...] = ()


def read_rows(
    file: str | Path,
    columns: Mapping[str, Sequence[str]],
    wild_type: str,
    mutant_column: str = "mutant",
    score_column: str = "score",
    drop: Sequence[str] = (),
    index: Sequence[int] | None = None,
    repeats: bool = False,
) -> Rows:
    """Read the rows of a file's columns of text (those of `index`), and find every problem in them.

    Rows whose problem is one of `drop` are left out and counted; with `repeats` a variant may occur
    again. Where the positions fit the wild
    type after one number is added to all of them, the problems say so; nothing is shifted.
    """
    if unknown := [word for word in drop if word not in DROP]:
        raise DataError(f"'{unknown[0]}' cannot be dropped", f"use {', '.join(DROP)}")
    texts, left_out, notes = columns[mutant_column], Counter(), []
    first: dict[Variant, int] = {}
    kept: list[tuple[int, Variant, float]] = []
    problems: list[DataError] = []
    misfits: list[DataError] = []
    index = range(len(texts)) if index is None else index
    for i in index:
        text, place, found, variant = texts[i], {"file": file, "row": FIRST_ROW + i}, [], None
        try:
            variant = parse_cell(text, wild_type)
            check_variant(variant, wild_type)
        except DataError as error:
            found.append(error.at(**place, column=mutant_column))
            # Refused for its positions: parsed and not fitting, or below 1.
            if variant is not None or any(position < 1 for position, _ in written_sites(text)):
                misfits += found
        try:
            score = parse_number(columns[score_column][i])
        except DataError as error:
            found.append(error.at(**place, column=score_column))
        if dropped := next((error.drop for error in found if error.drop in drop), ""):
            left_out[dropped] += 1
        elif found:
            problems += found
        else:
            if MUTATED in columns:
                problems += _disagreement(variant, columns[MUTATED][i], wild_type, place)
            if variant in first and not repeats:
                problem = f"'{text}' occurs twice (first in row {first[variant]})"
                error = DataError(problem, "keep one row, or average repeats beforehand", **place)
                problems.append(error.at(column=mutant_column))
            else:
                kept.append((FIRST_ROW + i, variant, score))
            first.setdefault(variant, FIRST_ROW + i)
            if not variant and text.lower() in WILD_TYPE_WORDS - {"wt", "p.="}:
                notes.append(f"row {FIRST_ROW + i}: '{text}' is read as the wild type")
    if not kept and not problems:
        problem = f"the file has no rows to read but {left_out.total()} left out"
        problems.append(DataError(problem, "add rows", file=file))
    sites = {site for i in index for site in written_sites(texts[i])} if misfits else set()
    if len(offsets := numbering_offsets(sites, wild_type)) == 1 and offsets != [0]:
        for error in misfits:
            error.mend = f"add {offsets[0]} to every position: then most fit the wild type"
    rows, variants, scores = zip(*kept, strict=True) if kept else ((), (), ())
    scores = np.array(scores, dtype=float)
    notes += _doubts(variants, scores, wild_type)
    return Rows(variants, scores, dict(left_out), problems, notes, rows)


def parse_cell(text: str, wild_type: str) -> Variant:
    """Parse a mutation, or a whole mutated sequence, which is compared with the wild type."""
    text = text.strip()
    # A sequence, unlike a word such as CTRL, is more than half as long as the protein.
    if 2 * len(text) <= len(wild_type) or not re.fullmatch(r"[A-Z*-]{4,}", text):
        return parse_variant(text)
    sequence = text.removesuffix("*")
    for sign, what, drop in (("*", "a stop codon", "nonsense"), ("-", "a deletion", "indels")):
        if sign in sequence:
            what = f"{what} at position {sequence.index(sign) + 1}"
            raise DataError(f"the sequence has {what}", "leave it out", drop=drop)
    check_sequence(sequence, "mutated sequence")
    return difference(wild_type, sequence)


def _disagreement(variant: Variant, text: str, wild_type: str, place: dict) -> list[DataError]:
    """Say where a mutated sequence is not the wild type with these changes."""
    right, found = apply_variant(variant, wild_type), text.removesuffix("*")
    if found == right:
        return []
    first = next(i for i, (a, b) in enumerate(zip_longest(right, found), start=1) if a != b)
    problem = f"the sequence is not the wild type with {format_variant(variant)} (position {first})"
    return [DataError(problem, "correct the sequence or the mutation", **place, column=MUTATED)]


def numbering_offsets(sites: set[tuple[int, str]], wild_type: str) -> list[int]:
    """Return the numbers that, added to all positions, make most sites fit; smallest first.

    `sites` are (position, wild-type letter). Five must fit (fewer do by
    chance), and nine of ten or all but one.
    """
    residues = list(enumerate(wild_type, start=1))
    places = {letter: [i for i, own in residues if own == letter] for letter in set(wild_type)}
    votes = Counter(place - at for at, letter in sites for place in places.get(letter, ()))
    most = max(votes.values(), default=0)
    if most < max(5, len(sites) - max(1, len(sites) // 10)):
        return []
    return sorted((n for n, count in votes.items() if count == most), key=abs)


def _doubts(variants: Iterable[Variant], scores: np.ndarray, wild_type: str) -> list[str]:
    """Say what makes a readable table doubtful."""
    doubts = []
    if len(scores) > 1 and len(set(scores)) == 1:
        doubts.append("all scores are equal, so that nothing can be ranked")
    sites = {(s.position, s.wild_type) for variant in variants for s in variant}
    if others := [str(offset) for offset in numbering_offsets(sites, wild_type) if offset]:
        added = f"{' or '.join(others[:3])} added to each"
        doubts.append(f"the positions would also fit with {added}; make sure of the numbering")
    return doubts
