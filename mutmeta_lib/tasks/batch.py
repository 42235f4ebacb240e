"""Many token sequences as one padded block, the form in which encoders read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True, eq=False)
class TokenBatch:
    """Variants as one padded block of tokens, one row each.

    Attributes:
        token_ids: Token ids, int64, shape ``(n, length)``.
        mask: True at real tokens, False at padding, shape ``(n, length)``.
        sites: True at the tokens of mutated sites, shape ``(n, length)``.
        hidden: Where a part of the encoder has been run already (`models.frozen`), the hidden
            states that enter the next layer, ``(n, length, width)``, or after the last one the
            pooled vectors, ``(n, width)``.
        varying: The only column in which the rows differ, where that is known and no row is padded
            (`mutmeta_lib.tasks.batches`).

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
        chosen = torch.as_tensor(np.asarray(index))
        if chosen.numel() == 0:
            chosen = chosen.long()
        chosen = chosen.to(self.mask.device)
        mask = self.mask[chosen]
        # At least one column is kept, so that no row at all is still a batch an encoder can read.
        length = max(1, int(mask.sum(dim=1).max())) if len(mask) else 1
        return TokenBatch(
            self.token_ids[chosen][:, :length],
            mask[:, :length],
            self.sites[chosen][:, :length],
            None if self.hidden is None else self._hidden(chosen, length),
            self.varying,
        )

    def _hidden(self, chosen: torch.Tensor, length: int) -> torch.Tensor:
        part = self.hidden[chosen]
        return part[:, :length] if part.dim() == 3 else part

    def to(self, device: torch.device | str) -> TokenBatch:
        """The same batch on another device."""
        hidden = None if self.hidden is None else self.hidden.to(device)
        moved = (part.to(device) for part in (self.token_ids, self.mask, self.sites))
        return TokenBatch(*moved, hidden, self.varying)


def concatenate(batches: Sequence[TokenBatch]) -> TokenBatch:
    """One batch of the rows of several, padded to the longest."""
    length = max(batch.mask.shape[1] for batch in batches)

    def rows(name: str) -> torch.Tensor:
        parts = [getattr(batch, name) for batch in batches]
        if name == "hidden" and parts[0].dim() == 2:
            return torch.cat(parts)
        padded = [part.new_zeros(len(part), length, *part.shape[2:]) for part in parts]
        for whole, part in zip(padded, parts, strict=True):
            whole[:, : part.shape[1]] = part
        return torch.cat(padded)

    hidden = None if batches[0].hidden is None else rows("hidden")
    return TokenBatch(rows("token_ids"), rows("mask"), rows("sites"), hidden)
