"""Frozen trunks: the part of an encoder that no learning changes is run once and kept.

Where only the head or the last layers learn, in the inner and the outer loop, everything below them
gives the same numbers in every step of every task. :func:`freeze` runs it once per variant, and
returns a predictor that begins above it and assays that bring what it reads; tasks, training and
methods use them as any others. The numbers are those of the whole, up to rounding.

Kept on disk, states are memory-mapped: a task reads its own rows, whatever the size of the set.
"""

import hashlib
import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.func import functional_call

from mutmeta_lib.errors import DataError
from mutmeta_lib.models.embeddings import cached_embeddings, content_key, embed
from mutmeta_lib.models.encoders import Encoder
from mutmeta_lib.models.predictor import Predictor
from mutmeta_lib.tasks.batches import TokenBatch, run_batches
from mutmeta_lib.tasks.tasks import EncodedAssay


@dataclass(frozen=True, eq=False)
class FrozenTokens:
    """Variants with what a frozen trunk makes of them; in a task like a `TokenBatch`.

    Attributes:
        tokens: The variants' tokens, ``n`` rows.
        states: Hidden states of all real tokens, one variant after the other without padding,
            ``(total tokens, width)``; or pooled vectors ``(n, width)``.
        offsets: Where each variant's states begin, ``(n + 1,)``; None for pooled vectors.

    """

    tokens: TokenBatch
    states: torch.Tensor
    offsets: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def rows(self, index: Sequence[int] | np.ndarray | torch.Tensor) -> TokenBatch:
        """The rows at `index` as a padded batch that holds its hidden states."""
        index = np.asarray(index)
        chosen = torch.as_tensor(np.arange(len(self))[index if index.size else index.astype(int)])
        if self.offsets is None:
            # Nobody reads the tokens of pooled vectors any more.
            none = torch.empty(len(chosen), 0, dtype=torch.bool)
            return TokenBatch(none.long(), none, none, self.states[chosen])
        batch = self.tokens.rows(index)
        place = torch.arange(batch.mask.shape[1])
        # A padded place reads the variant's first token: finite, and masked.
        flat = self.offsets[chosen][:, None] + torch.where(batch.mask, place, 0)
        return replace(batch, hidden=self.states[flat])


def freeze(
    predictor: Predictor,
    assays: Sequence[EncodedAssay],
    start: int | None,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    device: torch.device | str = "cpu",
) -> tuple[Predictor, list[EncodedAssay]]:
    """Run everything below encoder layer ``start`` once, with the encoder's weights as they are.

    Args:
        predictor: The model; its encoder must be layered unless `start` is None.
        assays: Assays whose variants are needed.
        start: The first layer that goes on learning; None freezes the entire encoder and keeps
            pooled vectors.
        cache_dir: Keep states here and map them into memory; None holds them in memory.
        device: Where the trunk is run.

    Returns:
        The predictor that begins at `start` (``predictor.learning(params)`` are the parameters it
        takes out of a whole predictor's) and the assays with states in the place of tokens.

    Raises:
        DataError: The encoder cannot be begun at that layer, or the folder cannot be used.

    """
    if start is None:
        tables = [_pooled(predictor, assay, cache_dir, device) for assay in assays]
    else:
        layers = getattr(predictor.encoder.module, "layers", None)
        if layers is None:
            raise DataError(
                f"the encoder {predictor.encoder.name} cannot be begun at a layer",
                "freeze all of it (start=None), or use tiny, an ESM-2 or a BERT",
            )
        if not 0 < start <= layers:
            raise DataError(
                f"layer {start} is not one that a trunk can end at ({layers} layers)",
                f"choose from 1 to {layers}, or None",
            )
        tables = [_below(predictor.encoder, assay, start, cache_dir, device) for assay in assays]
    frozen = [replace(a, tokens=tokens) for a, tokens in zip(assays, tables, strict=True)]
    return replace(predictor, start=start), frozen


def _pooled(predictor: Predictor, assay: EncodedAssay, cache_dir, device) -> FrozenTokens:
    encoder, pooling = predictor.encoder, predictor.pooling
    if cache_dir is None:
        vectors = embed(encoder, assay.tokens, pooling, device=device)
    else:
        vectors = cached_embeddings(encoder, assay.tokens, pooling, cache_dir, device=device)
    return FrozenTokens(assay.tokens, torch.from_numpy(vectors))


def _below(encoder: Encoder, assay: EncodedAssay, start: int, cache_dir, device) -> FrozenTokens:
    tokens = assay.tokens
    lengths = tokens.mask.sum(dim=1)
    offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(dim=0)])
    shape = (int(offsets[-1]), encoder.width)
    if cache_dir is None:
        states = torch.empty(shape)
        _run(encoder, tokens, start, offsets, states, device)
    else:
        states = _mapped(encoder, tokens, start, offsets, shape, Path(cache_dir), device)
    return FrozenTokens(tokens, states, offsets)


def _run(encoder: Encoder, tokens, start, offsets, states, device) -> None:
    """Fill `states` with what enters layer `start`, batch by batch of similar length."""
    weights = {name: value.to(device) for name, value in encoder.module.named_parameters()}
    weights |= {name: value.to(device) for name, value in encoder.module.named_buffers()}
    with torch.no_grad():
        for rows, part in run_batches(tokens):
            part = part.to(device)
            mask = None if bool(part.mask.all()) else part.mask
            options = {"stop": start, "varying": part.varying}
            reads = (part.token_ids, mask)
            hidden = functional_call(encoder.module, weights, reads, options).cpu()
            for row, own, real in zip(rows.tolist(), hidden, part.mask.cpu(), strict=True):
                states[offsets[row] : offsets[row + 1]] = own[real]


def _mapped(encoder, tokens, start, offsets, shape, directory, device) -> torch.Tensor:
    """The states in a file of `directory`, computed if it is not there or not whole."""
    key = content_key(encoder, tokens, f"layer {start}")
    file = directory / f"{key[:32]}.npy"
    seal = file.with_suffix(".json")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if file.exists() or seal.exists():
            if problem := _problem(file, seal, key, shape):
                warnings.warn(
                    f"the cached states {file} {problem}; they are computed anew", stacklevel=4
                )
            else:
                return _open(file)
        draft = directory / f".{file.name}.{os.getpid()}.part"
        try:
            array = np.lib.format.open_memmap(draft, "w+", np.float32, shape)
            _run(encoder, tokens, start, offsets, torch.from_numpy(array), device)
            array.flush()
            digest = hashlib.sha256(array).hexdigest()
            del array
            os.replace(draft, file)
            note = {"key": key, "shape": list(shape), "sha256": digest}
            sealing = directory / f".{seal.name}.{os.getpid()}.part"
            sealing.write_text(json.dumps(note), encoding="utf-8")
            os.replace(sealing, seal)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(
            f"the folder of cached states cannot be used ({error.strerror})",
            "look at its permissions and free space, choose another one, or none",
            file=directory,
        ) from error
    return _open(file)


def _open(file: Path) -> torch.Tensor:
    """Map a file; copy-on-write, so that nothing can change it."""
    return torch.from_numpy(np.load(file, mmap_mode="c", allow_pickle=False))


def _problem(file: Path, seal: Path, key: str, shape: tuple[int, int]) -> str:
    """What is wrong with a cached file, or nothing."""
    try:
        note = json.loads(seal.read_text(encoding="utf-8"))
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        return f"cannot be read ({type(error).__name__})"
    if not isinstance(note, dict) or note.get("key") != key:
        return "belongs to something else"
    if array.dtype != np.float32 or array.shape != shape:
        return f"holds {array.dtype} {array.shape} in place of float32 {shape}"
    if hashlib.sha256(np.ascontiguousarray(array)).hexdigest() != note.get("sha256"):
        return "has a wrong checksum"
    return ""
