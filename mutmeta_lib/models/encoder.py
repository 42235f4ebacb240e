"""Encoders: protein language models that turn tokens into hidden states, loaded by name.

Checkpoints in Hugging Face's format are read strictly: no file is unpickled, no code from the hub
is run, and what a checkpoint lacks is an error, where Hugging Face draws it at random and goes on.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mutmeta_lib.errors import DataError
from mutmeta_lib.models.layers import context_of, hidden_states
from mutmeta_lib.models.tiny import TinyTransformer
from mutmeta_lib.records import store
from mutmeta_lib.tasks.vocabulary import TINY_VOCABULARY, Vocabulary

if TYPE_CHECKING:  # importing transformers takes seconds, so it waits until a model is loaded
    from transformers import PreTrainedModel

SMALL = Path(__file__).parents[1] / "pretrained" / "small.safetensors"
"""Weights of our own that come with the package; the card beside them tells what they know."""
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
class Encoder:
    """A protein language model together with what must be known to use it.

    ``name`` is short, never a path. ``max_tokens`` counts start and end tokens, too, ``width`` is
    the length of a hidden state. ``module(token_ids, mask)`` gives hidden states ``(n, length,
    width)``, differentiable twice; every named parameter takes part. ``sha256`` is over the weights
    and `SHAPING_SETTINGS`, ``source`` what `load_encoder` loads it by, never part of a record.
    """

    name: str
    vocabulary: Vocabulary
    max_tokens: int
    width: int
    module: nn.Module
    sha256: str
    provenance: dict = field(default_factory=dict)
    source: str = ""

    @property
    def layers(self) -> int:
        """Number of layers that it can begin or stop at; 0 if it cannot."""
        return getattr(self.module, "layers", 0)

    @property
    def siblings(self) -> bool:
        """Whether rows that differ in one token share work (`models.tiny.TinyTransformer`)."""
        return getattr(self.module, "siblings", False)


def fingerprint(module: nn.Module, settings: dict) -> str:
    """SHA-256 over the names, shapes and bytes of a module's weights, and over `settings`."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def on_device(module: nn.Module, device: torch.device | str) -> dict[str, Tensor]:
    """Parameters and buffers by name, on a device: for ``torch.func.functional_call``."""
    named = (*module.named_parameters(), *module.named_buffers())
    return {name: value.to(device) for name, value in named}


def placed(encoder: Encoder, where: torch.device) -> Encoder:
    """The encoder with a copy of its module on the device, or as it is for the CPU."""
    if where.type == "cpu":
        return encoder
    return replace(encoder, module=deepcopy(encoder.module).to(where))


def tiny_encoder(
    seed: int = 0, width: int = 64, layers: int = 2, heads: int = 4, max_tokens: int = 256
) -> Encoder:
    """Our own small transformer (`models.tiny`) with random weights: for tests and as a control.

    `seed` alone decides the weights; `width` is a multiple of ``2 * heads``.
    """
    sizes = {"width": width, "layers": layers, "heads": heads, "max_tokens": max_tokens}
    generator = torch.Generator().manual_seed(seed)
    module = TinyTransformer(len(TINY_VOCABULARY), generator=generator, **sizes).eval()
    return Encoder(
        name="tiny",
        vocabulary=TINY_VOCABULARY,
        max_tokens=max_tokens,
        width=width,
        module=module,
        sha256=fingerprint(module, {"encoder": "tiny", "heads": heads}),
        provenance={"encoder": "tiny transformer, random weights", "seed": seed, **sizes},
    )


def small_encoder(file: str | Path = SMALL, max_tokens: int | None = None) -> Encoder:
    """Our own small transformer, with the weights that ``scripts/train_small.py`` wrote."""
    tensors, about = store.load(file)
    if "sizes" not in about:
        told = "these are no weights of the small encoder"
        raise DataError(told, "give a file that scripts/train_small.py wrote", file=file)
    encoder = tiny_encoder(**about["sizes"])
    encoder.module.load_state_dict(tensors)
    return replace(
        encoder,
        name=Path(file).stem,
        max_tokens=_shorter("small", encoder.max_tokens, max_tokens),
        sha256=fingerprint(encoder.module, {"encoder": "tiny", "heads": about["sizes"]["heads"]}),
        provenance=about["provenance"],
    )


def _shorter(name: str, most: int, asked: int | None) -> int:
    """The tokens asked for, or all; more than there is room for, or none, is a DataError."""
    if asked is not None and not 0 < asked <= most:
        problem = f"the encoder '{name}' reads at most {most} tokens, not {asked}"
        raise DataError(problem, f"ask for 1 to {most}")
    return asked or most


def load_encoder(name: str, *, seed: int = 0, max_tokens: int | None = None) -> Encoder:
    """Load an encoder by name.

    `name` is ``"small"``, which comes with the package (`small_encoder`; or another file like it),
    ``"tiny"`` (`tiny_encoder`, of this `seed`), a directory in Hugging Face's format (config.json,
    model.safetensors, tokenizer files, and a PROVENANCE.json if one is at hand), or a name on the
    hub, such as ``facebook/esm2_t6_8M_UR50D`` or ``Rostlab/prot_bert``. `max_tokens` is a shorter
    context than the model's own (1,024 tokens for ESM-2, 64 for ``small``): attention takes memory
    in proportion to its square. A name that cannot be loaded, an incomplete checkpoint, a tokenizer
    that is not one token per residue, and `max_tokens` beyond the context are a DataError.

    >>> encoder = load_encoder("small")
    >>> encoder.width, encoder.layers, encoder.max_tokens
    (64, 2, 64)
    """
    if name == "small" or name.endswith(".safetensors"):
        return small_encoder(SMALL if name == "small" else name, max_tokens)
    if name == "tiny":
        return tiny_encoder(seed, **({} if max_tokens is None else {"max_tokens": max_tokens}))
    with torch.inference_mode(False):  # a caller's inference mode must not freeze the weights
        found = read_checkpoint(name)
        context = context_of(found.model.config)
        most = _shorter(found.vocabulary.name, context, max_tokens)
        module = found.checked(hidden_states(found.model).eval())
    return Encoder(
        name=found.vocabulary.name,
        vocabulary=found.vocabulary,
        max_tokens=most,
        width=found.model.config.hidden_size,
        module=module,
        sha256=fingerprint(module, found.settings),
        provenance=found.provenance,
        source=name,
    )


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A model as it was read, in evaluation mode and float32.

    `absent` are the parameters that the checkpoint lacks or has in another shape, under all their
    names, `settings` are `SHAPING_SETTINGS`.
    """

    model: PreTrainedModel
    vocabulary: Vocabulary
    absent: frozenset[str]
    settings: dict
    provenance: dict

    def checked(self, module: nn.Module, mend: str = "use one that is complete") -> nn.Module:
        """A `module` made of the model, its parameters those that its result depends on.

        Others (ESM-2's contact head) become buffers that are not saved: they may be absent, would
        change the hash, and have no gradient. A parameter that is used and absent is a DataError.
        """
        words = self.vocabulary
        start, end = words.frame
        ids = torch.tensor([[*start, *words.residue_ids("MK"), *end]])
        named = dict(module.named_parameters())
        with torch.enable_grad():
            result = module(ids, torch.ones_like(ids, dtype=torch.bool)).sum()
            gradients = torch.autograd.grad(result, list(named.values()), allow_unused=True)
        absent = []
        for (name, parameter), gradient in zip(named.items(), gradients, strict=True):
            if gradient is None:
                path, _, leaf = name.rpartition(".")
                owner = module.get_submodule(path)
                delattr(owner, leaf)
                owner.register_buffer(leaf, parameter.detach(), persistent=False)
            elif name.removeprefix("model.") in self.absent:
                absent.append(name.removeprefix("model."))
        if absent:
            problem = f"lacks {len(absent)} weights of the right shape, first {min(absent)}"
            raise DataError(f"the checkpoint of encoder '{words.name}' {problem}", mend)
        return module


def read_checkpoint(name: str, *, head: bool = False) -> Checkpoint:
    """Read a model from a directory or the hub, with its language-model head or not."""
    from safetensors import SafetensorError

    directory = Path(name)
    local = directory.is_dir()
    try:
        # The random state is forked because weights that a checkpoint lacks are drawn from it.
        with _quiet(), torch.random.fork_rng(devices=[]):
            model, tokenizer, report = _load(name, local, head)
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise DataError(
            f"the encoder '{name}' cannot be loaded: {reason}",
            "use 'small', a directory with config.json, model.safetensors and tokenizer files, or "
            "a Hugging Face name that is cached or within reach",
        ) from error
    vocabulary = Vocabulary.from_tokenizer(tokenizer, name=directory.name)
    rows = model.get_input_embeddings().num_embeddings
    if rows < len(vocabulary):
        problem = f"has {len(vocabulary)} tokens, its model has vectors for {rows}"
        raise DataError(
            f"the tokenizer of encoder '{vocabulary.name}' {problem}",
            "use the tokenizer that belongs to the model",
        )
    # Tied weights have several names, of which the report gives one.
    absent = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
    weights = dict(model.named_parameters(remove_duplicate=False))
    lost = {id(weights[key]) for key in absent & weights.keys()}
    if local:
        provenance = _read_provenance(directory / "PROVENANCE.json")
    else:
        provenance = {"source": f"Hugging Face hub, {name}", "commit": model.config._commit_hash}
    return Checkpoint(
        model=model.float().eval(),
        vocabulary=vocabulary,
        absent=frozenset(key for key, value in weights.items() if id(value) in lost),
        settings={key: getattr(model.config, key, None) for key in SHAPING_SETTINGS},
        provenance=provenance,
    )


def _load(name: str, local: bool, head: bool):
    """The model, its tokenizer, and Hugging Face's report of what the checkpoint lacks."""
    from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

    given = {"local_files_only": local, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **given)
    except TypeError as error:  # EsmTokenizer opens the file None when there is no vocab.txt
        raise OSError("it comes without the files of its tokenizer") from error
    given |= {
        "use_safetensors": True,  # the older format is a pickle
        "ignore_mismatched_sizes": True,  # reported with the missing weights instead
        "output_loading_info": True,
    }
    if head:
        model, report = AutoModelForMaskedLM.from_pretrained(name, **given)
    else:  # fused kernels have no second derivative
        model, report = AutoModel.from_pretrained(name, attn_implementation="eager", **given)
    return model, tokenizer, report


def _read_provenance(file: Path) -> dict:
    """What a directory says of its encoder, or an empty dictionary if it says nothing."""
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {})
    except (ValueError, TypeError) as error:
        mend = "write {...}, or remove it"
        raise DataError(f"this is not a JSON object ({error})", mend, file=file) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Hugging Face's load reports, retries and progress bars; errors still raise."""
    from transformers.utils import logging as models

    bars, level = models.is_progress_bar_enabled(), logging.root.manager.disable
    models.disable_progress_bar()
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(level)
        if bars:
            models.enable_progress_bar()
