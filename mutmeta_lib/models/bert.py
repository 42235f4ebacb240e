"""BERT (such as ProtBERT) layer by layer, over the weights of Hugging Face's model, like theirs.

Their own forward pass looks at the values of the attention mask, which ``torch.func.vmap`` forbids,
cannot begin in the middle, and computes every token of the last layer. Architecture: post-norm
layers with learned positions (arXiv 1810.04805), without pooler. ``models.esm`` does the same
for ESM-2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from mutmeta_lib.errors import DataError
from mutmeta_lib.models.layers import PretrainedLayers, at, attend, heads
from mutmeta_lib.models.siblings import attend_siblings, distinct_tokens

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def is_supported(config: PretrainedConfig) -> bool:
    """Whether a configuration is a plain BERT encoder with one learned vector per position."""
    return (
        config.model_type == "bert"
        and getattr(config, "position_embedding_type", "absolute") in (None, "absolute")
        and not getattr(config, "is_decoder", False)
        and not getattr(config, "add_cross_attention", False)
    )


class BertLayers(PretrainedLayers):
    """A layered encoder made of a ``BertModel``."""

    def embed(self, token_ids: Tensor, mask: Tensor | None) -> Tensor:
        """What enters the first layer, ``(n, length, width)``: all tokens are of the first text."""
        embeddings = self.model.embeddings
        positions, length = embeddings.position_embeddings.weight, token_ids.shape[1]
        if length > len(positions):
            raise DataError(
                f"{length} tokens exceed this encoder's context of {len(positions)}",
                "encode with the encoder's max_tokens",
            )
        kind = embeddings.token_type_embeddings.weight[0]
        return embeddings.LayerNorm(
            embeddings.word_embeddings(token_ids) + kind + positions[:length]
        )

    def layer(
        self,
        index: int,
        x: Tensor,
        bias: Tensor | None,
        places: None,
        wanted: Tensor | None,
        varying: int | None = None,
    ) -> Tensor:
        """One layer; with `wanted` only the hidden states at those positions."""
        block = self.model.encoder.layer[index]
        if varying is None:
            attended = self._attention(block.attention.self, x, bias, wanted)
        else:
            attended = self._sibling_attention(block.attention.self, x, varying)
            attended = attended if wanted is None else at(attended, wanted)
        x = x if wanted is None else at(x, wanted)
        x = _add_and_norm(block.attention.output, attended, x)
        grown = block.intermediate.intermediate_act_fn(block.intermediate.dense(x))
        return _add_and_norm(block.output, grown, x)

    def _attention(
        self, block: nn.Module, x: Tensor, bias: Tensor | None, wanted: Tensor | None
    ) -> Tensor:
        size = block.attention_head_size
        key, value = heads(block.key(x), size), heads(block.value(x), size)
        query = heads(block.query(x if wanted is None else at(x, wanted)), size)
        return attend(query * size**-0.5, key, value, bias)

    def _sibling_attention(self, block: nn.Module, x: Tensor, varying: int) -> Tensor:
        size, tokens = block.attention_head_size, distinct_tokens(x, varying)
        query, key, value = (
            heads(part(tokens), size) for part in (block.query, block.key, block.value)
        )
        return attend_siblings(query * size**-0.5, key, value, len(x), varying)


def _add_and_norm(output: nn.Module, states: Tensor, x: Tensor) -> Tensor:
    """The end of half a layer: project, add what came in, normalise."""
    return output.LayerNorm(output.dense(states) + x)
