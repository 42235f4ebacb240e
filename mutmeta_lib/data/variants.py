"""Substitutions and variants: how they are written, and what they make of a wild type."""

import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from fqfa.constants import AA_CODES
from mavehgvs import Variant as HgvsVariant

from mutmeta_lib.errors import DataError

AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
WILD_TYPE = "WT"
_LETTERS = frozenset(AMINO_ACIDS)
# How tables write the wild type, and cells without a value; in lower case.
WILD_TYPE_WORDS = frozenset(
    {"wt", "_wt", "p.=", "p.(=)", "=", "wildtype", "wild-type", "wild_type", "wild type"}
)
MISSING = frozenset({"", "na", "nan", "n/a", "#n/a", "null", "none", "-", "--", "."})

DROP = ("nonsense", "synonymous", "indels", "missing")
"""What rows of a table may be left out for; ``missing`` is a mutation or a score."""

_THREE_TO_ONE = {AA_CODES[one]: one for one in AMINO_ACIDS}


@dataclass(frozen=True, order=True, slots=True)
class Substitution:
    """One of the twenty amino acids replaced by another, at a position from 1; ``A24G``."""

    position: int
    wild_type: str
    mutant: str

    def __post_init__(self) -> None:
        if self.position < 1:
            raise DataError(f"{self} has position {self.position}", "count residues from 1")
        if not {self.wild_type, self.mutant} <= _LETTERS:
            raise DataError(f"{self} has what is not an amino acid", f"use {AMINO_ACIDS}")
        if self.wild_type == self.mutant:
            raise DataError(f"{self} replaces {self.wild_type} by itself", "leave it out")

    def __str__(self) -> str:
        return f"{self.wild_type}{self.position}{self.mutant}"


Variant = tuple[Substitution, ...]
"""Substitutions sorted by position; the empty tuple is the wild type."""

_AA = rf"(?:{'|'.join([*_THREE_TO_ONE, 'Ter', 'Xaa', 'Sec', 'Pyl', 'Asx', 'Glx'])}|[A-Z*])"
_SITE = rf"(?P<wt>{_AA})(?P<position>-?[0-9]+)"
_RANGE = rf"{_SITE}(?:_{_AA}-?[0-9]+)?"
NOTATIONS = tuple(
    (what, drop, re.compile(pattern, re.ASCII))
    for what, drop, pattern in (
        ("a frame shift", "indels", rf"{_SITE}{_AA}?(?i:fs).*"),
        ("a deletion and insertion", "indels", rf"{_RANGE}(?i:delins|indel).*"),
        ("a deletion", "indels", rf"{_RANGE}(?:(?i:del).*|-|Δ)|(?:(?i:del)|Δ){_AA}?[0-9].*"),
        ("an insertion", "indels", rf"{_RANGE}(?i:ins).*"),
        ("a duplication", "indels", rf"{_RANGE}(?i:dup).*"),
        ("a repeat", "indels", rf"{_RANGE}\[[0-9]+\]"),
        ("an extension", "indels", rf"{_SITE}{_AA}?(?i:ext).*"),
        ("a lost stop codon", "indels", rf"(?P<wt>Ter|\*)(?P<position>[0-9]+)(?P<new>{_AA})"),
        ("a stop codon", "nonsense", rf"{_SITE}(?:Ter|(?i:stop)|\*)"),
        ("a synonymous change", "synonymous", rf"{_SITE}(?:=|(?P=wt))"),
        ("a substitution", "", rf"{_SITE}(?P<new>{_AA})"),
    )
)
"""What a change is, its word of `DROP` and how it is written; the first to fit counts."""


def parse_variant(text: str) -> Variant:
    """Read substitutions in HGVS or one-letter code, joined as tables do, or a word for wild type.

    Raises `DataError` for what is no substitution, named for what it is.

    >>> [format_variant(parse_variant(text)) for text in ("p.[Phe30Leu;Ala24Gly]", "p.=")]
    ['A24G:F30L', 'WT']
    """
    text = text.strip()
    if text.lower() in WILD_TYPE_WORDS:
        return ()
    if text.lower() in MISSING or text == "p.?":
        problem = f"the mutation is missing ('{text}')" if text else "the mutation is empty"
        raise DataError(problem, f"write {WILD_TYPE}, or leave it out", drop="missing")
    # Enrich2 writes _sy for all synonymous variants together.
    found = [_recognise(part, text) for part in (["A1="] if text == "_sy" else _parts(text))]
    # A stop or an indel decides what the protein is, whatever else is written beside it.
    odd = [change for change in found if change[1]]
    odd.sort(key=lambda change: change[1] == "synonymous")
    if odd and (odd[0][1] != "synonymous" or len(odd) == len(found)):
        problem = f"'{text}' is {odd[0][0]}, and only substitutions are read"
        raise DataError(problem, "leave it out", drop=odd[0][1])
    matches = [match for _, drop, match in found if not drop]
    one = _THREE_TO_ONE.get
    sites = [(int(m["position"]), one(m["wt"], m["wt"]), one(m["new"], m["new"])) for m in matches]
    variant = tuple(Substitution(*site) for site in sorted(sites))
    for before, after in pairwise(variant):
        if before.position == after.position:
            problem = f"{before} and {after} change the same position {before.position}"
            raise DataError(problem, "keep one change per position")
    if odd:
        raise DataError(f"'{text}' is synonymous in part", f"write {format_variant(variant)}")
    return variant


def written_sites(text: str) -> list[tuple[int, str]]:
    """Return (position, wild-type letter) of each change in a text, readable or not."""
    sites = [(int(at), _THREE_TO_ONE.get(wt, wt)) for wt, at in re.findall(_SITE, text, re.ASCII)]
    return [site for site in sites if site[1] in _LETTERS]


_JOINED = re.compile(r"\s*[:;,/|+&]\s*|\s+")


def _parts(text: str) -> list[str]:
    """Take a text apart into single changes, without HGVS' prefix and brackets."""
    if match := re.match(r"(?:([^:]+):)?([cgmnopr])\.", text):
        if match[2] != "p":
            raise DataError(f"'{text}' is a nucleotide variant", "give its protein change, p.")
        if match[1] and not _match(match[1].removeprefix("p.")):
            raise DataError(f"'{text}' names the sequence {match[1]}", f"leave '{match[1]}:' out")
    body = text.removeprefix("p.")
    bare = body.replace("(", "").replace(")", "")
    if bare != body and not _match(body) and all(map(_match, _JOINED.split(bare.strip("[]")))):
        raise DataError(f"'{text}' is predicted", f"write p.{bare} if that was measured")
    if body.startswith("[") and body.endswith("]") and "][" not in body.replace(";", ""):
        body = body[1:-1]
    parts = []
    for part in (chunk.removeprefix("p.") for chunk in _JOINED.split(body)):
        if not part:
            raise DataError(f"'{text}' has an empty part", "write mutations as A24G:F30L")
        # These two signs also stand inside the names of deletions and insertions.
        several = re.split("[_-]", part)
        parts += several if not _match(part) and all(map(_match, several)) else [part]
    return parts


@lru_cache(100_000)  # a table of multiple mutants repeats its parts
def _match(part: str) -> tuple[str, str, re.Match] | None:
    for what, drop, pattern in NOTATIONS:
        if match := pattern.fullmatch(part):
            return what, drop, match
    return None


def _recognise(part: str, text: str) -> tuple[str, str, re.Match]:
    """Return what a part of a text is, its word of `DROP` and its match."""
    if found := _match(part):
        return found
    where = "" if part == text else f" in '{text}'"
    for mended in (part.upper(), re.sub("[A-Za-z]{3}", lambda code: code[0].title(), part)):
        if (found := _match(mended)) and found[1]:
            return found
        if found:
            raise DataError(f"'{part}'{where} has letters in the wrong case", f"write {mended}")
    mend = "write the wild-type letter, the position and the new letter, as in A24G"
    raise DataError(f"'{part}'{where} is not a substitution", mend)


def format_variant(variant: Variant) -> str:
    """Write a variant in ProteinGym notation, such as ``A24G:F30L``; the wild type is ``WT``."""
    return ":".join(map(str, variant)) or WILD_TYPE


def format_hgvs(variant: Variant) -> str:
    """Write a variant in HGVS (``p.[Ala24Gly;Phe30Leu]``, ``p.=``), checked by mavehgvs."""
    parts = [f"{AA_CODES[s.wild_type]}{s.position}{AA_CODES[s.mutant]}" for s in variant]
    text = f"[{';'.join(parts)}]" if len(parts) > 1 else "".join(parts) or "="
    return str(HgvsVariant(f"p.{text}"))


def single_variants(wild_type: str) -> list[Variant]:
    """Return every single substitution of a protein, by position and letter; none of an ``X``."""
    check_sequence(wild_type)
    sites = [(i, letter) for i, letter in enumerate(wild_type, start=1) if letter != "X"]
    return [(Substitution(i, old, new),) for i, old in sites for new in AMINO_ACIDS if new != old]


def check_sequence(sequence: str, what: str = "wild type") -> None:
    """Raise `DataError` unless `sequence` is amino acids in capitals, named `what` in the error.

    A wild type alone may hold ``X``, a residue not resolved in a structure. What looks like DNA or
    RNA (20 letters or more, all of them bases) is refused.
    """
    letters = f"{AMINO_ACIDS}X" if what.startswith("wild type") else AMINO_ACIDS
    bases = set(sequence.upper())
    if not sequence:
        raise DataError(f"the {what} is empty", "give its amino-acid sequence")
    if len(sequence) >= 20 and bases <= set("ACGTUN") and len(bases & set("CGTU")) > 1:
        raise DataError(f"the {what} looks like DNA or RNA", "give its amino-acid sequence")
    if sequence != sequence.upper():
        raise DataError(f"the {what} has lower-case letters", "write it in capitals")
    if strange := re.search(f"[^{letters}]", sequence):
        similar = {"U": "C", "O": "K", "B": "D or N", "Z": "E or Q", "J": "I or L"}
        mend = (
            f"write {similar.get(strange[0], 'it without gaps, blanks and stops')}; use {letters}"
        )
        raise DataError(f"the {what} has '{strange[0]}' at position {strange.end()}", mend)


def check_variant(variant: Variant, wild_type: str) -> None:
    """Raise `DataError` unless all substitutions fit `wild_type`, sorted and no site twice."""
    if any(one.position >= other.position for one, other in pairwise(variant)):
        raise DataError(f"{format_variant(variant)} has positions unsorted or twice", "sort them")
    for s in variant:
        if s.position > len(wild_type):
            where = f"outside the wild type ({len(wild_type)} residues)"
            raise DataError(f"position {s.position} lies {where}", "check the numbering offset")
        if (found := wild_type[s.position - 1]) != s.wild_type:
            problem = f"{s} expects {s.wild_type} at position {s.position}, but the wild type has"
            raise DataError(f"{problem} {found}", "check the numbering offset and the wild type")


def apply_variant(variant: Variant, wild_type: str) -> str:
    """Return the mutated sequence; raises `DataError` when the variant does not fit."""
    check_variant(variant, wild_type)
    for s in variant:
        wild_type = f"{wild_type[: s.position - 1]}{s.mutant}{wild_type[s.position :]}"
    return wild_type


def difference(wild_type: str, sequence: str) -> Variant:
    """Return the variant that turns `wild_type` into `sequence`, of the same length."""
    if len(wild_type) != len(sequence):
        problem = f"the sequence has {len(sequence)} residues and the wild type {len(wild_type)}"
        raise DataError(problem, "leave insertions and deletions out", drop="indels")
    pairs = enumerate(zip(wild_type, sequence, strict=True), start=1)
    return tuple(Substitution(i, before, after) for i, (before, after) in pairs if before != after)


def mutation_types(substitution: Substitution) -> list[str]:
    """Return the types that a substitution belongs to, such as ``to proline``."""
    before, after = substitution.wild_type, substitution.mutant
    charges = [{"D": -1, "E": -1, "K": 1, "R": 1}.get(letter, 0) for letter in (before, after)]
    sides = ["hydrophobic" if letter in "AVILMFWYC" else "polar" for letter in (before, after)]
    types = {
        "to proline": after == "P",
        "from proline or glycine": before in "PG",
        "to glycine": after == "G",
        "charge changed": charges[0] != charges[1],
        "aromatic": {before, after} & set("FWYH"),
        " to ".join(sides): True,
    }
    return [name for name, belongs in types.items() if belongs]
