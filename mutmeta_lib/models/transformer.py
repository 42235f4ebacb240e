"""A small transformer encoder, written out so that it can be differentiated any number of times.

Meta-learning differentiates through gradient steps, with parameters handed in from outside
(``torch.func.functional_call``), many tasks at once (``torch.func.vmap``). Fused attention kernels
lack the second derivative, so attention is spelled out here. There is no dropout: the same tokens
give the same result, in training too.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from mutmeta_lib.errors import DataError
from mutmeta_lib.models.layers import at, attend, attend_few, padding_bias
from mutmeta_lib.models.siblings import attend_siblings, distinct_tokens


def sinusoidal_positions(length: int, width: int) -> Tensor:
    """Fixed sine and cosine position vectors, shape ``(length, width)`` (arXiv 1706.03762, 3.5).

    They are chosen over a learned table because the separator encoding shifts every residue after
    a mutation by four tokens: neighbouring positions have similar sinusoids, whereas the rows of
    a learned table have nothing to do with each other until trained, and rows beyond the longest
    training sequence would never be.
    """
    place = torch.arange(length, dtype=torch.float64)[:, None]
    rate = torch.exp(torch.arange(0, width, 2, dtype=torch.float64) * (-math.log(1e4) / width))
    return torch.stack([torch.sin(place * rate), torch.cos(place * rate)], dim=2).flatten(1).float()


class Block(nn.Module):
    """One pre-norm layer: ``x + attention(norm(x))``, then ``x + feed_forward(norm(x))``."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width)
        self.query_key_value = skip_init(nn.Linear, width, 3 * width)
        self.attention_out = skip_init(nn.Linear, width, width)
        self.norm_feed_forward = nn.LayerNorm(width)
        self.feed_forward_in = skip_init(nn.Linear, width, 2 * width)
        self.feed_forward_out = skip_init(nn.Linear, 2 * width, width)

    def attention(self, x: Tensor, bias: Tensor | None, wanted: Tensor | None) -> Tensor:
        """Multi-head attention over real tokens; `x` is ``(n, length, width)``."""
        n, length, width = x.shape
        if wanted is not None and wanted.shape[1] * self.heads < width:
            layer = self.query_key_value
            if type(layer) is nn.Linear:  # one with adapters has more to it than its weight
                few = attend_few(x, at(x, wanted), layer.weight, layer.bias, self.heads, bias)
                return self.attention_out(few)
        split = self.query_key_value(x).view(n, length, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)  # each (n, heads, length, head width)
        if wanted is not None:
            query = torch.take_along_dim(query, wanted[:, None, :, None], dim=2)
        return self.attention_out(attend(query * (width // self.heads) ** -0.5, key, value, bias))

    def sibling_attention(self, x: Tensor, varying: int) -> Tensor:
        """Norm and attention for rows that differ in column `varying` only."""
        width = x.shape[-1]
        split = self.query_key_value(self.norm_attention(distinct_tokens(x, varying)))
        split = split.view(-1, 3, self.heads, width // self.heads).permute(1, 2, 0, 3)
        query, key, value = split  # each (heads, distinct tokens, head width)
        query = query * (width // self.heads) ** -0.5
        return self.attention_out(attend_siblings(query, key, value, len(x), varying))

    def forward(
        self,
        x: Tensor,
        bias: Tensor | None,
        wanted: Tensor | None = None,
        varying: int | None = None,
    ) -> Tensor:
        """Hidden states to hidden states, ``(n, length, width)``.

        `bias` is added to attention logits, shape ``(n, 1, 1, length)``. With `wanted`, positions
        of shape ``(n, m)``, only their hidden states are computed and returned,
        ``(n, m, width)``: all tokens are attended to, but nothing else is spent on the others.
        With `varying`, the only column in which the rows of `x` differ, the others are worked on
        once where they are still equal.
        """
        if varying is None:
            attended = self.attention(self.norm_attention(x), bias, wanted)
            x = attended + (x if wanted is None else at(x, wanted))
        else:
            x = x + self.sibling_attention(x, varying)
            x = x if wanted is None else at(x, wanted)
        feed_forward = nn.functional.gelu(self.feed_forward_in(self.norm_feed_forward(x)))
        return x + self.feed_forward_out(feed_forward)


class TinyTransformer(nn.Module):
    """Token ids to hidden states, with weights drawn from `generator` alone.

    The weights are uniform with variance 1 (token vectors) or 1/fan-in (linear layers; divided by
    ``2 * layers`` where a layer writes into the residual stream, so that its variance does not
    grow with depth). Uniform, because uniform draws are the same bits on every processor, normal
    draws are not; thus the seed fixes the weights' hash.
    """

    def __init__(
        self,
        tokens: int,
        *,
        width: int,
        layers: int,
        heads: int,
        max_tokens: int,
        generator: torch.Generator,
    ):
        super().__init__()
        if width % (2 * heads):
            raise DataError(
                f"a width of {width} cannot be shared by {heads} heads",
                "choose a width that is a multiple of twice the number of heads",
            )
        # `skip_init` of an embedding imports torch's compiler, a second for nothing.
        self.embedding = nn.Embedding.from_pretrained(torch.empty(tokens, width), freeze=False)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.register_buffer("positions", sinusoidal_positions(max_tokens, width), persistent=False)
        self._draw(generator)

    @torch.no_grad()
    def _draw(self, generator: torch.Generator) -> None:
        for name, parameter in self.named_parameters():
            if "norm" in name:
                continue  # layer norms start as the identity
            if name.endswith("bias"):
                parameter.zero_()
                continue
            fan_in = 1 if name.startswith("embedding") else parameter.shape[1]
            writers = 2 * len(self.blocks) if name.endswith("out.weight") else 1
            bound = math.sqrt(3 / (fan_in * writers))  # variance = bound**2 / 3
            draw = torch.rand(parameter.shape, generator=generator)
            parameter.copy_((2 * draw - 1) * bound)

    @property
    def layers(self) -> int:
        """Number of layers, the bound of `start` and `stop`."""
        return len(self.blocks)

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
        """Encode tokens; padding changes nothing at real tokens (see `mutmeta_lib.models.layers`).

        Args:
            token_ids: int64, ``(n, length)`` with length at most ``max_tokens``.
            mask: bool, ``(n, length)``, True at real tokens; None where no token is padding.
            hidden: Hidden states that enter layer `start`, in the place of `token_ids`.
            start: The first layer that is run.
            stop: The layer before which to stop; its input is returned then.
            wanted: Positions ``(n, m)`` whose hidden states are asked for, by default all.
            varying: The only column of `token_ids` in which the rows differ, if there is one and
                no row is padded; work that they share is then done once (`models.siblings`).

        Returns:
            Hidden states, float32, ``(n, length, width)`` or ``(n, m, width)``; those at padding
            mean nothing.

        """
        x = self.embed(token_ids) if hidden is None else hidden
        bias = None if mask is None else padding_bias(mask, x.dtype)
        end = self.layers if stop is None else stop
        for index in range(start, end):
            last = stop is None and index == end - 1
            x = self.blocks[index](x, bias, wanted if last else None, varying)
            varying = None  # above the first layer the rows differ everywhere
        if wanted is not None and start == end:
            x = at(x, wanted)
        return x if stop is not None else self.norm(x)

    def embed(self, token_ids: Tensor) -> Tensor:
        """What enters the first layer, ``(n, length, width)``."""
        length = token_ids.shape[1]
        if length > len(self.positions):
            raise DataError(
                f"{length} tokens exceed this encoder's context of {len(self.positions)}",
                "encode with the encoder's max_tokens",
            )
        return self.embedding(token_ids) + self.positions[:length]
