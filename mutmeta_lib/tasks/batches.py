"""Which rows an encoder reads together when many are run without gradients.

Batches are small enough for a processor's cache, hold rows of similar length, and, where it pays,
siblings: rows that differ in one column (`models.siblings`), such as the substitutions at one
site of a protein.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from mutmeta_lib.tasks.batch import TokenBatch

MAX_TOKENS = 4_096
"""Tokens of a batch: above, hidden states leave the cache of one processor core."""

LEAST_SIBLINGS = 4
"""Fewer siblings are not worth a batch of their own."""


def run_batches(
    tokens: TokenBatch, rows: int = 64, *, layered: bool = True
) -> Iterator[tuple[np.ndarray, TokenBatch]]:
    """Cut a batch into those in which it is run.

    Args:
        tokens: All rows; with or without hidden states.
        rows: Rows of a batch at most (not where pooled vectors are given).
        layered: Whether the encoder makes use of siblings (`mutmeta_lib.models.layers`).

    Yields:
        Row numbers and the rows; every row once.

    """
    if tokens.hidden is not None and tokens.hidden.dim() == 2:
        yield np.arange(len(tokens)), tokens
        return
    alone = np.ones(len(tokens), dtype=bool)
    if layered and tokens.hidden is None:
        for column, members in sibling_rows(tokens):
            if len(members) < LEAST_SIBLINGS:
                continue
            alone[members] = False
            length = int(tokens.mask[members[0]].sum())
            # A protein's 19 substitutions stay together if they are not much above the limit.
            most = max(1, min(rows, 2 * MAX_TOKENS // length))
            for part in np.array_split(members, -(-len(members) // most)):
                yield part, replace(tokens.rows(part), varying=column)
    remaining = np.flatnonzero(alone)
    for part in length_buckets(tokens.mask[alone].sum(dim=1), rows, MAX_TOKENS):
        chosen = remaining[part.numpy()]
        yield chosen, tokens.rows(chosen)


def distinct_rows(tokens: TokenBatch, pooling: str) -> tuple[np.ndarray, np.ndarray]:
    """What there is to run: rows with the same tokens, pooled alike, are one.

    Read apart, in batches of different company, they would differ by rounding, and ranks make
    something of the smallest difference: variants that an encoding cannot tell apart must tie.

    Returns:
        Row numbers, one for each distinct text, ascending, and for every row the place of its text
        among them.

    >>> from mutmeta_lib.tasks.encodings import encode_variants
    >>> from mutmeta_lib.data.variants import parse_variant
    >>> from mutmeta_lib.tasks.vocabulary import TINY_VOCABULARY
    >>> variants = [parse_variant(text) for text in ("K2A", "WT", "K2C", "T3A")]
    >>> batch = encode_variants("unknown_text", "MKTA", variants, TINY_VOCABULARY, 256)
    >>> [part.tolist() for part in distinct_rows(batch, "cls")]
    [[0, 1], [0, 1, 0, 0]]
    >>> [part.tolist() for part in distinct_rows(batch, "sites")]
    [[0, 1, 3], [0, 1, 0, 2]]
    """
    read = np.where(tokens.mask.cpu().numpy(), tokens.token_ids.cpu().numpy(), -1)
    if pooling == "sites":
        read = np.hstack([read, tokens.sites.cpu().numpy()])
    place: dict[bytes, int] = {}
    which = np.array([place.setdefault(row.tobytes(), len(place)) for row in read], dtype=int)
    return np.unique(which, return_index=True)[1], which


def sibling_rows(tokens: TokenBatch) -> list[tuple[int, np.ndarray]]:
    """Groups of rows that are equal but for the token of their last mutated site.

    Returns:
        The site's column and the row numbers; rows without a site are in no group.

    >>> from mutmeta_lib.tasks.encodings import encode_variants
    >>> from mutmeta_lib.data.variants import parse_variant
    >>> from mutmeta_lib.tasks.vocabulary import TINY_VOCABULARY
    >>> variants = [parse_variant(text) for text in ("K2A", "K2C", "T3A", "WT")]
    >>> batch = encode_variants("separator", "MKTA", variants, TINY_VOCABULARY, 256)
    >>> [(column, rows.tolist()) for column, rows in sibling_rows(batch)]
    [(5, [0, 1]), (6, [2])]
    """
    sites = tokens.sites.cpu().numpy()
    blanked = np.where(tokens.mask.cpu().numpy(), tokens.token_ids.cpu().numpy(), -1)
    columns = sites.shape[1] - 1 - sites[:, ::-1].argmax(axis=1)
    mutated = np.flatnonzero(sites.any(axis=1))
    blanked[mutated, columns[mutated]] = -2
    groups: dict[bytes, list[int]] = {}
    for row in mutated.tolist():
        groups.setdefault(blanked[row].tobytes(), []).append(row)
    return [(int(columns[members[0]]), np.array(members)) for members in groups.values()]


def length_buckets(
    lengths: torch.Tensor, rows: int, tokens: int = MAX_TOKENS
) -> Iterator[torch.Tensor]:
    """Row numbers in batches of similar length, so that little is padding.

    Args:
        lengths: Tokens of each row, ``(n,)``.
        rows: Rows of a batch at most.
        tokens: Tokens of a batch at most, padding included, unless one row alone has more.

    >>> list(length_buckets(torch.tensor([5, 2, 5, 2]), rows=2))
    [tensor([1, 3]), tensor([0, 2])]
    """
    order = torch.argsort(lengths, stable=True).cpu()
    sizes = lengths.cpu()[order].tolist()
    first = 0
    for place in range(1, len(sizes) + 1):
        count = place - first + 1
        if place == len(sizes) or count > rows or count * sizes[place] > tokens:
            yield order[first:place]
            first = place
