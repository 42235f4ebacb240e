"""Encodings: how a variant of a wild type is written as tokens.

The paper's proposal (arXiv 2510.20943): instead of naming a mutation by a word that the model does
not know, write it into the sequence at its place, between separator tokens. Five ways stand side by
side, one function each. For the wild type ``MKTA``, the variant ``T3G`` and ProtBERT's tokens::

    separator       [CLS] M K [SEP] T [SEP] G [SEP] A [SEP]     the paper's
    unknown_text    [CLS] M K T A [SEP] [UNK] [SEP]             what the paper improves on
    unknown_site    [CLS] M K [UNK] A [SEP]
    mutant          [CLS] M K G A [SEP]
    wt_mutant_pair  [CLS] M K T A [SEP] M K G A [SEP]

A text longer than the encoder's context keeps the residues around the mutated sites (`window`).
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mutmeta_lib.data.variants import Variant, check_sequence, check_variant
from mutmeta_lib.errors import DataError
from mutmeta_lib.tasks.batches import TokenBatch
from mutmeta_lib.tasks.vocabulary import Vocabulary


@dataclass(frozen=True)
class Writing:
    """What an encoding makes of a variant: tokens in the place of residues, by index from 0.

    Of them the one at index ``site`` is the mutated site. ``wild_type_first`` writes the wild type
    and a separator before it all; the tokens ``last`` come behind.
    """

    tokens: dict[int, tuple[int, ...]]
    site: int = 0
    wild_type_first: bool = False
    last: tuple[int, ...] = ()


def separator(variant: Variant, vocabulary: Vocabulary) -> Writing:
    """``[SEP] wild-type [SEP] mutant [SEP]`` for each mutated residue; a site is the mutant."""
    mark, tokens = vocabulary.id(vocabulary.separator), {}
    for s in variant:
        before, after = vocabulary.residue_ids(s.wild_type + s.mutant)
        tokens[s.position - 1] = (mark, before, mark, after, mark)
    return Writing(tokens, site=3)


def unknown_text(variant: Variant, vocabulary: Vocabulary) -> Writing:
    """The wild type, a separator, and each mutation as a word that the vocabulary does not know.

    As long as the wild type fits the context, all variants with the same number of substitutions
    are the same tokens: only the sites, wild-type residues, tell them apart.
    """
    words = [vocabulary.separator] * bool(variant) + [vocabulary.unknown] * len(variant)
    tokens = {s.position - 1: vocabulary.residue_ids(s.wild_type) for s in variant}
    return Writing(tokens, last=tuple(map(vocabulary.id, words)))


def unknown_site(variant: Variant, vocabulary: Vocabulary) -> Writing:
    """Each mutated residue replaced by the unknown token, the site: where, but not what."""
    return Writing({s.position - 1: (vocabulary.id(vocabulary.unknown),) for s in variant})


def mutant(variant: Variant, vocabulary: Vocabulary) -> Writing:
    """The mutated sequence, as the model met them in pretraining; a site is the mutant residue."""
    return Writing({s.position - 1: vocabulary.residue_ids(s.mutant) for s in variant})


def wt_mutant_pair(variant: Variant, vocabulary: Vocabulary) -> Writing:
    """The wild type, a separator, and the mutated sequence, which has the sites; one window."""
    return Writing(mutant(variant, vocabulary).tokens, wild_type_first=True)


_WAYS = (separator, unknown_text, unknown_site, mutant, wt_mutant_pair)
ENCODINGS: dict[str, Callable[[Variant, Vocabulary], Writing]] = {w.__name__: w for w in _WAYS}
"""The encodings by name."""


def around(length: int, sites: Sequence[int], radius: int) -> list[range]:
    """The residues of ``[0, length)`` within a radius of any site, as sorted ranges."""
    kept: list[range] = []
    for site in sites:
        start, stop = max(0, site - radius), min(length, site + radius + 1)
        if kept and start <= kept[-1].stop:
            start = kept.pop().start
        kept.append(range(start, stop))
    return kept


def cost(kept: Sequence[range]) -> int:
    """Tokens that ranges of residues take: one a residue, and a separator at every joint."""
    return sum(map(len, kept)) + len(kept) - 1


def window(length: int, sites: Sequence[int], budget: int) -> list[range]:
    """The residues to keep of a sequence that may be longer than the context, as disjoint ranges.

    The entire sequence, if it has at most `budget` residues; else what is `around` the ascending
    `sites`, as wide as the `cost` allows, or the first residues. Empty if the sites do not fit.

    >>> window(10, [2], 10), window(100, [2, 60], 9)
    ([range(0, 10)], [range(1, 4), range(59, 62)])
    >>> window(100, [], 9), window(100, [2, 60], 2)
    ([range(0, 9)], [])
    """
    if length <= budget:
        return [range(length)]
    if not sites:
        return [range(budget)] if budget > 0 else []
    # The cost never falls as the radius grows: a joint vanishes only where residues fill it.
    fitting = bisect_right(range(length), budget, key=lambda r: cost(around(length, sites, r)))
    return around(length, sites, fitting - 1) if fitting else []


@dataclass(frozen=True)
class Encoded:
    """One variant as tokens, start and end included; `sites` are places among them, ascending."""

    token_ids: tuple[int, ...]
    sites: tuple[int, ...]


def encode(
    encoding: str, wild_type: str, variant: Variant, vocabulary: Vocabulary, max_tokens: int
) -> Encoded:
    """Write one variant (``()`` is the wild type) in one of `ENCODINGS`.

    `max_tokens` counts start and end tokens, too. Raises `DataError` where the encoding is unknown,
    the variant does not belong to the wild type, a letter is not in the vocabulary, or the mutated
    sites alone exceed the context.

    >>> from mutmeta_lib.data.variants import parse_variant
    >>> from mutmeta_lib.tasks.vocabulary import TINY_VOCABULARY
    >>> encoded = encode("separator", "MKTA", parse_variant("T3G"), TINY_VOCABULARY, 256)
    >>> " ".join(TINY_VOCABULARY.show(encoded.token_ids)), encoded.sites
    ('[CLS] M K [SEP] T [SEP] G [SEP] A', (6,))
    """
    if encoding not in ENCODINGS:
        raise DataError(f"there is no encoding '{encoding}'", f"use one of {', '.join(ENCODINGS)}")
    check_sequence(wild_type)
    check_variant(variant, wild_type)
    writing = ENCODINGS[encoding](variant, vocabulary)
    residues, sites = vocabulary.residue_ids(wild_type), list(writing.tokens)
    start, end = vocabulary.frame
    copies = 1 + writing.wild_type_first
    beside = len(start) + len(end) + len(writing.last) + writing.wild_type_first
    beside += sum(len(tokens) - 1 for tokens in writing.tokens.values())
    kept = window(len(residues), sites, (max_tokens - beside) // copies)
    if not kept:
        least = beside + copies * max(1, cost(around(len(residues), sites, 0)))
        raise DataError(
            f"a variant with {len(sites)} mutated sites takes at least {least} tokens in this "
            f"encoding, more than max_tokens = {max_tokens}",
            "raise max_tokens or use an encoder with a longer context",
        )
    joint = vocabulary.id(vocabulary.separator)
    ids, marked = list(start), []
    for part in kept if writing.wild_type_first else ():
        ids += [*residues[part.start : part.stop], joint]
    for number, part in enumerate(kept):
        ids += [joint] if number else []
        done = part.start
        for index in filter(part.__contains__, sites):
            ids += residues[done:index]
            marked.append(len(ids) + writing.site)
            ids += writing.tokens[index]
            done = index + 1
        ids += residues[done : part.stop]
    return Encoded((*ids, *writing.last, *end), tuple(marked))


def encode_variants(
    encoding: str,
    wild_type: str,
    variants: Sequence[Variant],
    vocabulary: Vocabulary,
    max_tokens: int,
) -> TokenBatch:
    """Write many variants of one wild type as a padded batch, in their order; as `encode`."""
    texts = [encode(encoding, wild_type, v, vocabulary, max_tokens) for v in variants]
    length = max((len(text.token_ids) for text in texts), default=1)
    ids = np.full((len(texts), length), vocabulary.id(vocabulary.pad), dtype=np.int64)
    mask, sites = np.zeros_like(ids, dtype=bool), np.zeros_like(ids, dtype=bool)
    for row, text in enumerate(texts):
        n = len(text.token_ids)
        ids[row, :n], mask[row, :n] = text.token_ids, True
        sites[row, list(text.sites)] = True
    return TokenBatch(*map(torch.from_numpy, (ids, mask, sites)))
