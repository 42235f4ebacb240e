"""Encoders layer by layer: one loop that can begin and stop at a layer.

Meta-learning differentiates twice, with parameters handed in from outside
(``torch.func.functional_call``), many tasks at once (``torch.func.vmap``), and what lies below the
layers that learn is run once (`models.embed`). Hugging Face's layers allow all of it; the forward
passes of their models do not, which look at the mask's values and know no layer to begin at.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mutmeta_lib.errors import DataError

if TYPE_CHECKING:  # importing transformers takes seconds, so it waits until a model is loaded
    from transformers import PretrainedConfig, PreTrainedModel

# ``encoder.blocks.0.`` in our own transformer, ``encoder.model.encoder.layer.0.`` elsewhere.
_LAYER = re.compile(r"encoder\.(?:[\w.]*?\.)?(?:blocks|layers?)\.(\d+)\.")


def layer_of(name: str) -> int | None:
    """The encoder layer a parameter belongs to, counted from 0; None outside the layers.

    >>> layer_of("encoder.model.encoder.layer.10.output.dense.bias")
    10
    >>> layer_of("head.0.weight") is None
    True
    """
    found = _LAYER.match(name)
    return int(found.group(1)) if found else None


def at(x: Tensor, wanted: Tensor) -> Tensor:
    """Hidden states at some positions: ``(n, length, width)``, ``(n, m)`` to ``(n, m, width)``."""
    return torch.take_along_dim(x, wanted[..., None], dim=1)


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    """Softmax attention; the query comes scaled.

    `query` is ``(n, heads, m, head width)``, `key` and `value` are ``(n, heads, length, head
    width)``, `bias` is added to the logits, ``(n, 1, 1, length)``. Returns ``(n, m, heads * head
    width)``. Without gradients the fused kernel takes over, which has no second derivative:
    embedding with ESM-2 8M takes 1.5 times as long without it, `tiny` twice.
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
    """An encoder that can begin and stop at a layer."""

    layers: int
    context: int
    """Tokens that there is room for."""

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
        places = self.places(x)
        end = self.layers if stop is None else stop
        for index in range(start, end):
            x = self.layer(index, x, bias, places, wanted if index == self.layers - 1 else None)
        if stop is not None:
            return x
        return self.finish(at(x, wanted) if wanted is not None and start == end else x)

    def embed(self, token_ids: Tensor, mask: Tensor | None) -> Tensor:
        """What enters the first layer, ``(n, length, width)``."""
        raise NotImplementedError

    def places(self, x: Tensor) -> Any:
        """What layers need to know of the places of tokens."""

    def layer(
        self, index: int, x: Tensor, bias: Tensor | None, places: Any, wanted: Tensor | None
    ) -> Tensor:
        """One layer; with `wanted` only the hidden states at those positions."""
        raise NotImplementedError

    def finish(self, x: Tensor) -> Tensor:
        """What follows the last layer."""
        return x


# --- Hugging Face's models -----------------------------------------------------------------------

ATTENTION = "mutmeta"
"""The name of `attend` among Hugging Face's kinds of attention."""


def context_of(config: PretrainedConfig) -> int:
    """Tokens that the position table (or pretraining, for rotary positions) has room for.

    ESM and RoBERTa count positions from ``pad_token_id + 1``, so those rows are not available:
    1,026 positions are 1,024 tokens.
    """
    counted = config.model_type in {"esm", "roberta", "xlm-roberta"}
    return config.max_position_embeddings - (config.pad_token_id + 1 if counted else 0)


def hidden_states(model: PreTrainedModel) -> nn.Module:
    """A Hugging Face encoder as ``(token_ids, mask) -> hidden states``, layered if it can be."""
    config = model.config
    if config.model_type not in ("esm", "bert") or getattr(config, "is_decoder", False):
        return WholeModel(model)
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, _attend)
    model.set_attn_implementation(ATTENTION)
    return PretrainedLayers(model)


def _attend(module, query, key, value, attention_mask, *, scaling: float, **options):
    """`attend` as Hugging Face's layers call it."""
    scaled = query if scaling == 1 else query * scaling  # ESM scales before it turns positions
    return attend(scaled, key, value, attention_mask), None


class WholeModel(nn.Module):
    """A Hugging Face encoder of any architecture, by its own forward pass."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model

    def forward(
        self, token_ids: Tensor, mask: Tensor | None, *, wanted: Tensor | None = None
    ) -> Tensor:
        """Encode tokens, as in `Layered`."""
        mask = torch.ones_like(token_ids) if mask is None else mask.long()
        x = self.model(input_ids=token_ids, attention_mask=mask).last_hidden_state
        return x if wanted is None else at(x, wanted)


class PretrainedLayers(Layered):
    """The layers of an ESM-2 (pre-norm, doi:10.1126/science.ade2574) or BERT (arXiv 1810.04805)."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model
        self.is_esm = model.config.model_type == "esm"
        self.context = context_of(model.config)

    @property
    def layers(self) -> int:
        """Number of layers."""
        return len(self.model.encoder.layer)

    def embed(self, token_ids: Tensor, mask: Tensor | None) -> Tensor:
        """Token vectors; ESM-2 rescales them by the share of mask tokens among the real ones."""
        read = {"attention_mask": mask} if self.is_esm else {}
        return self.model.embeddings(input_ids=token_ids, **read)

    def places(self, x: Tensor) -> tuple[Tensor, Tensor] | None:
        """Cosines and sines of rotary positions."""
        rotary = getattr(self.model, "rotary_embeddings", None)
        places = torch.arange(x.shape[1], device=x.device)[None]
        return None if rotary is None else rotary(x, places)

    def layer(
        self, index: int, x: Tensor, bias: Tensor | None, places: Any, wanted: Tensor | None
    ) -> Tensor:
        """One layer; `wanted` spares the last one two thirds of its products."""
        block = self.model.encoder.layer[index]
        attention, rotary = block.attention, {"position_embeddings": places} if self.is_esm else {}
        normed = attention.LayerNorm(x) if self.is_esm else x
        mixed, _ = attention.self(normed, attention_mask=bias, **rotary)
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


# --- our own transformer -------------------------------------------------------------------------


def sinusoidal_positions(length: int, width: int) -> Tensor:
    """Fixed sine and cosine position vectors, ``(length, width)`` (arXiv 1706.03762, 3.5).

    The separator encoding shifts every residue after a mutation by four tokens: neighbouring
    positions have similar sinusoids, rows of a learned table have nothing to do with each other.
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
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.norm_feed_forward = nn.LayerNorm(width)
        self.feed_forward_in = nn.Linear(width, 2 * width)
        self.feed_forward_out = nn.Linear(2 * width, width)

    def split(self, x: Tensor) -> Tensor:
        """Query (scaled), key and value, each ``(n, heads, length, head width)``."""
        split = self.query_key_value(self.norm_attention(x)).unflatten(-1, (3, self.heads, -1))
        query, key, value = split.permute(2, 0, 3, 1, 4)
        return query * query.shape[-1] ** -0.5, key, value

    def feed_forward(self, x: Tensor) -> Tensor:
        """The second half of the layer."""
        return x + self.feed_forward_out(
            nn.functional.gelu(self.feed_forward_in(self.norm_feed_forward(x)))
        )

    def forward(self, x: Tensor, bias: Tensor | None, wanted: Tensor | None) -> Tensor:
        """Hidden states ``(n, length, width)`` to the same, or to those `wanted`."""
        # A layer with adapters has more to it than its weight.
        weights_alone = type(self.query_key_value) is nn.Linear
        if wanted is not None and wanted.shape[1] * self.heads < x.shape[2] and weights_alone:
            mixed = self.read(x, bias, wanted)
        else:
            query, key, value = self.split(x)
            if wanted is not None:
                query = torch.take_along_dim(query, wanted[:, None, :, None], dim=2)
            mixed = attend(query, key, value, bias)
        x = x if wanted is None else at(x, wanted)
        return self.feed_forward(x + self.attention_out(mixed))

    def read(self, x: Tensor, bias: Tensor | None, wanted: Tensor) -> Tensor:
        r"""What a few tokens attend to, ``(n, m, width)``, without keys and values of the others.

        :math:`q \cdot K x = K^\top q \cdot x`, and the value of a mixture is the mixture of values.
        Biases of keys cancel in the softmax. From ten labels to scores of 4,750 variants is 1.7 s
        of one processor core, 2.1 s without.
        """
        x = self.norm_attention(x)
        of_query, of_key, of_value = self.query_key_value.weight.unflatten(0, (3, self.heads, -1))
        query_bias, _, value_bias = self.query_key_value.bias.unflatten(0, (3, self.heads, -1))
        query = torch.einsum("nmw,hdw->nhmd", at(x, wanted), of_query) + query_bias[:, None]
        query = query * query.shape[-1] ** -0.5
        asked = torch.einsum("nhmd,hdw->nhmw", query, of_key).flatten(1, 2)
        logits = (asked @ x.transpose(1, 2)).unflatten(1, (self.heads, -1))
        shares = (logits if bias is None else logits + bias).softmax(dim=-1).flatten(1, 2)
        mixed = (shares @ x).unflatten(1, (self.heads, -1))
        return (torch.einsum("nhmw,hdw->nmhd", mixed, of_value) + value_bias).flatten(2)

    def of_siblings(self, x: Tensor, varying: int) -> Tensor:
        r"""`forward` for rows that differ in column `varying` alone, without padding.

        The substitutions at one site are such rows. Query, key and value of the shared tokens and
        the logits among them are computed once. If attention to the shared tokens gives :math:`a`
        to a query, with log-sum-exp :math:`\ell` of the logits, then one more token with logit
        :math:`z` and value :math:`v` makes it :math:`a + \sigma(z - \ell)\,(v - a)`.
        """
        length = x.shape[1]
        distinct = torch.cat([x[0], x[:, varying]])[None]
        query, key, value = (part[0] for part in self.split(distinct))  # (heads, length + n, ...)
        logits = query @ key[:, :length].transpose(1, 2)
        logits[..., varying] = torch.finfo(x.dtype).min / 2  # belongs to the first row alone
        log_shares = logits.log_softmax(dim=-1)
        anywhere = 0 if varying else length - 1
        total = (logits - log_shares)[..., anywhere, None]
        mixed = log_shares.exp() @ value[:, :length]
        own = (query @ key[:, length:].transpose(1, 2) - total).sigmoid()  # (heads, length + n, n)
        # The layout of the result: rows, tokens, heads, head width.
        shared = mixed[:, :length].transpose(0, 1).contiguous()
        values = value[:, length:].transpose(0, 1).contiguous()[:, None]
        result = torch.lerp(
            shared, values, own[:, :length].permute(2, 1, 0).contiguous()[..., None]
        )
        own = own[:, length:].diagonal(dim1=1, dim2=2)[..., None]
        result[:, varying] = torch.lerp(mixed[:, length:], value[:, length:], own).transpose(0, 1)
        return self.feed_forward(x + self.attention_out(result.flatten(2)))


class TinyTransformer(Layered):
    """Our own small transformer, with weights drawn from `generator` alone.

    They are uniform with variance 1 (token vectors) or 1/fan-in (linear layers; divided by
    ``2 * layers`` where a layer writes into the residual stream, so that its variance does not
    grow with depth). Uniform, because uniform draws are the same bits on every processor, normal
    draws are not; thus the seed fixes the weights' hash. There is no dropout.
    """

    siblings = True
    """Rows that differ in one column share their first layer: scoring all single variants of 250
    residues takes 2.4 times as long without. (With ESM-2 8M it would gain a twentieth.)"""

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
        self.layers, self.context = layers, max_tokens
        with torch.random.fork_rng(devices=[]):  # torch's own first draw is thrown away
            self.embedding = nn.Embedding(tokens, width)
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
            writers = 2 * self.layers if name.endswith("out.weight") else 1
            bound = math.sqrt(3 / (fan_in * writers))  # variance = bound**2 / 3
            parameter.copy_((2 * torch.rand(parameter.shape, generator=generator) - 1) * bound)

    def forward(
        self,
        token_ids: Tensor | None,
        mask: Tensor | None,
        *,
        varying: int | None = None,
        **options: Any,
    ) -> Tensor:
        """As in `Layered`; `varying` is the only column in which the rows differ, if known."""
        if varying is not None:
            hidden = self.blocks[0].of_siblings(self.embed(token_ids, None), varying)
            options |= {"hidden": hidden, "start": 1}
        return super().forward(token_ids, mask, **options)

    def embed(self, token_ids: Tensor, mask: Tensor | None) -> Tensor:
        """Token vectors and positions."""
        return self.embedding(token_ids) + self.positions[: token_ids.shape[1]]

    def layer(
        self, index: int, x: Tensor, bias: Tensor | None, places: None, wanted: Tensor | None
    ) -> Tensor:
        """One `Block`."""
        return self.blocks[index](x, bias, wanted)

    def finish(self, x: Tensor) -> Tensor:
        """The norm after the last layer."""
        return self.norm(x)
