"""Encoders layer by layer: one loop that can begin and stop at a layer.

Meta-learning differentiates twice, with parameters handed in from outside
(``torch.func.functional_call``), and what lies below the layers that learn is run once
(`models.embed`). Hugging Face's layers allow both; the forward passes of their models know no layer
to begin at.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mutmeta_lib.errors import DataError

if TYPE_CHECKING:  # importing transformers takes seconds, so it waits until a model is loaded
    from transformers import PretrainedConfig, PreTrainedModel

# ``encoder.blocks.0.`` in our own transformer, ``encoder.model.encoder.layer.0.`` elsewhere.
_LAYER = re.compile(r"encoder\.(?:[\w.]*?\.)?(?:blocks|layers?)\.(\d+)\.")


def layer_of(name: str) -> int | None:
    """The encoder layer a parameter belongs to, counted from 0; None outside the layers."""
    found = _LAYER.match(name)
    return int(found.group(1)) if found else None


def at(x: Tensor, wanted: Tensor) -> Tensor:
    """Hidden states at some positions: ``(n, length, width)``, ``(n, m)`` to ``(n, m, width)``."""
    return torch.take_along_dim(x, wanted[..., None], dim=1)


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    """Softmax attention, ``(n, m, heads * head width)``; without gradients by the fused kernel.

    The scaled `query` is ``(n, heads, m, head width)``, `key` and `value` ``(n, heads, length, head
    width)``, the logits' `bias` ``(n, 1, 1, length)``. The fused kernel has no second derivative.
    """
    if not torch.is_grad_enabled():
        mixed = nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=bias, scale=1.0
        )
    else:
        logits = query @ key.transpose(-1, -2)
        mixed = (logits if bias is None else logits + bias).softmax(dim=-1) @ value
    return mixed.transpose(1, 2).flatten(2)


class Layered(nn.Module):
    """An encoder that can begin and stop at a layer.

    Subclasses have ``layers``, their number, ``context``, the tokens that there is room for, and
    ``embed(token_ids, mask)``, ``layer(index, x, bias, wanted)`` and ``finish(x)``: what enters the
    first layer, one layer, and what follows the last.
    """

    def forward(
        self,
        token_ids: Tensor | None,
        mask: Tensor | None,
        *,
        hidden: Tensor | None = None,
        start: int = 0,
        stop: int | None = None,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """Hidden states ``(n, length, width)``, or of the tokens `wanted` ``(n, m, width)``.

        `token_ids` is int64 ``(n, length)``, `mask` True at real tokens, None where none is
        padding. Padding changes nothing at real tokens; states at padding mean nothing. `hidden`
        are states that enter layer `start`, in the place of `token_ids`; before layer `stop` its
        input is returned. `wanted` are positions ``(n, m)``: the last layer then computes no other
        states, which matter by key and value alone. More tokens than the context are a DataError.
        """
        if hidden is None and token_ids.shape[1] > self.context:
            raise DataError(
                f"{token_ids.shape[1]} tokens exceed this encoder's context of {self.context}",
                "encode with the encoder's max_tokens",
            )
        x = self.embed(token_ids, mask) if hidden is None else hidden
        # A very low finite number, not -inf: a row without real tokens stays finite.
        low = torch.finfo(x.dtype).min / 2
        bias = None if mask is None else (~mask).to(x.dtype)[:, None, None, :] * low
        end = self.layers if stop is None else stop
        for index in range(start, end):
            x = self.layer(index, x, bias, wanted if index == self.layers - 1 else None)
        if stop is not None:
            return x
        return self.finish(at(x, wanted) if wanted is not None and start == end else x)


def context_of(config: PretrainedConfig) -> int:
    """Tokens that the position table (or pretraining, for rotary positions) has room for.

    ESM and RoBERTa count positions from ``pad_token_id + 1``: 1,026 positions are 1,024 tokens.
    """
    counted = config.model_type in {"esm", "roberta", "xlm-roberta"}
    return config.max_position_embeddings - (config.pad_token_id + 1 if counted else 0)


def hidden_states(model: PreTrainedModel) -> nn.Module:
    """A Hugging Face encoder as ``(token_ids, mask) -> hidden states``, layered if it can be."""
    config = model.config
    if config.model_type not in ("esm", "bert") or getattr(config, "is_decoder", False):
        return WholeModel(model)
    from transformers import AttentionInterface

    AttentionInterface.register("mutmeta", _attend)
    model.set_attn_implementation("mutmeta")
    return PretrainedLayers(model)


def _attend(module, query, key, value, attention_mask, *, scaling: float, **options):
    """`attend` as Hugging Face's layers call it."""
    scaled = query if scaling == 1 else query * scaling  # ESM scales before it turns positions
    return attend(scaled, key, value, attention_mask), None


class WholeModel(nn.Module):
    """A Hugging Face model of any architecture, by its own forward pass."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model

    def forward(
        self, token_ids: Tensor, mask: Tensor | None, *, wanted: Tensor | None = None
    ) -> Tensor:
        """Hidden states as in `Layered`; of a model with its language-model head, logits."""
        mask = torch.ones_like(token_ids) if mask is None else mask.long()
        found = self.model(input_ids=token_ids, attention_mask=mask)
        x = found.logits if "logits" in found else found.last_hidden_state
        return x if wanted is None else at(x, wanted)


class PretrainedLayers(Layered):
    """The layers of an ESM-2 (pre-norm, doi:10.1126/science.ade2574) or BERT (arXiv 1810.04805)."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model
        self.is_esm = model.config.model_type == "esm"
        self.context = context_of(model.config)
        self.layers = len(model.encoder.layer)

    def embed(self, token_ids: Tensor, mask: Tensor | None) -> Tensor:
        """Token vectors; ESM-2 rescales them by the share of mask tokens among the real ones."""
        read = {"attention_mask": mask} if self.is_esm else {}
        return self.model.embeddings(input_ids=token_ids, **read)

    def layer(self, index: int, x: Tensor, bias: Tensor | None, wanted: Tensor | None) -> Tensor:
        """One layer; `wanted` spares the last one two thirds of its products."""
        block, options = self.model.encoder.layer[index], {}
        attention = block.attention
        rotary = getattr(self.model, "rotary_embeddings", None)
        if rotary is not None:
            places = torch.arange(x.shape[1], device=x.device)[None]
            options["position_embeddings"] = rotary(x, places)
        normed = attention.LayerNorm(x) if self.is_esm else x
        mixed, _ = attention.self(normed, attention_mask=bias, **options)
        if wanted is not None:
            mixed, x = at(mixed, wanted), at(x, wanted)
        x = attention.output(mixed, x)
        if not self.is_esm:
            return block.feed_forward_chunk(x)
        # ESM's own gelu passes over memory four times, a quarter of the time of embedding.
        grown = nn.functional.gelu(block.intermediate.dense(block.LayerNorm(x)))
        return block.output(grown, x)

    def finish(self, x: Tensor) -> Tensor:
        """ESM-2's norm after the last layer."""
        return self.model.encoder.emb_layer_norm_after(x) if self.is_esm else x
