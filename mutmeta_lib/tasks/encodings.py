"""Encodings: how a variant of a wild type is written as tokens.

The paper's proposal is about this step: instead of naming a mutation by a word that the model does
not know, write it into the sequence at its place, between separator tokens (arXiv 2510.20943). Five
ways stand side by side, one function each, all with the same arguments and result (`ENCODINGS`).
For the wild type ``MKTA``, the variant ``T3G`` and ProtBERT's tokens they are::

    separator       [CLS] M K [SEP] T [SEP] G [SEP] A [SEP]     the paper's
    unknown_text    [CLS] M K T A [SEP] [UNK] [SEP]             what the paper improves on
    unknown_site    [CLS] M K [UNK] A [SEP]
    mutant          [CLS] M K G A [SEP]
    wt_mutant_pair  [CLS] M K T A [SEP] M K G A [SEP]

A text longer than the encoder's context keeps the residues around the mutated sites (`window`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch

from mutmeta_lib.data.variants import Variant, check_sequence, check_variant
from mutmeta_lib.errors import DataError
from mutmeta_lib.tasks.batch import TokenBatch
from mutmeta_lib.tasks.vocabulary import Vocabulary
from mutmeta_lib.tasks.window import cost, pieces_around, window


@dataclass(frozen=True)
class Encoded:
    """One variant as tokens.

    Attributes:
        token_ids: What the model reads, start and end tokens included.
        sites: Indices into `token_ids` of the mutated sites, one per substitution, in order of
            position; empty for the wild type. Which token stands for a site is up to the
            encoding and said there.

    """

    token_ids: tuple[int, ...]
    sites: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def attention_mask(self) -> tuple[int, ...]:
        """One 1 per token: a single text has no padding."""
        return (1,) * len(self.token_ids)


@dataclass(frozen=True)
class _Draft:
    """The tokens of one copy of a sequence, without start and end, and where its sites are."""

    token_ids: list[int]
    sites: list[int]


def _kept(
    wild_type: str,
    variant: Variant,
    vocabulary: Vocabulary,
    max_tokens: int,
    *,
    extra: int = 0,
    copies: int = 1,
) -> list[range]:
    """The window of an encoding that spends `extra` tokens beside its copies of the sequence."""
    frame = len(vocabulary.start_ids) + len(vocabulary.end_ids)
    budget = (max_tokens - frame - extra) // copies
    sites = [substitution.position - 1 for substitution in variant]
    pieces = window(len(wild_type), sites, budget)
    if not pieces:
        least = frame + extra + copies * max(1, cost(pieces_around(len(wild_type), sites, 0)))
        raise DataError(
            f"a variant with {len(sites)} mutated sites takes at least {least} tokens in this "
            f"encoding, more than max_tokens = {max_tokens}",
            "raise max_tokens or use an encoder with a longer context",
        )
    return pieces


def _write(
    wild_type: str,
    pieces: Sequence[range],
    at_site: dict[int, tuple[list[int], int]],
    vocabulary: Vocabulary,
) -> _Draft:
    """Write residues piece by piece; `at_site` replaces a residue by tokens, one of them marked."""
    residues = vocabulary.residue_ids(wild_type)
    draft = _Draft([], [])
    for piece in pieces:
        if draft.token_ids:
            draft.token_ids.append(vocabulary.id(vocabulary.separator))
        written = piece.start
        for index in sorted(site for site in at_site if site in piece):
            tokens, marked = at_site[index]
            draft.token_ids.extend(residues[written:index])
            draft.sites.append(len(draft.token_ids) + marked)
            draft.token_ids.extend(tokens)
            written = index + 1
        draft.token_ids.extend(residues[written : piece.stop])
    return draft


def _finish(draft: _Draft, vocabulary: Vocabulary) -> Encoded:
    """Add the start and end tokens."""
    start = vocabulary.start_ids
    return Encoded(
        token_ids=(*start, *draft.token_ids, *vocabulary.end_ids),
        sites=tuple(site + len(start) for site in draft.sites),
    )


def _mutated(variant: Variant, vocabulary: Vocabulary) -> dict[int, tuple[list[int], int]]:
    """At every site the mutant residue in place of the wild-type one."""
    return {s.position - 1: (list(vocabulary.residue_ids(s.mutant)), 0) for s in variant}


def encode_separator(
    wild_type: str, variant: Variant, vocabulary: Vocabulary, max_tokens: int
) -> Encoded:
    """The paper's encoding: ``[SEP] wild-type [SEP] mutant [SEP]`` replaces each mutated residue.

    Works for any number of substitutions (each costs four tokens more than the residue it
    replaces; two adjacent ones have two separators between them). A site is the mutant residue.
    """
    separator = vocabulary.id(vocabulary.separator)
    at_site = {}
    for substitution in variant:
        (before,) = vocabulary.residue_ids(substitution.wild_type)
        (after,) = vocabulary.residue_ids(substitution.mutant)
        tokens = [separator, before, separator, after, separator]
        at_site[substitution.position - 1] = (tokens, 3)
    pieces = _kept(wild_type, variant, vocabulary, max_tokens, extra=4 * len(variant))
    return _finish(_write(wild_type, pieces, at_site, vocabulary), vocabulary)


def encode_unknown_text(
    wild_type: str, variant: Variant, vocabulary: Vocabulary, max_tokens: int
) -> Encoded:
    """The wild type, a separator, and each mutation as a word that the vocabulary does not know.

    This is what becomes of the text ``M K T A [SEP] T3G`` in ProtBERT: a vocabulary of single
    letters holds no ``T3G``, so the word is one unknown token. As long as the wild type fits the
    context, **all variants with the same number of substitutions are the same tokens**: the model
    cannot tell them apart, and only `sites` does. (Beyond the context the window moves with the
    site.) A site is the wild-type residue at the mutated position. The wild type has no word and
    no separator.
    """
    residues = vocabulary.residue_ids(wild_type)
    at_site = {s.position - 1: ([residues[s.position - 1]], 0) for s in variant}
    extra = 1 + len(variant) if variant else 0
    pieces = _kept(wild_type, variant, vocabulary, max_tokens, extra=extra)
    draft = _write(wild_type, pieces, at_site, vocabulary)
    if variant:
        words = [vocabulary.id(vocabulary.unknown)] * len(variant)
        draft = _Draft([*draft.token_ids, vocabulary.id(vocabulary.separator), *words], draft.sites)
    return _finish(draft, vocabulary)


def encode_unknown_site(
    wild_type: str, variant: Variant, vocabulary: Vocabulary, max_tokens: int
) -> Encoded:
    """The sequence with each mutated residue replaced by the unknown token, which is the site.

    The model sees where a mutation is but not what it is: all 19 substitutions at a position are
    the same tokens.
    """
    unknown = vocabulary.id(vocabulary.unknown)
    at_site = {substitution.position - 1: ([unknown], 0) for substitution in variant}
    pieces = _kept(wild_type, variant, vocabulary, max_tokens)
    return _finish(_write(wild_type, pieces, at_site, vocabulary), vocabulary)


def encode_mutant(
    wild_type: str, variant: Variant, vocabulary: Vocabulary, max_tokens: int
) -> Encoded:
    """The mutated sequence itself, as the model met sequences in pretraining.

    A site is the mutant residue.
    """
    pieces = _kept(wild_type, variant, vocabulary, max_tokens)
    draft = _write(wild_type, pieces, _mutated(variant, vocabulary), vocabulary)
    return _finish(draft, vocabulary)


def encode_wt_mutant_pair(
    wild_type: str, variant: Variant, vocabulary: Vocabulary, max_tokens: int
) -> Encoded:
    """The wild type, a separator, and the mutated sequence; both show the same window.

    A site is the mutant residue in the second copy. The wild type is paired with itself.
    """
    pieces = _kept(wild_type, variant, vocabulary, max_tokens, extra=1, copies=2)
    first = _write(wild_type, pieces, {}, vocabulary).token_ids
    second = _write(wild_type, pieces, _mutated(variant, vocabulary), vocabulary)
    offset = len(first) + 1
    draft = _Draft(
        token_ids=[*first, vocabulary.id(vocabulary.separator), *second.token_ids],
        sites=[site + offset for site in second.sites],
    )
    return _finish(draft, vocabulary)


EncodeFunction = Callable[[str, Variant, Vocabulary, int], Encoded]
"""The shape of every encoding: ``(wild_type, variant, vocabulary, max_tokens) -> Encoded``."""

ENCODINGS: dict[str, EncodeFunction] = {
    "separator": encode_separator,
    "unknown_text": encode_unknown_text,
    "unknown_site": encode_unknown_site,
    "mutant": encode_mutant,
    "wt_mutant_pair": encode_wt_mutant_pair,
}
"""The encodings by name."""


def _named(encoding: str) -> EncodeFunction:
    if encoding not in ENCODINGS:
        raise DataError(f"there is no encoding '{encoding}'", f"use one of {', '.join(ENCODINGS)}")
    return ENCODINGS[encoding]


def encode(
    encoding: str, wild_type: str, variant: Variant, vocabulary: Vocabulary, max_tokens: int
) -> Encoded:
    """Write one variant as tokens.

    Args:
        encoding: A name in `ENCODINGS`.
        wild_type: The wild-type sequence, one letter per residue.
        variant: Substitutions on it, sorted by position; ``()`` is the wild type.
        vocabulary: The encoder's tokens.
        max_tokens: The encoder's context, start and end tokens included.

    Returns:
        At most `max_tokens` token ids, and the index of every mutated site among them.

    Raises:
        DataError: The encoding is unknown, the variant does not belong to the wild type, a letter
            is not in the vocabulary, or the mutated sites alone exceed `max_tokens`.

    >>> from mutmeta_lib.data.variants import parse_variant
    >>> from mutmeta_lib.tasks.vocabulary import TINY_VOCABULARY
    >>> encoded = encode("separator", "MKTA", parse_variant("T3G"), TINY_VOCABULARY, 256)
    >>> " ".join(TINY_VOCABULARY.show(encoded.token_ids))
    '[CLS] M K [SEP] T [SEP] G [SEP] A'
    >>> encoded.sites
    (6,)

    """
    check_sequence(wild_type)
    check_variant(variant, wild_type)
    return _named(encoding)(wild_type, variant, vocabulary, max_tokens)


def encode_variants(
    encoding: str,
    wild_type: str,
    variants: Sequence[Variant],
    vocabulary: Vocabulary,
    max_tokens: int,
) -> TokenBatch:
    """Write many variants of one wild type as a padded batch, in their order.

    Arguments and errors are those of `encode`.

    >>> from mutmeta_lib.data.variants import parse_variant
    >>> from mutmeta_lib.tasks.vocabulary import TINY_VOCABULARY
    >>> batch = encode_variants(
    ...     "mutant", "MKTA", [parse_variant("T3G"), ()], TINY_VOCABULARY, 256)
    >>> batch.token_ids.tolist()
    [[2, 14, 12, 9, 4], [2, 14, 12, 20, 4]]
    >>> batch.sites.int().tolist()
    [[0, 0, 0, 1, 0], [0, 0, 0, 0, 0]]

    """
    write = _named(encoding)
    check_sequence(wild_type)
    for variant in variants:
        check_variant(variant, wild_type)
    texts = [write(wild_type, variant, vocabulary, max_tokens) for variant in variants]
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    width = max(1, lengths.max(initial=1))
    mask = np.arange(width) < lengths[:, None]
    token_ids = np.full(mask.shape, vocabulary.id(vocabulary.pad), dtype=np.int64)
    token_ids[mask] = np.fromiter(chain.from_iterable(t.token_ids for t in texts), dtype=np.int64)
    sites = np.zeros(mask.shape, dtype=bool)
    rows = np.repeat(np.arange(len(texts)), [len(text.sites) for text in texts])
    columns = np.fromiter(chain.from_iterable(text.sites for text in texts), dtype=np.int64)
    sites[rows, columns] = True
    return TokenBatch(torch.from_numpy(token_ids), torch.from_numpy(mask), torch.from_numpy(sites))
