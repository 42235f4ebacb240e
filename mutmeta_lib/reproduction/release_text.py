"""The text that the public code gives to a tokenizer, in an implementation of our own.

In the version of 22 July 2025 (``data.py``: ``_combine_mutations``,
``_highlight_mutation_in_sequence``, ``_precompute_tokenization``) only the first two mutations of
a row are read. Each in turn is looked up in the text *as it stands*, at the character that its
position had in the sequence, and replaced by a marked pair of residues if the letter there agrees.
A text of more than ``max_length - 50`` characters is given up for the plain form: at most
``max_length - 100`` residues, then the mutations as words.

This module serves the audit and the arm "as released"; `encoding` is how we write a variant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mutmeta_lib.reproduction.release import Written, is_amino_acids

MAX_LENGTH = 1024
READ = 2
"""How many mutations of a row are read."""

FATES = ("in place", "astray", "skipped", "as words", "not read")


@dataclass(frozen=True)
class ReleaseText:
    """What a tokenizer is given, and what became of each mutation, in the row's order.

    Attributes:
        text: The characters.
        fates: Per mutation ``in place`` (marked at its residue), ``astray`` (marked at something
            else that has the same letter), ``skipped`` (another letter was found, the mutation is
            not in the text), ``as words`` (the text was too long) or ``not read``.

    """

    text: str
    fates: tuple[str, ...]


Characters = list[tuple[str, int | None]]
"""Characters of a text, each with the residue (from 0) that it stands for, if any."""


def release_text(
    sequence: str,
    mutations: Sequence[Written],
    *,
    spaced: bool = True,
    max_length: int = MAX_LENGTH,
) -> ReleaseText:
    """Write a row as the public code does.

    `spaced` is the form for ProtBERT, with a blank between residues; ESM-2 and BERT get the
    sequence without.

    >>> release_text("MKTA", [Written("T", 3, "G")]).text
    'M K  [SEP] T [SEP] G [SEP] A'
    >>> release_text("MKTAYIAK", [Written("K", 2, "R"), Written("A", 4, "G")]).fates
    ('in place', 'skipped')
    """
    characters = _letters(sequence, spaced)
    fates = []
    for written in mutations[:READ]:
        characters, fate = _mark(characters, written)
        fates.append(fate)
    fates += ["not read"] * (len(mutations) - len(fates))
    text = "".join(character for character, _ in characters)
    if len(text) <= max_length - 50:
        return ReleaseText(text, tuple(fates))
    kept = "".join(c for c, _ in _letters(sequence[: max_length - 100], spaced))
    words = " ".join(map(str, mutations[:READ]))
    fates = ["as words" if fate != "not read" else fate for fate in fates]
    return ReleaseText(f"{kept} [SEP] {words}", tuple(fates))


def _letters(sequence: str, spaced: bool) -> Characters:
    letters: Characters = []
    for residue, letter in enumerate(sequence):
        if spaced and residue:
            letters.append((" ", None))
        letters.append((letter, residue))
    return letters


def _mark(characters: Characters, written: Written) -> tuple[Characters, str]:
    """Mark one mutation where the letter at its supposed place agrees."""
    # Any blank counts as the spaced form, also one that an earlier mark has brought in.
    step = 2 if any(character == " " for character, _ in characters) else 1
    place = step * (written.position - 1)
    if not is_amino_acids(written) or place >= len(characters):
        return characters, "skipped"
    letter, residue = characters[place]
    if letter != written.first:
        return characters, "skipped"
    mark: Characters = [(c, None) for c in f" [SEP] {written.first} [SEP] {written.last} [SEP] "]
    fate = "in place" if residue == written.position - 1 else "astray"
    return characters[:place] + mark + characters[place + step :], fate
