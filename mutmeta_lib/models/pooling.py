"""One vector per variant out of one vector per token, and which tokens are needed for it."""

from typing import NamedTuple

import torch
from torch import Tensor

from mutmeta_lib.errors import DataError
from mutmeta_lib.tasks.batches import TokenBatch

POOLINGS = ("cls", "mean", "sites")
"""The ways of `pool`: the first token (the public code's choice), the mean over all real tokens,
special ones included, and the mean over the tokens of mutated sites. The wild type has no site; the
mean over all its real tokens stands in."""


def pooling_weights(batch: TokenBatch, pooling: str) -> Tensor:
    """The share of every token in its variant's vector, float32, ``(n, length)``; rows sum to 1."""
    if pooling not in POOLINGS:
        raise DataError(f"there is no pooling '{pooling}'", f"use one of {', '.join(POOLINGS)}")
    chosen = batch.mask
    if pooling == "cls":
        chosen = torch.zeros_like(batch.mask)
        chosen[:, 0] = True
    elif pooling == "sites":
        chosen = torch.where(batch.sites.any(dim=1, keepdim=True), batch.sites, chosen)
    weights = chosen.float()
    return weights / weights.sum(dim=1, keepdim=True).clamp(min=1)


def pool(hidden: Tensor, batch: TokenBatch, pooling: str) -> Tensor:
    """Pool the hidden states of all tokens.

    Args:
        hidden: Hidden states, ``(n, length, width)``.
        batch: The tokens they belong to.
        pooling: One of `POOLINGS`.

    Returns:
        Shape ``(n, width)``.

    """
    return weighted_sum(hidden, pooling_weights(batch, pooling))


def weighted_sum(hidden: Tensor, weights: Tensor) -> Tensor:
    """Sum of hidden states ``(n, m, width)`` with weights ``(n, m)``; ``(n, width)``."""
    return (weights.to(hidden.dtype)[:, None, :] @ hidden).squeeze(1)


class Inputs(NamedTuple):
    """A batch as tensors alone, ready for a pure function (and for ``torch.func.vmap``).

    Attributes:
        states: What is read: token ids ``(n, length)``, hidden states that enter a layer
            ``(n, length, width)``, or vectors that are pooled already ``(n, width)``.
        mask: True at real tokens, ``(n, length)``; None where no token is padding.
        wanted: Positions of the tokens that are pooled, ``(n, m)``; None for all of them.
        weights: Their shares, ``(n, m)`` or ``(n, length)``.
        varying: The only column in which the rows differ, or None (see `TokenBatch`).

    """

    states: Tensor
    mask: Tensor | None
    wanted: Tensor | None
    weights: Tensor | None
    varying: int | None = None

    @property
    def options(self) -> dict:
        """What spares a layered encoder work, as keywords of its call."""
        given = {"wanted": self.wanted, "varying": self.varying}
        return {name: value for name, value in given.items() if value is not None}


def inputs(batch: TokenBatch, pooling: str, *, layered: bool = True) -> Inputs:
    """Prepare a batch; whatever depends on its values is decided here.

    With a layered encoder and a pooling that takes few tokens, only these are wanted.
    """
    weights = pooling_weights(batch, pooling)
    mask = None if layered and bool(batch.mask.all()) else batch.mask
    states = batch.token_ids if batch.hidden is None else batch.hidden
    most = int((weights > 0).sum(dim=1).max()) if len(weights) else 0
    varying = batch.varying if layered else None
    if not layered or not 0 < most <= weights.shape[1] // 4:
        return Inputs(states, mask, None, weights, varying)
    shares, wanted = weights.topk(most, dim=1)
    return Inputs(states, mask, wanted, shares, varying)
