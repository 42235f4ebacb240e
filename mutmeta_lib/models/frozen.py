"""Frozen trunks: the part of an encoder that no learning changes is run once and kept.

Where only the head or the last layers learn, in the inner and the outer loop, everything below them
gives the same numbers in every step of every task. :func:`freeze` runs it once per variant, and
returns a predictor that begins above it and assays that bring what it reads; tasks, training and
methods use them as any others. The numbers are those of the whole, up to rounding.

Kept on disk, states are memory-mapped: a task reads its own rows, whatever the size of the set.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.func import functional_call

from mutmeta_lib.errors import DataError
from mutmeta_lib.models.embeddings import embed, store_of
from mutmeta_lib.models.encoders import Encoder
from mutmeta_lib.models.predictor import Predictor
from mutmeta_lib.tasks.batches import TokenBatch, run_batches
from mutmeta_lib.tasks.tasks import EncodedAssay


@dataclass(frozen=True, eq=False)
class FrozenTokens:
    """Variants with what a frozen trunk makes of them; in a task like a `TokenBatch`.

    Attributes:
        tokens: The variants' tokens, ``n`` rows.
        states: Hidden states of all real tokens, one variant after the other without padding,
            ``(total tokens, width)``; or pooled vectors ``(n, width)``.
        offsets: Where each variant's states begin, ``(n + 1,)``; None for pooled vectors.

    """

    tokens: TokenBatch
    states: torch.Tensor
    offsets: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def rows(self, index: Sequence[int] | np.ndarray | torch.Tensor) -> TokenBatch:
        """The rows at `index` as a padded batch that holds its hidden states."""
        index = np.asarray(index)
        chosen = torch.as_tensor(np.arange(len(self))[index if index.size else index.astype(int)])
        if self.offsets is None:
            # Nobody reads the tokens of pooled vectors any more.
            none = torch.empty(len(chosen), 0, dtype=torch.bool)
            return TokenBatch(none.long(), none, none, self.states[chosen])
        batch = self.tokens.rows(index)
        place = torch.arange(batch.mask.shape[1])
        # A padded place reads the variant's first token: finite, and masked.
        flat = self.offsets[chosen][:, None] + torch.where(batch.mask, place, 0)
        return replace(batch, hidden=self.states[flat])


def freeze(
    predictor: Predictor,
    assays: Sequence[EncodedAssay],
    start: int | None,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    device: torch.device | str = "cpu",
) -> tuple[Predictor, list[EncodedAssay]]:
    """Run everything below encoder layer ``start`` once, with the encoder's weights as they are.

    Args:
        predictor: The model; its encoder must be layered unless `start` is None.
        assays: Assays whose variants are needed.
        start: The first layer that goes on learning; None freezes the entire encoder and keeps
            pooled vectors.
        cache_dir: Keep states here and map them into memory; None holds them in memory.
        device: Where the trunk is run.

    Returns:
        The predictor that begins at `start` (``predictor.learning(params)`` are the parameters it
        takes out of a whole predictor's) and the assays with states in the place of tokens.

    Raises:
        DataError: The encoder cannot be begun at that layer, or the folder cannot be used.

    """
    if start is None:
        tables = [_pooled(predictor, assay, cache_dir, device) for assay in assays]
    else:
        layers = getattr(predictor.encoder.module, "layers", None)
        if layers is None:
            raise DataError(
                f"the encoder {predictor.encoder.name} cannot be begun at a layer",
                "freeze all of it (start=None), or use tiny, an ESM-2 or a BERT",
            )
        if not 0 < start <= layers:
            raise DataError(
                f"layer {start} is not one that a trunk can end at ({layers} layers)",
                f"choose from 1 to {layers}, or None",
            )
        tables = [_below(predictor.encoder, assay, start, cache_dir, device) for assay in assays]
    frozen = [replace(a, tokens=tokens) for a, tokens in zip(assays, tables, strict=True)]
    return replace(predictor, start=start), frozen


def _pooled(predictor: Predictor, assay: EncodedAssay, cache_dir, device) -> FrozenTokens:
    encoder, pooling = predictor.encoder, predictor.pooling
    vectors = embed(encoder, assay.tokens, pooling, device=device, cache_dir=cache_dir)
    return FrozenTokens(assay.tokens, torch.from_numpy(vectors))


def _below(encoder: Encoder, assay: EncodedAssay, start: int, cache_dir, device) -> FrozenTokens:
    tokens = assay.tokens
    lengths = tokens.mask.sum(dim=1)
    offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(dim=0)])
    store = store_of(cache_dir, encoder, tokens, layer=start)
    states = store.tensor("states", lambda: _run(encoder, tokens, start, offsets, device))
    return FrozenTokens(tokens, states, offsets)


def _run(encoder: Encoder, tokens, start, offsets, device) -> torch.Tensor:
    """What enters layer `start`, run batch by batch of similar length."""
    states = torch.empty(int(offsets[-1]), encoder.width)
    weights = {name: value.to(device) for name, value in encoder.module.named_parameters()}
    weights |= {name: value.to(device) for name, value in encoder.module.named_buffers()}
    with torch.no_grad():
        for rows, part in run_batches(tokens):
            part = part.to(device)
            mask = None if bool(part.mask.all()) else part.mask
            options = {"stop": start, "varying": part.varying}
            reads = (part.token_ids, mask)
            hidden = functional_call(encoder.module, weights, reads, options).cpu()
            for row, own, real in zip(rows.tolist(), hidden, part.mask.cpu(), strict=True):
                states[offsets[row] : offsets[row + 1]] = own[real]
    return states
