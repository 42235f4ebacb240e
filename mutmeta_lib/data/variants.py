"""Mutations: what a variant is, how it is written, and what it does to a sequence.

A *variant* is a tuple of substitutions sorted by position; the empty tuple is the wild type.
Tables write changes in many ways; `NOTATIONS` lists them, with what each is. Written out, a variant
is in ProteinGym's notation (``A24G``, several joined by ``:``) or in HGVS (``p.Ala24Gly``), the
latter through the mavehgvs package (MAVE-HGVS, the dialect of MaveDB). Positions count residues
from 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from fqfa.constants import AA_CODES
from mavehgvs import Variant as HgvsVariant

from mutmeta_lib.data.tables import MISSING
from mutmeta_lib.errors import DataError

AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
"""The twenty amino acids; one-letter codes in alphabetical order."""

WILD_TYPE = "WT"
"""How the variant without any substitution is written."""

_ONE_TO_THREE = {one: AA_CODES[one] for one in AMINO_ACIDS}
_THREE_TO_ONE = {three: one for one, three in _ONE_TO_THREE.items()}

DROP = ("nonsense", "synonymous", "indels", "missing")
"""What rows of a table may be left out for: stop codons, synonymous changes, insertions, deletions
and frame shifts, and a mutation or score that is missing."""


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


@dataclass(frozen=True)
class Notation:
    """One way in which tables write a change of one part of a protein.

    `drop` is the word of `DROP` that leaves such rows out, empty for a substitution. The pattern's
    groups ``wt``, ``position`` and ``new`` are the old residue, its place and the new residue.
    """

    what: str
    drop: str
    pattern: re.Pattern


_AA = r"(?:[A-Z][a-z]{2}|[A-Z*])"
_SITE = rf"(?P<wt>{_AA})(?P<position>-?[0-9]+)"
_RANGE = rf"{_SITE}(?:_{_AA}-?[0-9]+)?"
NOTATIONS = tuple(
    Notation(what, drop, re.compile(pattern, re.ASCII))
    for what, drop, pattern in (
        ("a frame shift", "indels", rf"{_SITE}{_AA}?fs.*"),
        ("a deletion and insertion", "indels", rf"{_RANGE}(?:delins|indel).*"),
        ("a deletion", "indels", rf"{_RANGE}(?:del.*|-|Δ)|(?:del|Δ){_AA}?[0-9].*"),
        ("an insertion", "indels", rf"{_RANGE}ins.*"),
        ("a duplication", "indels", rf"{_RANGE}dup.*"),
        ("a repeat", "indels", rf"{_RANGE}\[[0-9]+\]"),
        ("an extension", "indels", rf"{_SITE}{_AA}?ext.*"),
        ("a lost stop codon", "indels", rf"(?P<wt>Ter|\*)(?P<position>[0-9]+)(?P<new>{_AA})"),
        ("a stop codon", "nonsense", rf"{_SITE}(?:Ter|[Ss]top|STOP|\*)"),
        ("a synonymous change", "synonymous", rf"{_SITE}(?:=|(?P=wt))"),
        ("a substitution", "", rf"{_SITE}(?P<new>{_AA})"),
    )
)
"""What a change is, by how it is written in one-letter or three-letter code; the first to fit."""

WILD_TYPE_WORDS = frozenset(
    {"wt", "_wt", "p.=", "p.(=)", "=", "wildtype", "wild-type", "wild_type", "wild type"}
)
"""How tables write the wild type, in lower case."""


def parse_variant(text: str) -> Variant:
    """Read one variant, in any notation of `NOTATIONS`, sorted by position.

    Substitutions are read in one-letter (``A24G``) and three-letter code (``Ala24Gly``), with or
    without HGVS' ``p.`` and brackets, joined by a colon or any of ``, ; / | + & _ -`` and blanks.
    ``WT``, ``p.=``, ``_wt`` and ``wildtype`` are the wild type. Blanks around the text and leading
    zeros of a position are not kept.

    Raises:
        DataError: What is no substitution, named for what it is; its `drop` is the word of `DROP`
            that leaves such rows out. Also a position changed twice, below 1, or an unknown letter.

    >>> parse_variant("A24G")
    (Substitution(position=24, wild_type='A', mutant='G'),)
    >>> [format_variant(parse_variant(text)) for text in ("p.[Phe30Leu;Ala24Gly]", "F30L A24G")]
    ['A24G:F30L', 'A24G:F30L']
    >>> parse_variant("WT"), parse_variant("p.=")
    ((), ())

    """
    text = text.strip()
    whole = text.lower()
    if whole in WILD_TYPE_WORDS:
        return ()
    if whole in MISSING or whole == "p.?":
        problem = f"the mutation is missing ('{text}')" if text else "the mutation is empty"
        raise DataError(problem, f"leave the row out, or write {WILD_TYPE}", drop="missing")
    if whole == "_sy":  # Enrich2's word for all synonymous variants together
        raise _not_substituted(text, "a synonymous change", "synonymous")
    parts = _parts(text)
    found = [_recognise(part, text) for part in parts]
    kept = [match for notation, match in found if not notation.drop]
    # A stop or an indel decides what the protein is, whatever else is written beside it.
    for notation, _ in found:
        if notation.drop not in ("", "synonymous"):
            raise _not_substituted(text, notation.what, notation.drop)
    if kept and len(kept) < len(found):
        changes = format_variant(_variant(map(_substitution, kept)))
        raise DataError(f"'{text}' holds a synonymous change as well", f"write {changes}")
    if not kept:
        raise _not_substituted(text, found[0][0].what, found[0][0].drop)
    return _variant(map(_substitution, kept))


def written_sites(text: str) -> list[tuple[int, str]]:
    """Return (position, wild-type letter) of each change in a text; none for what is not known.

    Positions are as written, even below 1; they tell how a table is numbered, whether or not its
    rows can be read.

    >>> written_sites("p.[Met0Lys;Ala3=]"), written_sites("wild type")
    ([(0, 'M'), (3, 'A')], [])
    """
    try:
        matches = [_recognise(part, text)[1] for part in _parts(text.strip())]
    except DataError:
        return []
    named = [match for match in matches if match["wt"]]
    return [(int(m["position"]), _THREE_TO_ONE.get(m["wt"], m["wt"])) for m in named]


def _not_substituted(text: str, what: str, drop: str) -> DataError:
    return DataError(
        f"'{text}' is {what}, and only substitutions are read",
        f"leave such rows out (--drop {drop})",
        drop=drop,
    )


_STRONG = re.compile(r"\s*[:;,/|+&]\s*|\s+")
_WEAK = re.compile(r"[_-]")


def _parts(text: str) -> list[str]:
    """Take a text apart into single changes, without HGVS' prefix and brackets."""
    if match := re.match(r"(?:([^:]+):)?([cgmnopr])\.", text):
        if match[2] != "p":
            raise DataError(f"'{text}' is a nucleotide variant", "give its protein change, p.")
        if match[1] and not _match(match[1].removeprefix("p.")):
            raise DataError(
                f"'{text}' names the sequence {match[1]}",
                f"leave '{match[1]}:' out; positions count on the wild type given",
            )
    body = text.removeprefix("p.")
    if body.startswith("(") and body.endswith(")"):
        raise DataError(
            f"'{text}' is a predicted consequence, in parentheses",
            f"write p.{body[1:-1]} if that is the protein measured",
        )
    if body.startswith("[") and body.endswith("]") and "][" not in body.replace(";", ""):
        body = body[1:-1]
    parts = []
    for chunk in _STRONG.split(body):
        part = chunk.removeprefix("p.")
        if not part:
            raise DataError(f"'{text}' has an empty part", "write mutations as A24G:F30L")
        # These two signs also stand inside the names of deletions and insertions.
        several = _WEAK.split(part)
        parts += several if not _match(part) and all(map(_match, several)) else [part]
    return parts


def _match(part: str) -> tuple[Notation, re.Match] | None:
    for notation in NOTATIONS:
        if match := notation.pattern.fullmatch(part):
            return notation, match
    return None


def _recognise(part: str, text: str) -> tuple[Notation, re.Match]:
    if found := _match(part):
        return found
    where = "" if part == text else f" in '{text}'"
    for mended in (part.upper(), re.sub("[A-Za-z]{3}", lambda code: code[0].title(), part)):
        if part and _match(mended):
            raise DataError(f"'{part}'{where} has letters in the wrong case", f"write {mended}")
    if part.isalpha() and part.isupper() and len(part) > 3:
        raise DataError(
            f"'{part}' looks like a sequence, not a mutation",
            "write the changes as A24G:F30L; `difference` finds them",
        )
    raise DataError(
        f"'{part}'{where} is not a substitution",
        "write the wild-type letter, the position and the new letter, as in A24G",
    )


def _substitution(match: re.Match) -> Substitution:
    letters = []
    for code in (match["wt"], match["new"]):
        letter = _THREE_TO_ONE.get(code, code)
        if letter not in AMINO_ACIDS:
            raise DataError(f"'{match[0]}' has the unknown letter '{code}'", f"use {AMINO_ACIDS}")
        letters.append(letter)
    position = int(match["position"])
    if position < 1:
        raise DataError(f"'{match[0]}' has position {position}", "count residues from 1")
    return Substitution(position, *letters)


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


def format_hgvs(variant: Variant) -> str:
    """Write a variant in HGVS protein notation, checked by mavehgvs; the wild type is ``p.=``.

    >>> format_hgvs(parse_variant("A24G")), format_hgvs(parse_variant("A24G:F30L"))
    ('p.Ala24Gly', 'p.[Ala24Gly;Phe30Leu]')
    """
    parts = [f"{_ONE_TO_THREE[s.wild_type]}{s.position}{_ONE_TO_THREE[s.mutant]}" for s in variant]
    if len(parts) < 2:
        return str(HgvsVariant(f"p.{parts[0]}" if parts else "p.="))
    return str(HgvsVariant(f"p.[{';'.join(parts)}]"))


_MENDS = {
    "U": "write C or X for selenocysteine",
    "O": "write K or X for pyrrolysine",
    "B": "write D, N or X",
    "Z": "write E, Q or X",
    "J": "write I, L or X",
    "-": "take the gaps out",
    ".": "take the gaps out",
}


def check_sequence(sequence: str, what: str = "wild type") -> None:
    """Raise `DataError` unless `sequence` is amino acids in capitals, named `what` in the error.

    A wild type may hold ``X``, a residue not resolved in a structure; no other sequence may. What
    looks like DNA or RNA (20 letters or more, all of them bases) is refused.

    >>> check_sequence("MKTX")
    """
    allowed = AMINO_ACIDS + "X" if what == "wild type" else AMINO_ACIDS
    if not sequence:
        raise DataError(f"the {what} is empty", "give its amino-acid sequence")
    bases = set(sequence.upper())
    if len(sequence) >= 20 and bases <= set("ACGTUN") and len(bases & set("CGTU")) > 1:
        raise DataError(f"the {what} looks like DNA or RNA", "give its amino-acid sequence")
    if sequence != sequence.upper():
        raise DataError(f"the {what} has lower-case letters", "write it in capitals")
    for index, letter in enumerate(sequence, start=1):
        if letter not in allowed:
            mend = (
                "leave the final '*' out"
                if letter == "*" and index == len(sequence)
                else _MENDS.get(letter, f"use the letters {allowed}")
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
            "only substitutions are read; leave insertions and deletions out (--drop indels)",
            drop="indels",
        )
    if wild_type == sequence:
        return ()
    return tuple(
        Substitution(i, before, after)
        for i, (before, after) in enumerate(zip(wild_type, sequence, strict=True), start=1)
        if before != after
    )
