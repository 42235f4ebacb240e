"""Many token sequences as one padded block, and which rows an encoder reads together.

Batches are small enough for a processor's cache, hold rows of similar length, and, where it pays,
siblings: rows that differ in one column, such as the substitutions at one site of a protein.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

MAX_TOKENS = 4_096
"""Tokens of a batch: above, hidden states leave the cache of one processor core."""

LEAST_SIBLINGS = 4
"""Fewer siblings are not worth a batch of their own."""


@dataclass(frozen=True, eq=False)
class TokenBatch:
    """Variants as one padded block of tokens, one row each.

    Attributes:
        token_ids: Token ids, int64, shape ``(n, length)``.
        mask: True at real tokens, False at padding, shape ``(n, length)``.
        sites: True at the tokens of mutated sites, shape ``(n, length)``.
        hidden: Where a part of the encoder has been run: the hidden states that enter the next
            layer, ``(n, length, width)``, or after the last one pooled vectors, ``(n, width)``.
        varying: The only column in which the rows differ, where that is known and no row is padded.

    """

    token_ids: torch.Tensor
    mask: torch.Tensor
    sites: torch.Tensor
    hidden: torch.Tensor | None = None
    varying: int | None = None

    def __len__(self) -> int:
        return len(self.token_ids)

    def rows(self, index: Sequence[int] | np.ndarray | torch.Tensor) -> TokenBatch:
        """The rows at `index` (row numbers, or one boolean per row), without needless padding."""
        index = np.asarray(index)
        chosen = torch.from_numpy(index if index.size else index.astype(int)).to(self.mask.device)
        # At least one column is kept, so that no row at all is still a batch an encoder can read.
        length = max([1, *self.mask[chosen].sum(dim=1).tolist()])
        blocks = [part[chosen][:, :length] for part in (self.token_ids, self.mask, self.sites)]
        hidden = None if self.hidden is None else self.hidden[chosen]
        if hidden is not None and hidden.dim() == 3:
            hidden = hidden[:, :length]
        return TokenBatch(*blocks, hidden, self.varying)

    def to(self, device: torch.device | str) -> TokenBatch:
        """The same batch on another device."""
        blocks = (part.to(device) for part in (self.token_ids, self.mask, self.sites))
        return TokenBatch(
            *blocks, None if self.hidden is None else self.hidden.to(device), self.varying
        )


def concatenate(batches: Sequence[TokenBatch]) -> TokenBatch:
    """One batch of the rows of several, padded to the longest."""
    length = max(batch.mask.shape[1] for batch in batches)

    def joined(name: str) -> torch.Tensor:
        parts = [getattr(batch, name) for batch in batches]
        if name == "hidden" and parts[0].dim() == 2:
            return torch.cat(parts)
        padded = [part.new_zeros(len(part), length, *part.shape[2:]) for part in parts]
        for whole, part in zip(padded, parts, strict=True):
            whole[:, : part.shape[1]] = part
        return torch.cat(padded)

    hidden = None if batches[0].hidden is None else joined("hidden")
    return TokenBatch(joined("token_ids"), joined("mask"), joined("sites"), hidden)


def run_batches(
    tokens: TokenBatch, rows: int = 64, *, layered: bool = True
) -> Iterator[tuple[np.ndarray, TokenBatch]]:
    """Cut a batch into those in which it is run: row numbers and rows, every row once.

    Batches have `rows` rows at most (all, where pooled vectors are given). `layered` says whether
    the encoder makes use of siblings (`models.layers`).
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


def sibling_rows(tokens: TokenBatch) -> list[tuple[int, np.ndarray]]:
    """Groups of rows that are equal but for the token of their last mutated site.

    Each with the site's column and its row numbers; rows without a site are in no group.
    """
    sites = tokens.sites.cpu().numpy()
    blanked = _read(tokens)
    columns = sites.shape[1] - 1 - sites[:, ::-1].argmax(axis=1)
    mutated = np.flatnonzero(sites.any(axis=1))
    blanked[mutated, columns[mutated]] = -2
    groups: dict[bytes, list[int]] = {}
    for row in mutated.tolist():
        groups.setdefault(blanked[row].tobytes(), []).append(row)
    return [(int(columns[members[0]]), np.array(members)) for members in groups.values()]


def distinct_rows(tokens: TokenBatch, pooling: str) -> tuple[np.ndarray, np.ndarray]:
    """What there is to run: rows with the same tokens, pooled alike, are one.

    Read apart, in batches of different company, they would differ by rounding, and ranks make
    something of the smallest difference: variants that an encoding cannot tell apart must tie.

    Returns:
        Row numbers, one for each distinct text, ascending, and for every row the place of its text
        among them.

    """
    read = _read(tokens)
    if pooling == "sites":
        read = np.hstack([read, tokens.sites.cpu().numpy()])
    place: dict[bytes, int] = {}
    which = np.array([place.setdefault(row.tobytes(), len(place)) for row in read], dtype=int)
    return np.unique(which, return_index=True)[1], which


def _read(tokens: TokenBatch) -> np.ndarray:
    """What an encoder reads: token ids, and -1 at padding, ``(n, length)``."""
    return np.where(tokens.mask.cpu().numpy(), tokens.token_ids.cpu().numpy(), -1)


def length_buckets(
    lengths: torch.Tensor, rows: int, tokens: int = MAX_TOKENS
) -> Iterator[torch.Tensor]:
    """Row numbers in batches of similar length, so that little is padding.

    At most `rows` rows, and `tokens` tokens with padding unless one row alone has more.

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
