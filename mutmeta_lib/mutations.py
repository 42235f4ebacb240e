"""Mutations: what a variant is, how it is written, and what it does to a sequence.

A *variant* is a tuple of substitutions sorted by position; the empty tuple is the wild type.
Two notations are understood: ProteinGym's (``A24G``, several joined by ``:``) and HGVS protein
notation (``p.Ala24Gly``, ``p.[Ala24Gly;Phe30Leu]``, ``p.=``), the latter through the mavehgvs
package (MAVE-HGVS, the dialect of MaveDB). Positions count residues from 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from fqfa.constants import AA_CODES
from mavehgvs import MaveHgvsParseError
from mavehgvs import Variant as HgvsVariant

from mutmeta_lib.errors import DataError

AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
"""The twenty amino acids; one-letter codes in alphabetical order."""

WILD_TYPE = "WT"
"""How the variant without any substitution is written."""

_ONE_TO_THREE = {one: AA_CODES[one] for one in AMINO_ACIDS}
_THREE_TO_ONE = {three: one for one, three in _ONE_TO_THREE.items()}
_SUBSTITUTION = re.compile(rf"([{AMINO_ACIDS}])(0*[1-9][0-9]*)([{AMINO_ACIDS}])", re.ASCII)
_LOOSE = re.compile(r"([A-Za-z*?=_-]+)([0-9]+)([A-Za-z*?=_-]+)", re.ASCII)


@dataclass(frozen=True, order=True, slots=True)
class Substitution:
    """One residue replaced by another; `position` counts from 1.

    Raises `DataError` for a position below 1, a letter outside the twenty amino acids, or a
    residue replaced by itself.

    >>> str(Substitution(24, "A", "G"))
    'A24G'
    """

    position: int
    wild_type: str
    mutant: str

    def __post_init__(self) -> None:
        if self.position < 1:
            raise DataError(f"position {self.position} is below 1", "count residues from 1")
        for letter in (self.wild_type, self.mutant):
            if len(letter) != 1 or letter not in AMINO_ACIDS:
                raise DataError(f"'{letter}' is not an amino acid", f"use one of {AMINO_ACIDS}")
        if self.wild_type == self.mutant:
            raise DataError(
                f"{self} replaces {self.wild_type} by itself",
                f"write {WILD_TYPE} for the wild type or leave the row out",
            )

    def __str__(self) -> str:
        return f"{self.wild_type}{self.position}{self.mutant}"


Variant = tuple[Substitution, ...]


def parse_variant(text: str) -> Variant:
    """Parse ProteinGym notation into a variant, sorted by position.

    Raises `DataError` on anything but substitutions between the twenty amino acids, each written
    like ``A24G`` and joined by ``:``, at most one per position; ``WT`` is the wild type. Leading
    zeros (``A024G``) are read and not kept.

    >>> parse_variant("A24G")
    (Substitution(position=24, wild_type='A', mutant='G'),)
    >>> format_variant(parse_variant("F30L:A24G"))
    'A24G:F30L'
    >>> parse_variant("WT")
    ()
    """
    if text == WILD_TYPE:
        return ()
    if not text.strip():
        raise DataError("the mutation is empty", f"write {WILD_TYPE} for the wild type")
    if text != text.strip() or any(c.isspace() for c in text):
        raise DataError(f"'{text}' contains a space", f"write '{''.join(text.split())}'")
    if text.upper() == WILD_TYPE:
        raise DataError(f"'{text}' is in lower case", f"write {WILD_TYPE}")
    if text.startswith("p."):
        raise DataError(f"'{text}' is HGVS notation", "read it with parse_hgvs")
    return _variant(_parse_one(part, text) for part in text.split(":"))


def _parse_one(part: str, text: str) -> Substitution:
    match = _SUBSTITUTION.fullmatch(part)
    if match:
        return Substitution(int(match[2]), match[1], match[3])
    if not part:
        raise DataError(f"'{text}' has an empty part", "write mutations as A24G:F30L")
    if re.search(r"[,;/+|]", part):
        raise DataError(f"'{text}' joins mutations with a sign other than ':'", "write A24G:F30L")
    loose = _LOOSE.fullmatch(part)
    if not loose:
        raise DataError(
            f"'{part}' is not a substitution",
            "write the wild-type letter, the position and the new letter, as in A24G",
        )
    before, _, after = loose.groups()
    if "*" in before + after:
        raise DataError(
            f"'{part}' is a stop codon", "leave nonsense variants out; only substitutions are read"
        )
    if (before + after) != (before + after).upper():
        # Three-letter codes and fs/del/dup also land here and need another mend than capitals.
        if len(before) == len(after) == 1:
            raise DataError(f"'{part}' has lower-case letters", f"write {part.upper()}")
        raise DataError(f"'{part}' is not a substitution in one-letter code", "write it as in A24G")
    if len(before) != 1 or len(after) != 1:
        raise DataError(
            f"'{part}' is not a substitution of one residue", "write one change per position: A24G"
        )
    for letter in (before, after):
        if letter not in AMINO_ACIDS:
            raise DataError(f"'{part}' has the unknown letter '{letter}'", f"use {AMINO_ACIDS}")
    raise DataError(f"'{part}' has position 0", "count residues from 1")


def _variant(substitutions: Iterable[Substitution]) -> Variant:
    variant = tuple(sorted(substitutions))
    for first, second in pairwise(variant):
        if first.position == second.position:
            raise DataError(
                f"{first} and {second} change the same position {first.position}",
                "keep one change per position",
            )
    return variant


def format_variant(variant: Variant) -> str:
    """Write a variant in ProteinGym notation; the wild type is ``WT``.

    >>> format_variant(()), format_variant((Substitution(24, "A", "G"),))
    ('WT', 'A24G')
    """
    return ":".join(map(str, variant)) if variant else WILD_TYPE


def parse_hgvs(text: str) -> Variant:
    """Parse HGVS protein notation (MAVE-HGVS) into a variant, sorted by position.

    Only substitutions are variants here: frame shifts, deletions, insertions, duplications,
    ``Ter`` and ``p.Ala24=`` raise `DataError`, as do nucleotide variants.

    >>> format_variant(parse_hgvs("p.[Ala24Gly;Phe30Leu]"))
    'A24G:F30L'
    >>> parse_hgvs("p.=")
    ()
    """
    if text.startswith("p.(") and text != "p.(=)":
        raise DataError(
            f"'{text}' is a predicted consequence, in parentheses",
            f"write p.{text[3:].removesuffix(')')} if that is the protein measured",
        )
    try:
        parsed = HgvsVariant(text, relaxed_ordering=True)
    except MaveHgvsParseError as error:
        raise DataError(
            f"'{text}' is not HGVS protein notation ({error})",
            "write p.Ala24Gly, p.[Ala24Gly;Phe30Leu] or p.=",
        ) from error
    if parsed.prefix != "p":
        raise DataError(
            f"'{text}' is a nucleotide variant ({parsed.prefix}.)", "give its protein change, p."
        )
    if parsed.target_id is not None:
        raise DataError(
            f"'{text}' names the sequence {parsed.target_id}",
            f"leave '{parsed.target_id}:' out; positions count on the wild type given",
        )
    events = list(parsed.variant_tuples())
    if [kind for kind, _, _ in events] == ["equal"] and events[0][1] is None:
        return ()
    return _variant(_hgvs_substitution(*event, text) for event in events)


_HGVS_KINDS = {
    "fs": "a frame shift",
    "del": "a deletion",
    "dup": "a duplication",
    "ins": "an insertion",
    "delins": "a deletion-insertion",
    "equal": "an unchanged residue",
}


def _hgvs_substitution(kind: str, position, letters, text: str) -> Substitution:
    if kind != "sub":
        mend = (
            "write p.= for the wild type"
            if kind == "equal"
            else "leave the row out; only substitutions are read"
        )
        raise DataError(f"'{text}' has {_HGVS_KINDS[kind]}", mend)
    if "Ter" in letters:
        raise DataError(
            f"'{text}' is a stop codon (Ter)",
            "leave nonsense variants out; only substitutions are read",
        )
    before, after = (_THREE_TO_ONE[letter] for letter in letters)
    return Substitution(int(position.position), before, after)


def format_hgvs(variant: Variant) -> str:
    """Write a variant in HGVS protein notation, checked by mavehgvs; the wild type is ``p.=``.

    >>> format_hgvs(parse_variant("A24G")), format_hgvs(parse_variant("A24G:F30L"))
    ('p.Ala24Gly', 'p.[Ala24Gly;Phe30Leu]')
    """
    parts = [f"{_ONE_TO_THREE[s.wild_type]}{s.position}{_ONE_TO_THREE[s.mutant]}" for s in variant]
    if len(parts) < 2:
        return str(HgvsVariant(f"p.{parts[0]}" if parts else "p.="))
    return str(HgvsVariant(f"p.[{';'.join(parts)}]"))


def check_sequence(sequence: str, what: str = "wild type") -> None:
    """Raise `DataError` unless `sequence` is amino acids in capitals, named `what` in the error.

    A wild type may hold ``X``, a residue not resolved in a structure; no other sequence may.

    >>> check_sequence("MKTX")
    """
    allowed = AMINO_ACIDS + "X" if what == "wild type" else AMINO_ACIDS
    if not sequence:
        raise DataError(f"the {what} is empty", "give its amino-acid sequence")
    if sequence != sequence.upper():
        raise DataError(f"the {what} has lower-case letters", "write it in capitals")
    for index, letter in enumerate(sequence, start=1):
        if letter not in allowed:
            mend = (
                "leave the final '*' out"
                if letter == "*" and index == len(sequence)
                else f"use the letters {allowed}"
            )
            raise DataError(f"the {what} has '{letter}' at position {index}", mend)


def check_variant(variant: Variant, wild_type: str) -> None:
    """Raise `DataError` unless every substitution fits `wild_type` (sites sorted, no site twice).

    >>> check_variant(parse_variant("K2R"), "MKT")
    """
    before = 0
    for s in variant:
        if s.position <= before:
            raise DataError(
                f"{format_variant(variant)} has unsorted or repeated positions",
                "build variants with parse_variant",
            )
        before = s.position
        if s.position > len(wild_type):
            raise DataError(
                f"position {s.position} lies outside the wild type ({len(wild_type)} residues)",
                "check the numbering offset",
            )
        if wild_type[s.position - 1] != s.wild_type:
            raise DataError(
                f"{s} expects {s.wild_type} at position {s.position}, "
                f"but the wild type has {wild_type[s.position - 1]}",
                "check the numbering offset and the wild type",
            )


def apply_variant(variant: Variant, wild_type: str) -> str:
    """Return the mutated sequence; raises `DataError` when the variant does not fit.

    >>> apply_variant(parse_variant("K2R"), "MKT")
    'MRT'
    """
    check_variant(variant, wild_type)
    pieces, start = [], 0
    for s in variant:
        pieces += [wild_type[start : s.position - 1], s.mutant]
        start = s.position
    return "".join([*pieces, wild_type[start:]])


def difference(wild_type: str, sequence: str) -> Variant:
    """Return the variant that turns `wild_type` into `sequence`, which has the same length.

    Raises `DataError` for unequal lengths or a difference that is not between amino acids.

    >>> format_variant(difference("MKT", "MRT"))
    'K2R'
    """
    if len(wild_type) != len(sequence):
        raise DataError(
            f"the sequence has {len(sequence)} residues and the wild type {len(wild_type)}",
            "only substitutions are read; leave insertions and deletions out",
        )
    if wild_type == sequence:
        return ()
    return tuple(
        Substitution(i, before, after)
        for i, (before, after) in enumerate(zip(wild_type, sequence, strict=True), start=1)
        if before != after
    )
