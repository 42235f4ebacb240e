"""Protein language models in Hugging Face's format, made ready for meta-learning.

Loading is strict (`models.hugging_face`): no weight may be missing, and parameters that play
no part in the hidden states are taken out of sight.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mutmeta_lib.errors import DataError
from mutmeta_lib.models import bert, esm
from mutmeta_lib.models.hugging_face import context, hide_unused, read_checkpoint, sample
from mutmeta_lib.tasks.vocabulary import Vocabulary

if TYPE_CHECKING:  # importing transformers takes seconds, so it waits until a model is loaded
    from transformers import PreTrainedModel

NEW_SEPARATOR = "[SEP]"
"""The token that ``separator="new"`` adds to a vocabulary."""


class HiddenStates(nn.Module):
    """A Hugging Face encoder reduced to ``(token_ids, mask) -> last hidden states``."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model

    def forward(self, token_ids: Tensor, mask: Tensor) -> Tensor:
        """Encode tokens ``(n, length)``; returns ``(n, length, width)``."""
        return self.model(input_ids=token_ids, attention_mask=mask.long()).last_hidden_state


@dataclass(frozen=True, eq=False)
class Pretrained:
    """What `load_pretrained` finds: the parts of an `mutmeta_lib.models.encoders.Encoder`."""

    name: str
    vocabulary: Vocabulary
    max_tokens: int
    width: int
    module: nn.Module
    settings: dict
    provenance: dict


def _module(model: PreTrainedModel) -> nn.Module:
    """A layered encoder where the architecture is known, else their own forward pass."""
    if esm.is_supported(model.config):
        return esm.EsmLayers(model)
    if bert.is_supported(model.config):
        return bert.BertLayers(model)
    return HiddenStates(model)


def _add_separator(model: PreTrainedModel, vocabulary: Vocabulary, seed: int) -> Vocabulary:
    """Add `NEW_SEPARATOR` to the vocabulary and a row for it to the model's token vectors.

    The row is the mean of all token vectors plus a little seeded noise (a tenth of their spread):
    a typical token that pretraining has never seen, to be learned.
    """
    if NEW_SEPARATOR in vocabulary.tokens:
        raise DataError(
            f"the vocabulary '{vocabulary.name}' already has {NEW_SEPARATOR}",
            "ask for separator='auto'",
        )
    old = model.get_input_embeddings()
    weight = old.weight.detach().double()[: len(vocabulary)]
    generator = torch.Generator().manual_seed(seed)
    noise = 2 * torch.rand(weight.shape[1], generator=generator, dtype=torch.float64) - 1
    row = weight.mean(dim=0) + 0.1 * weight.std(dim=0) * noise
    table = torch.cat([weight, row[None]]).float()
    model.set_input_embeddings(
        nn.Embedding.from_pretrained(table, freeze=False, padding_idx=old.padding_idx)
    )
    return replace(vocabulary, tokens=(*vocabulary.tokens, NEW_SEPARATOR), separator=NEW_SEPARATOR)


def load_pretrained(
    name: str, *, seed: int, local_files_only: bool, separator: str, max_tokens: int | None
) -> Pretrained:
    """Load an encoder from a directory or the Hugging Face hub.

    Arguments and errors are those of `mutmeta_lib.models.encoders.load_encoder`.
    """
    found = read_checkpoint(name, local_files_only=local_files_only)
    model, vocabulary = found.model, found.vocabulary
    if separator == "new":
        vocabulary = _add_separator(model, vocabulary, seed)
    elif separator != "auto":
        vocabulary = replace(vocabulary, separator=separator)
    most = context(model.config)
    if max_tokens is not None and not 0 < max_tokens <= most:
        raise DataError(
            f"the encoder '{vocabulary.name}' reads at most {most} tokens, not {max_tokens}",
            f"ask for 1 to {most}",
        )
    module = _module(model).eval()
    hide_unused(module, sample(vocabulary))
    if absent := found.lacking(module):
        raise DataError(
            f"the checkpoint of encoder '{vocabulary.name}' lacks {len(absent)} weights of the "
            f"right shape, first {absent[0]}",
            "use a complete checkpoint that belongs to its config.json",
        )
    return Pretrained(
        name=vocabulary.name,
        vocabulary=vocabulary,
        max_tokens=max_tokens or most,
        width=model.config.hidden_size,
        module=module,
        settings=found.settings,
        provenance=found.provenance,
    )
