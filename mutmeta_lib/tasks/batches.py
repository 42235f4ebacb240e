"""Many token sequences as one padded block, and which rows an encoder reads together.

Batches are small enough for a processor's cache, hold rows of similar length, and, where it pays,
siblings: rows that differ in one column, such as the substitutions at one site of a protein.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn.functional import pad

MAX_TOKENS = 4_096
"""Tokens of a batch: above, hidden states leave the cache of one processor core."""
LEAST_SIBLINGS = 4  # fewer are not worth a batch of their own


@dataclass(frozen=True, eq=False)
class TokenBatch:
    """Variants as one padded block of ``n`` rows.

    ``token_ids`` is int64, ``mask`` True at real tokens and ``sites`` at those of mutated sites,
    all ``(n, length)``. ``hidden`` are, if given, states that enter a layer, ``(n, length,
    width)``, or pooled vectors ``(n, width)``; ``varying`` the only column in which rows differ.
    """

    token_ids: torch.Tensor
    mask: torch.Tensor
    sites: torch.Tensor
    hidden: torch.Tensor | None = None
    varying: int | None = None

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def pooled(self) -> bool:
        """Whether the encoder has been run to its end."""
        return self.hidden is not None and self.hidden.dim() == 2

    def blocks(self) -> dict[str, torch.Tensor]:
        """The tensors by name."""
        return {name: part for name, part in vars(self).items() if isinstance(part, torch.Tensor)}

    def rows(self, index: Sequence[int] | np.ndarray | torch.Tensor) -> TokenBatch:
        """The rows at `index` (row numbers, or one boolean per row), without needless padding."""
        index = np.asarray(index)
        chosen = torch.from_numpy(index if index.size else index.astype(int)).to(self.mask.device)
        made = {name: part[chosen] for name, part in self.blocks().items()}
        # At least one column is kept, so that no row at all is still a batch an encoder can read.
        length = max([1, *made["mask"].sum(dim=1).tolist()])
        for name in made.keys() - ({"hidden"} if self.pooled else set()):
            made[name] = made[name][:, :length]
        return replace(self, **made)

    def to(self, device: torch.device | str) -> TokenBatch:
        """The same batch on another device."""
        return replace(self, **{name: part.to(device) for name, part in self.blocks().items()})


def concatenate(batches: Sequence[TokenBatch]) -> TokenBatch:
    """One batch of the rows of several, padded to the longest."""
    length = max(batch.mask.shape[1] for batch in batches)

    def joined(name: str) -> torch.Tensor:
        parts = [batch.blocks()[name] for batch in batches]
        if not (name == "hidden" and batches[0].pooled):
            below = [0, 0] * (parts[0].dim() - 2)
            parts = [pad(part, [*below, 0, length - part.shape[1]]) for part in parts]
        return torch.cat(parts)

    return TokenBatch(**{name: joined(name) for name in batches[0].blocks()})


def run_batches(
    tokens: TokenBatch, rows: int = 64, *, siblings: bool = True
) -> Iterator[tuple[np.ndarray, TokenBatch]]:
    """Cut a batch into those in which it is run: row numbers and rows, every row once.

    Batches have `rows` rows at most (all, where pooled vectors are given). `siblings` says whether
    the encoder shares their work.
    """
    if tokens.pooled:
        yield np.arange(len(tokens)), tokens
        return
    alone = np.ones(len(tokens), dtype=bool)
    for column, members in sibling_rows(tokens) if siblings and tokens.hidden is None else ():
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
    """Groups of rows equal but for the token of their last mutated site: its column, the rows."""
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
    """What there is to run: the first row of each text, and for every row its text's place there.

    Rows with the same tokens, pooled alike, are one text. Read apart they would differ by rounding,
    and variants that an encoding cannot tell apart must tie.
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


def length_buckets(lengths: torch.Tensor, rows: int, tokens: int) -> Iterator[torch.Tensor]:
    """Row numbers in batches of similar length.

    At most `rows` rows, and `tokens` tokens with padding unless one row alone has more.
    """
    order = torch.argsort(lengths, stable=True).cpu()
    sizes = lengths.cpu()[order].tolist()
    first = 0
    for place in range(1, len(sizes) + 1):
        count = place - first + 1
        if place == len(sizes) or count > rows or count * sizes[place] > tokens:
            yield order[first:place]
            first = place
