"""Checkpoints in Hugging Face's format: how they are read, and what they must hold.

Reading is strict: no file is unpickled, no code from the hub is run, and what a checkpoint lacks is
told. Hugging Face itself draws missing weights at random and goes on.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from mutmeta_lib.errors import DataError
from mutmeta_lib.tasks.vocabulary import Vocabulary

if TYPE_CHECKING:  # importing transformers takes seconds, so it waits until a model is loaded
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

SHAPING_SETTINGS = (
    "model_type",
    "num_attention_heads",
    "hidden_act",
    "layer_norm_eps",
    "position_embedding_type",
    "rope_theta",
    "token_dropout",
    "mask_token_id",
)
"""Settings that change what equal weights compute."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A model as it was read.

    Attributes:
        model: In evaluation mode, float32.
        vocabulary: The tokens of its tokenizer.
        mask: The token that stands for a hidden residue, or ``""`` if there is none.
        absent: Parameters that the checkpoint lacks or has in another shape, under all their names;
            they hold random numbers.
        provenance: Where it came from.

    """

    model: PreTrainedModel
    vocabulary: Vocabulary
    mask: str
    absent: frozenset[str]
    provenance: dict

    @property
    def settings(self) -> dict:
        """Those of `SHAPING_SETTINGS`."""
        return {key: getattr(self.model.config, key, None) for key in SHAPING_SETTINGS}

    def lacking(self, module: nn.Module) -> list[str]:
        """Which parameters of a `module` made of ``self.model`` (as ``.model``) are absent."""
        used = {key.removeprefix("model.") for key, _ in module.named_parameters()}
        return sorted(self.absent & used)


def read_checkpoint(name: str, *, local_files_only: bool, head: bool = False) -> Checkpoint:
    """Read a model from a directory or the Hugging Face hub.

    Args:
        name: A directory or a name on the hub.
        local_files_only: Never ask the network.
        head: With its masked-language-model head, which predicts hidden tokens.

    Raises:
        DataError: The name cannot be loaded, or its tokenizer is not one token per residue.

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
    model, tokenizer, absent = _load(name, local_files_only or local, head)
    vocabulary = Vocabulary.from_tokenizer(tokenizer, name=directory.name)
    rows = model.get_input_embeddings().num_embeddings
    if rows < len(vocabulary):
        raise DataError(
            f"the tokenizer of encoder '{vocabulary.name}' has {len(vocabulary)} tokens, its model "
            f"has vectors for {rows}",
            "use the tokenizer that belongs to the model",
        )
    return Checkpoint(
        model=model.float().eval(),
        vocabulary=vocabulary,
        mask=tokenizer.mask_token or "",
        absent=_all_names(model, absent),
        provenance=_read_provenance(directory)
        if local
        else {"source": f"Hugging Face hub, {name}", "commit": model.config._commit_hash},
    )


def context(config: PretrainedConfig) -> int:
    """Tokens that the position table (or pretraining, for rotary positions) has room for.

    ESM and RoBERTa count positions from ``pad_token_id + 1``, so those rows are not available:
    1,026 positions are 1,024 tokens.
    """
    unavailable = (
        config.pad_token_id + 1 if config.model_type in {"esm", "roberta", "xlm-roberta"} else 0
    )
    return config.max_position_embeddings - unavailable


def hide_unused(module: nn.Module, token_ids: torch.Tensor) -> None:
    """Turn parameters that the result does not depend on into buffers that are not saved.

    Such parameters (ESM-2's contact head) may be absent from a checkpoint and then hold random
    numbers, would change the encoder's hash, and have no gradient. Works where gradients are
    switched off, too.
    """
    named = dict(module.named_parameters())
    with torch.enable_grad():
        result = module(token_ids, torch.ones_like(token_ids, dtype=torch.bool))
        gradients = torch.autograd.grad(result.sum(), list(named.values()), allow_unused=True)
    for (name, parameter), gradient in zip(named.items(), gradients, strict=True):
        if gradient is None:
            path, _, leaf = name.rpartition(".")
            owner = module.get_submodule(path)
            delattr(owner, leaf)
            owner.register_buffer(leaf, parameter.detach(), persistent=False)


def sample(vocabulary: Vocabulary) -> torch.Tensor:
    """Token ids of a text of two residues, ``(1, length)``, to try a module with."""
    ids = [*vocabulary.start_ids, *vocabulary.residue_ids("MK"), *vocabulary.end_ids]
    return torch.tensor([ids])


def _is_hub_name(name: str) -> bool:
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _load(
    name: str, local_files_only: bool, head: bool
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, set[str]]:
    """The model, its tokenizer, and the names of weights that the checkpoint lacks or misfits."""
    from safetensors import SafetensorError
    from transformers import AutoModel, AutoModelForMaskedLM

    options = {"local_files_only": local_files_only, "trust_remote_code": False}
    loading = {
        "use_safetensors": True,  # the older format is a pickle
        "ignore_mismatched_sizes": True,  # reported with the missing weights instead
        "output_loading_info": True,
    }
    try:
        # The random state is forked because weights that a checkpoint lacks are drawn from it.
        with _quiet(), torch.random.fork_rng(devices=[]):
            tokenizer = _load_tokenizer(name, options)
            if head:
                model, report = AutoModelForMaskedLM.from_pretrained(name, **loading, **options)
            else:
                # The fused kernels of attention have no second derivative.
                loading["attn_implementation"] = "eager"
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
    misfits = {key for key, *_ in report["mismatched_keys"]}
    return model, tokenizer, {*report["missing_keys"], *misfits}


def _load_tokenizer(name: str, options: dict) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name, **options)
    except TypeError as error:  # EsmTokenizer opens the file None when there is no vocab.txt
        raise DataError(
            f"the encoder '{name}' comes without the files of its tokenizer",
            "add them, such as vocab.txt and tokenizer_config.json",
        ) from error


def _all_names(model: nn.Module, some: set[str]) -> frozenset[str]:
    """All names of the parameters that have one of `some`: tied weights have several."""
    named = dict(model.named_parameters(remove_duplicate=False))
    chosen = {id(named[name]) for name in some if name in named}
    return frozenset(some) | {name for name, value in named.items() if id(value) in chosen}


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
