"""What an encoder that does not learn makes of variants: run once, and kept.

Where only the head or the last layers learn, everything below them gives the same numbers in every
step of every task. `freeze` runs it once per variant. Kept on disk (`records.store`) they are
memory-mapped: a task reads its own rows.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mutmeta_lib.data.assays import Assay
from mutmeta_lib.models.encoder import Encoder, on_device
from mutmeta_lib.models.predictor import Predictor, pooled, run
from mutmeta_lib.records.store import Store
from mutmeta_lib.tasks.batches import TokenBatch, distinct_rows, run_batches
from mutmeta_lib.tasks.tasks import EncodedAssay, Examples, encode_assay, with_normal_scores

Folder = str | os.PathLike[str] | None


def embed(
    encoder: Encoder,
    batch: TokenBatch,
    pooling: str,
    *,
    device: torch.device | str = "cpu",
    cache_dir: Folder = None,
) -> np.ndarray:
    """Pooled vectors of variants, float32 ``(n, encoder.width)`` in the order of rows.

    They are kept in `cache_dir`, or read if they are there; `device` does not tell results apart.
    A folder that cannot be used and an unknown pooling are a DataError.
    """

    def compute() -> torch.Tensor:
        weights = on_device(encoder.module, device)
        first, which = distinct_rows(batch, pooling)
        result = torch.empty(len(first), encoder.width)
        with torch.no_grad():
            for rows, part in run_batches(batch.rows(first), siblings=encoder.siblings):
                result[rows] = pooled(encoder.module, weights, part.to(device), pooling).cpu()
        return result[which]

    return _store(cache_dir, encoder, batch, pooling=pooling).tensor("embeddings", compute).numpy()


def freeze(
    predictor: Predictor,
    assays: Sequence[EncodedAssay],
    start: int | None,
    *,
    cache_dir: Folder = None,
    device: torch.device | str = "cpu",
) -> tuple[Predictor, list[EncodedAssay]]:
    """Run everything below encoder layer `start` once, or, with None, the entire encoder.

    Returns the predictor that begins there (`Predictor.learning` takes its parameters out of a
    whole predictor's) and the assays with what it reads in their tokens' ``hidden``.
    """
    encoder = predictor.encoder

    def frozen(tokens: TokenBatch) -> TokenBatch:
        if start is None:
            how = {"device": device, "cache_dir": cache_dir}
            return of_vectors(torch.from_numpy(embed(encoder, tokens, predictor.pooling, **how)))
        store = _store(cache_dir, encoder, tokens, layer=start)
        hidden = store.tensor("hidden", lambda: _below(encoder, tokens, start, device))
        return replace(tokens, hidden=hidden)

    return replace(predictor, start=start), [replace(a, tokens=frozen(a.tokens)) for a in assays]


def of_vectors(vectors: torch.Tensor) -> TokenBatch:
    """Pooled vectors ``(n, width)`` in the place of tokens."""
    nothing = torch.empty(len(vectors), 0, dtype=torch.bool)
    return TokenBatch(nothing.long(), nothing, nothing, vectors)


def _below(encoder: Encoder, tokens: TokenBatch, start: int, device) -> torch.Tensor:
    """What enters layer `start`, ``(n, length, width)``; 0 at padding."""
    states = torch.zeros(*tokens.mask.shape, encoder.width)
    weights = on_device(encoder.module, device)
    with torch.no_grad():
        for rows, part in run_batches(tokens, siblings=encoder.siblings):
            hidden = run(encoder.module, weights, part.to(device), stop=start).cpu()
            states[rows, : hidden.shape[1]] = hidden * part.mask[..., None]
    return states


def _store(cache_dir: Folder, encoder: Encoder, batch: TokenBatch, **how: Any) -> Store:
    """Where what an encoder makes of a batch is kept: it depends on both, and on `how`."""
    if cache_dir is None:
        return Store(None, {})
    tokens = hashlib.sha256(str(tuple(batch.mask.shape)).encode())
    for tensor in (batch.token_ids, batch.mask, batch.sites):
        tokens.update(tensor.cpu().contiguous().numpy())
    return Store(Path(cache_dir), {"encoder": encoder.sha256, "tokens": tokens.hexdigest(), **how})


@dataclass(frozen=True, eq=False)
class Vectors:
    """Assays as a predictor reads them, by id: with measured labels, and those of training."""

    predictor: Predictor
    assays: dict[str, EncodedAssay]
    training: dict[str, EncodedAssay]
    standardised: dict[str, torch.Tensor]

    def features(self, examples: Examples) -> np.ndarray:
        """Standardised vectors of some rows ``(n, width)``: what ridge and GP read."""
        return self.standardised[examples.assay.assay.id][torch.as_tensor(examples.rows)].numpy()


def read_with(
    predictor: Predictor,
    assays: Sequence[Assay],
    encoding: str,
    start: int | None = None,
    *,
    labels: str = "normal_scores",
    standardised: bool = True,
    cache_dir: Folder = None,
    device: torch.device | str = "cpu",
) -> Vectors:
    """Encode every assay once, for a predictor that learns from encoder layer `start` on.

    With `start` 0 all of the encoder learns. With None only the head does, on pooled vectors as
    they are, or `standardised` over the variants of their assay. Meta-training sees `labels`,
    ``normal_scores`` or ``measured``.
    """
    if labels not in ("normal_scores", "measured"):
        raise ValueError(f"unknown labels {labels!r}; use normal_scores or measured")
    encoder, scaled = predictor.encoder, {}
    kept = [encode_assay(a, encoding, encoder.vocabulary, encoder.max_tokens) for a in assays]
    if start != 0:
        predictor, kept = freeze(predictor, kept, start, cache_dir=cache_dir, device=device)
    if start is None:
        scaled = {item.assay.id: standardise(item.tokens.hidden) for item in kept}
        if standardised:
            kept = [replace(item, tokens=of_vectors(scaled[item.assay.id])) for item in kept]
    training = by_id = {item.assay.id: item for item in kept}
    if labels == "normal_scores":
        training = {id: replace(a, assay=with_normal_scores(a.assay)) for id, a in by_id.items()}
    return Vectors(predictor, by_id, training, scaled)


def standardise(states: torch.Tensor) -> torch.Tensor:
    """Mean 0 and variance 1 per column of ``(n, width)``; 0 if constant up to rounding."""
    mean = states.mean(dim=0)
    spread = states.std(dim=0, correction=0)
    return (states - mean) / torch.where(spread > 1e-5 + 1e-6 * mean.abs(), spread, torch.inf)
