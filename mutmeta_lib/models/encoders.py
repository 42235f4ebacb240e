"""Encoders: protein language models that turn tokens into hidden states, loaded by name."""

import hashlib
import json
from dataclasses import dataclass, field

import torch
from torch import nn

from mutmeta_lib.errors import DataError
from mutmeta_lib.models.pretrained import load_pretrained
from mutmeta_lib.models.transformer import TinyTransformer
from mutmeta_lib.tasks.vocabulary import TINY_VOCABULARY, Vocabulary


@dataclass(frozen=True, eq=False)
class Encoder:
    """A protein language model together with what must be known to use it.

    Attributes:
        name: Short name, for tables and records; never a path.
        vocabulary: The tokens it reads.
        max_tokens: Its context, start and end tokens included.
        width: Length of a hidden state.
        module: ``module(token_ids, mask)`` gives hidden states ``(n, length, width)``; in
            evaluation mode, and differentiable twice (no fused attention). Every named parameter
            takes part in the result. ``tiny``, ESM-2 and BERT (ProtBERT) are *layered*
            (`models.layers`) and work under ``torch.func.vmap``; other Hugging Face models
            look at the mask's values, which vmap forbids.
        sha256: Identity of the function: a hash over its weights and the settings that shape it.
        provenance: Where it came from.
        source: What `load_encoder` loads it by, a path or a name, where there is such a thing;
            never part of a record.

    """

    name: str
    vocabulary: Vocabulary
    max_tokens: int
    width: int
    module: nn.Module
    sha256: str
    provenance: dict = field(default_factory=dict)
    source: str = ""


def fingerprint(module: nn.Module, settings: dict) -> str:
    """SHA-256 over the names, shapes and bytes of a module's weights, and over `settings`.

    The settings are those that change what equal weights compute, such as the number of heads.
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def tiny_encoder(
    seed: int = 0, width: int = 64, layers: int = 2, heads: int = 4, max_tokens: int = 256
) -> Encoder:
    """Our own small transformer with random weights: no download, fast on one processor core.

    Pre-norm layers, GELU, feed-forward of twice the width, fixed sinusoidal positions, no dropout
    (`models.transformer`). It has seen no protein: whatever it knows, it was taught here.

    Args:
        seed: Decides the weights; torch's global random state is neither read nor changed.
        width: Length of a hidden state; a multiple of ``2 * heads``.
        layers: Number of layers.
        heads: Attention heads per layer.
        max_tokens: The context.

    >>> tiny_encoder(seed=1).sha256 == tiny_encoder(seed=1).sha256 != tiny_encoder().sha256
    True

    """
    settings = {"width": width, "layers": layers, "heads": heads, "max_tokens": max_tokens}
    module = TinyTransformer(
        len(TINY_VOCABULARY), generator=torch.Generator().manual_seed(seed), **settings
    ).eval()
    return Encoder(
        name="tiny",
        vocabulary=TINY_VOCABULARY,
        max_tokens=max_tokens,
        width=width,
        module=module,
        sha256=fingerprint(module, {"encoder": "tiny", "heads": heads}),
        provenance={"encoder": "tiny transformer, random weights", "seed": seed, **settings},
    )


def load_encoder(
    name: str,
    *,
    seed: int = 0,
    local_files_only: bool = False,
    separator: str = "auto",
    max_tokens: int | None = None,
) -> Encoder:
    """Load an encoder by name.

    Args:
        name: ``"tiny"`` (`tiny_encoder`), a directory in Hugging Face's format (config.json,
            model.safetensors, tokenizer files, and a PROVENANCE.json if one is at hand), or a name
            on the Hugging Face hub, such as ``facebook/esm2_t6_8M_UR50D`` or ``Rostlab/prot_bert``.
        seed: Decides the weights of ``tiny`` and of a new separator.
        local_files_only: Never ask the network; a hub name must then be in the local cache.
        separator: ``"auto"``: the tokenizer's own single separator token, ``[SEP]`` for ProtBERT
            and ``<eos>`` for ESM-2, which has no ``[SEP]`` (see
            `tasks.vocabulary.Vocabulary.from_tokenizer`); ``"new"``: add a learned token
            ``[SEP]`` to a vocabulary without one; anything else: that token of the vocabulary.
        max_tokens: A shorter context than the model's own. By default all positions the model has
            (1,024 tokens for ESM-2, 256 for ``tiny``). Attention takes memory in proportion to
            the square of the length: models that allow very long texts want a limit here.

    Raises:
        DataError: The name cannot be loaded, its checkpoint is incomplete, its tokenizer is not
            one token per residue, the separator is not in its vocabulary, or `max_tokens` exceeds
            its context.

    """
    if name == "tiny":
        if separator not in ("auto", TINY_VOCABULARY.separator):
            raise DataError(
                f"the encoder 'tiny' has its own separator {TINY_VOCABULARY.separator}, not "
                f"'{separator}'",
                "leave separator at 'auto'",
            )
        return (
            tiny_encoder(seed) if max_tokens is None else tiny_encoder(seed, max_tokens=max_tokens)
        )
    with torch.inference_mode(False):  # a caller's inference mode must not freeze the weights
        loaded = load_pretrained(
            name,
            seed=seed,
            local_files_only=local_files_only,
            separator=separator,
            max_tokens=max_tokens,
        )
    return Encoder(
        name=loaded.name,
        vocabulary=loaded.vocabulary,
        max_tokens=loaded.max_tokens,
        width=loaded.width,
        module=loaded.module,
        sha256=fingerprint(loaded.module, loaded.settings),
        provenance=loaded.provenance,
        source=name,
    )
