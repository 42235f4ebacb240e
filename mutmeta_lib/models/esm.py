"""ESM-2 layer by layer, over the weights of Hugging Face's model and with its numbers.

Their own forward pass looks at the values of the attention mask, which ``torch.func.vmap`` forbids,
cannot begin in the middle, and computes every token of the last layer. Architecture: pre-norm
layers with rotary positions (doi:10.1126/science.ade2574), without contact head and pooler.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mutmeta_lib.models.layers import PretrainedLayers, at, attend, heads
from mutmeta_lib.models.siblings import attend_siblings, distinct_tokens

if TYPE_CHECKING:
    from transformers import PretrainedConfig

MASKED_IN_TRAINING = 0.15 * 0.8
"""The share of tokens hidden in pretraining; token vectors are scaled to make up for it."""


def is_supported(config: PretrainedConfig) -> bool:
    """Whether a configuration is one of ESM-2 (rotary positions, no cross-attention)."""
    return (
        config.model_type == "esm"
        and getattr(config, "position_embedding_type", None) == "rotary"
        and not getattr(config, "is_decoder", False)
        and not getattr(config, "add_cross_attention", False)
        and not getattr(config, "emb_layer_norm_before", False)
    )


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn pairs of coordinates of ``(..., length, head width)`` by their position's angles."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class EsmLayers(PretrainedLayers):
    """A layered encoder made of an ``EsmModel``."""

    def embed(self, token_ids: Tensor, mask: Tensor | None) -> Tensor:
        """What enters the first layer, ``(n, length, width)``."""
        embeddings = self.model.embeddings
        x = embeddings.word_embeddings(token_ids)
        if not embeddings.token_dropout:
            return x
        hidden = token_ids == embeddings.mask_token_id
        real = token_ids.shape[1] if mask is None else mask.sum(dim=1)
        kept = 1 - hidden.sum(dim=1).to(x.dtype) / real
        return torch.where(hidden[..., None], 0.0, x) * (
            (1 - MASKED_IN_TRAINING) / kept[:, None, None]
        )

    def rescaled(self, token_ids: Tensor) -> bool:
        """Whether hidden tokens scale the others, so that rows differ in more than one column."""
        embeddings = self.model.embeddings
        return embeddings.token_dropout and bool((token_ids == embeddings.mask_token_id).any())

    def places(self, length: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines of the rotary positions, each ``(length, head width)``."""
        frequency = self.model.rotary_embeddings.inv_freq
        angle = torch.arange(length, device=frequency.device)[:, None] * frequency
        angle = torch.cat((angle, angle), dim=-1)
        return angle.cos(), angle.sin()

    def layer(
        self,
        index: int,
        x: Tensor,
        bias: Tensor | None,
        places: tuple[Tensor, Tensor],
        wanted: Tensor | None,
        varying: int | None = None,
    ) -> Tensor:
        """One layer; with `wanted` only the hidden states at those positions."""
        block = self.model.encoder.layer[index]
        if varying is None:
            x = self._attention(block.attention, x, bias, places, wanted)
        else:
            x = self._sibling_attention(block.attention, x, places, varying)
            x = x if wanted is None else at(x, wanted)
        grown = nn.functional.gelu(block.intermediate.dense(block.LayerNorm(x)))
        return x + block.output.dense(grown)

    def finish(self, x: Tensor) -> Tensor:
        """The norm that follows the last layer."""
        return self.model.encoder.emb_layer_norm_after(x)

    def _attention(
        self,
        block: nn.Module,
        x: Tensor,
        bias: Tensor | None,
        rotation: tuple[Tensor, Tensor],
        wanted: Tensor | None,
    ) -> Tensor:
        attention, cos, sin = block.self, *rotation
        size = attention.attention_head_size
        normed = block.LayerNorm(x)
        key = rotate(heads(attention.key(normed), size), cos, sin)
        value = heads(attention.value(normed), size)
        if wanted is not None:
            x, normed = at(x, wanted), at(normed, wanted)
            cos, sin = cos[wanted][:, None], sin[wanted][:, None]
        scale = size**-0.5
        query = rotate(heads(attention.query(normed), size), cos * scale, sin * scale)
        return x + block.output.dense(attend(query, key, value, bias))

    def _sibling_attention(
        self, block: nn.Module, x: Tensor, rotation: tuple[Tensor, Tensor], varying: int
    ) -> Tensor:
        attention, size = block.self, block.self.attention_head_size
        cos, sin = (torch.cat([t, t[varying].expand(len(x), -1)]) for t in rotation)
        normed = block.LayerNorm(distinct_tokens(x, varying))
        scale = size**-0.5
        query = rotate(heads(attention.query(normed), size), cos * scale, sin * scale)
        key = rotate(heads(attention.key(normed), size), cos, sin)
        value = heads(attention.value(normed), size)
        return x + block.output.dense(attend_siblings(query, key, value, len(x), varying))
