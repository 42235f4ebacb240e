"""Protein language models in Hugging Face's format, made ready for meta-learning.

Loading is strict: no weight may be missing, no file may be unpickled, no code from the hub is run,
and parameters that play no part in the hidden states are taken out of sight.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mutmeta_lib.errors import DataError
from mutmeta_lib.esm import EsmLayers, is_supported
from mutmeta_lib.vocabulary import Vocabulary

if TYPE_CHECKING:  # importing transformers takes seconds, so it waits until a model is loaded
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

NEW_SEPARATOR = "[SEP]"
"""The token that ``separator="new"`` adds to a vocabulary."""

_SHAPING_SETTINGS = (
    "model_type",
    "num_attention_heads",
    "hidden_act",
    "layer_norm_eps",
    "position_embedding_type",
    "rope_theta",
    "token_dropout",
    "mask_token_id",
)


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
    """What `load_pretrained` finds: the parts of an `mutmeta_lib.encoders.Encoder`."""

    name: str
    vocabulary: Vocabulary
    max_tokens: int
    width: int
    module: nn.Module
    settings: dict
    provenance: dict


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Hugging Face's load reports, retries and progress bars; errors still raise."""
    from huggingface_hub.utils import are_progress_bars_disabled as hub_bars_disabled
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging as model_logging

    levels = model_logging.get_verbosity(), hub_logging.get_verbosity()
    bars = model_logging.is_progress_bar_enabled(), not hub_bars_disabled()
    model_logging.set_verbosity(logging.CRITICAL)
    hub_logging.set_verbosity(logging.CRITICAL)
    model_logging.disable_progress_bar()
    disable_progress_bars()
    try:
        yield
    finally:
        model_logging.set_verbosity(levels[0])
        hub_logging.set_verbosity(levels[1])
        if bars[0]:
            model_logging.enable_progress_bar()
        if bars[1]:
            enable_progress_bars()


def _read_provenance(directory: Path) -> dict:
    """The directory's PROVENANCE.json, or an empty dictionary if it has none."""
    file = directory / "PROVENANCE.json"
    if not file.is_file():
        return {}
    try:
        provenance = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"this is not JSON ({error})", "mend or remove it", file=file) from error
    if not isinstance(provenance, dict):
        raise DataError("this is not a JSON object", "write {...}", file=file)
    return provenance


def _is_hub_name(name: str) -> bool:
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _load_tokenizer(name: str, options: dict) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name, **options)
    except TypeError as error:  # EsmTokenizer opens the file None when there is no vocab.txt
        raise DataError(
            f"the encoder '{name}' comes without the files of its tokenizer",
            "add them, such as vocab.txt and tokenizer_config.json",
        ) from error


def _load(name: str, local_files_only: bool) -> tuple[PreTrainedModel, Vocabulary, set[str]]:
    """The model, its vocabulary, and the names of weights that the checkpoint lacks or misfits."""
    from safetensors import SafetensorError
    from transformers import AutoModel

    options = {"local_files_only": local_files_only, "trust_remote_code": False}
    loading = {
        "attn_implementation": "eager",  # the fused kernels have no second derivative
        "use_safetensors": True,  # the older format is a pickle
        "ignore_mismatched_sizes": True,  # reported with the missing weights instead
        "output_loading_info": True,
    }
    try:
        # The random state is forked because weights that a checkpoint lacks are drawn from it.
        with _quiet(), torch.random.fork_rng(devices=[]):
            tokenizer = _load_tokenizer(name, options)
            try:
                model, report = AutoModel.from_pretrained(
                    name, add_pooling_layer=False, **loading, **options
                )
            except TypeError as error:
                if "add_pooling_layer" not in str(error):
                    raise
                model, report = AutoModel.from_pretrained(name, **loading, **options)
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        if isinstance(error, DataError):
            raise
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise DataError(
            f"the encoder '{name}' cannot be loaded: {reason}",
            "use 'tiny', a directory with config.json, model.safetensors and tokenizer files, or "
            "a Hugging Face name that is cached or within reach",
        ) from error
    vocabulary = Vocabulary.from_tokenizer(tokenizer, name=Path(name).name)
    absent = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
    return model.float().eval(), vocabulary, absent


def hide_unused(module: nn.Module, token_ids: Tensor) -> None:
    """Turn parameters that the hidden states do not depend on into buffers that are not saved.

    Such parameters (ESM-2's contact head) may be absent from a checkpoint and then hold random
    numbers, would change the encoder's hash, and have no gradient.
    """
    named = dict(module.named_parameters())
    hidden = module(token_ids, torch.ones_like(token_ids, dtype=torch.bool))
    gradients = torch.autograd.grad(hidden.sum(), list(named.values()), allow_unused=True)
    for (name, parameter), gradient in zip(named.items(), gradients, strict=True):
        if gradient is None:
            path, _, leaf = name.rpartition(".")
            owner = module.get_submodule(path)
            delattr(owner, leaf)
            owner.register_buffer(leaf, parameter.detach(), persistent=False)


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


def _context(config: PretrainedConfig) -> int:
    """Tokens that the position table (or pretraining, for rotary positions) has room for.

    ESM and RoBERTa count positions from ``pad_token_id + 1``, so those rows are not available:
    1,026 positions are 1,024 tokens.
    """
    unavailable = (
        config.pad_token_id + 1 if config.model_type in {"esm", "roberta", "xlm-roberta"} else 0
    )
    return config.max_position_embeddings - unavailable


def load_pretrained(
    name: str, *, seed: int, local_files_only: bool, separator: str, max_tokens: int | None
) -> Pretrained:
    """Load an encoder from a directory or the Hugging Face hub.

    Arguments and errors are those of `mutmeta_lib.encoders.load_encoder`.
    """
    directory = Path(name)
    local = directory.is_dir()
    if local and not (directory / "config.json").is_file():
        raise DataError(
            "the directory of an encoder must hold config.json",
            "give the directory that save_pretrained wrote",
            file=directory,
        )
    if not local and not _is_hub_name(name):
        raise DataError(
            f"'{name}' is neither a directory nor a Hugging Face name such as owner/model",
            "correct the path or the name",
        )
    model, vocabulary, missing = _load(name, local_files_only or local)
    rows = model.get_input_embeddings().num_embeddings
    if rows < len(vocabulary):
        raise DataError(
            f"the tokenizer of encoder '{vocabulary.name}' has {len(vocabulary)} tokens, its model "
            f"has vectors for {rows}",
            "use the tokenizer that belongs to the model",
        )
    if separator == "new":
        vocabulary = _add_separator(model, vocabulary, seed)
    elif separator != "auto":
        vocabulary = replace(vocabulary, separator=separator)
    context = _context(model.config)
    if max_tokens is not None and not 0 < max_tokens <= context:
        raise DataError(
            f"the encoder '{vocabulary.name}' reads at most {context} tokens, not {max_tokens}",
            f"ask for 1 to {context}",
        )
    module = (EsmLayers if is_supported(model.config) else HiddenStates)(model).eval()
    sample = [*vocabulary.start_ids, *vocabulary.residue_ids("MK"), *vocabulary.end_ids]
    hide_unused(module, torch.tensor([sample]))
    used = {key.removeprefix("model.") for key, _ in module.named_parameters()}
    if absent := sorted(missing & used):
        raise DataError(
            f"the checkpoint of encoder '{vocabulary.name}' lacks {len(absent)} weights of the "
            f"right shape, first {absent[0]}",
            "use a complete checkpoint that belongs to its config.json",
        )
    return Pretrained(
        name=vocabulary.name,
        vocabulary=vocabulary,
        max_tokens=max_tokens or context,
        width=model.config.hidden_size,
        module=module,
        settings={key: getattr(model.config, key, None) for key in _SHAPING_SETTINGS},
        provenance=_read_provenance(directory)
        if local
        else {"source": f"Hugging Face hub, {name}", "commit": model.config._commit_hash},
    )
