"""What layered encoders share: attention that differentiates, and work for wanted tokens only.

A *layered* encoder is a module with a number of ``layers`` and a call
``module(token_ids, mask, hidden=, start=, stop=, wanted=)`` that can begin and stop at a layer.
What lies below the layers that learn can then be computed once and kept (`models.frozen`), and
the last layer need not compute hidden states that pooling throws away: a token that is not pooled
matters to the others through its key and value only. Both give the same numbers as the whole.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# ``encoder.blocks.0.`` in our own transformer, ``encoder.model.encoder.layer.0.`` elsewhere.
_LAYER = re.compile(r"encoder\.(?:[\w.]*?\.)?(?:blocks|layers?)\.(\d+)\.")


def layer_of(name: str) -> int | None:
    """The encoder layer a parameter belongs to, counted from 0; None outside the layers.

    >>> layer_of("encoder.blocks.1.norm_attention.weight")
    1
    >>> layer_of("encoder.model.encoder.layer.10.output.dense.bias")
    10
    >>> layer_of("head.0.weight") is None
    True
    """
    found = _LAYER.match(name)
    return int(found.group(1)) if found else None


def padding_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to attention logits, ``(n, 1, 1, length)``: 0 at real tokens.

    A very low finite number rather than -inf at padding: a row without real tokens stays finite.
    """
    return (~mask).to(dtype)[:, None, None, :] * (torch.finfo(dtype).min / 2)


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    """Softmax attention; the query comes scaled.

    Args:
        query: ``(n, heads, m, head width)``.
        key: ``(n, heads, length, head width)``.
        value: As the key.
        bias: Added to the logits, ``(n, 1, 1, length)``, or None.

    Returns:
        Shape ``(n, m, heads * head width)``.

    """
    if not torch.is_grad_enabled():
        # Fused kernels have no second derivative, but nobody asks for one here.
        mixed = nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=bias, scale=1.0
        )
    else:
        logits = query @ key.transpose(-1, -2)
        mixed = (logits if bias is None else logits + bias).softmax(dim=-1) @ value
    return mixed.transpose(1, 2).flatten(2)


def attend_few(
    x: Tensor, chosen: Tensor, weight: Tensor, offset: Tensor, heads: int, bias: Tensor | None
) -> Tensor:
    r"""Softmax attention of a few tokens to all, without a key or a value of any token.

    A logit :math:`q^\top (W_k x + b_k)` is :math:`(W_k^\top q)^\top x` and a constant that softmax
    does not see; the mean of values is the value of the mean. Both projections then meet the few
    tokens only, where position enters before them, not within (as it does in ESM-2).

    Args:
        x: What all tokens bring, ``(n, length, width)``.
        chosen: What the few bring, ``(n, m, width)``.
        weight: Of the projection to query, key and value, ``(3 * width, width)``.
        offset: Its offset, ``(3 * width,)``.
        heads: Number of heads.
        bias: Added to the logits, ``(n, 1, 1, length)``, or None.

    Returns:
        Shape ``(n, m, width)``, the heads side by side.

    """
    _, m, width = chosen.shape
    to_query, to_key, to_value = weight.view(3, heads, width // heads, width).unbind()
    at_query, _, at_value = offset.view(3, heads, 1, width // heads).unbind()
    query = chosen[:, None] @ to_query.transpose(-1, -2) + at_query  # (n, heads, m, head width)
    towards = (query * (width // heads) ** -0.5 @ to_key).flatten(1, 2)  # (n, heads * m, width)
    logits = towards @ x.transpose(-1, -2)
    shares = (logits if bias is None else logits + bias[:, 0]).softmax(dim=-1)
    mean = (shares @ x).unflatten(1, (heads, m))
    return (mean @ to_value.transpose(-1, -2) + at_value).transpose(1, 2).flatten(2)


def at(x: Tensor, wanted: Tensor) -> Tensor:
    """Hidden states at some positions: ``(n, length, width)``, ``(n, m)`` to ``(n, m, width)``."""
    return torch.take_along_dim(x, wanted[..., None], dim=1)


def heads(states: Tensor, size: int) -> Tensor:
    """Split the width of ``(..., length, width)`` into heads, ``(..., heads, length, size)``."""
    return states.unflatten(-1, (-1, size)).transpose(-3, -2)


class PretrainedLayers(nn.Module):
    """A layered encoder made of a Hugging Face model; subclasses say what its parts are."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model

    @property
    def layers(self) -> int:
        """Number of layers, the bound of `start` and `stop`."""
        return len(self.model.encoder.layer)

    def forward(
        self,
        token_ids: Tensor | None,
        mask: Tensor | None,
        *,
        hidden: Tensor | None = None,
        start: int = 0,
        stop: int | None = None,
        wanted: Tensor | None = None,
        varying: int | None = None,
    ) -> Tensor:
        """Encode tokens; arguments and result as in `models.transformer.TinyTransformer`."""
        x = self.embed(token_ids, mask) if hidden is None else hidden
        if varying is not None and self.rescaled(token_ids):
            varying = None
        bias = None if mask is None else padding_bias(mask, x.dtype)
        places = self.places(x.shape[1])
        end = self.layers if stop is None else stop
        for index in range(start, end):
            last = stop is None and index == end - 1
            x = self.layer(index, x, bias, places, wanted if last else None, varying)
            varying = None  # above the first layer the rows differ everywhere
        if wanted is not None and start == end:
            x = at(x, wanted)
        return x if stop is not None else self.finish(x)

    def embed(self, token_ids: Tensor, mask: Tensor | None) -> Tensor:
        """What enters the first layer, ``(n, length, width)``."""
        raise NotImplementedError

    def layer(
        self,
        index: int,
        x: Tensor,
        bias: Tensor | None,
        places: Any,
        wanted: Tensor | None,
        varying: int | None = None,
    ) -> Tensor:
        """One layer; with `wanted` only the hidden states at those positions."""
        raise NotImplementedError

    def rescaled(self, token_ids: Tensor) -> bool:
        """Whether one token changes what enters the first layer for others."""
        return False

    def places(self, length: int) -> Any:
        """What layers need to know of the places of tokens."""

    def finish(self, x: Tensor) -> Tensor:
        """What follows the last layer."""
        return x
