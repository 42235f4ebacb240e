"""Embeddings: one fixed vector per variant from a frozen encoder.

Embedding a data set with a large encoder takes long and gives the same numbers every time, so they
may be kept (`mutmeta_lib.records.store`).
"""

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.func import functional_call

from mutmeta_lib.errors import DataError
from mutmeta_lib.models.encoders import Encoder
from mutmeta_lib.models.pooling import inputs, weighted_sum
from mutmeta_lib.records.store import Store
from mutmeta_lib.tasks.batches import TokenBatch, distinct_rows, run_batches

PRECISIONS = ("float32", "bfloat16")
"""How matrices are multiplied: see `embed`."""


def embed(
    encoder: Encoder,
    batch: TokenBatch,
    pooling: str,
    *,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
    precision: str = "float32",
    cache_dir: str | os.PathLike[str] | None = None,
) -> np.ndarray:
    """Embed variants with the encoder as it is, without gradients.

    Args:
        encoder: The encoder; it is not moved or changed.
        batch: The variants' tokens, ``n`` rows.
        pooling: One of `mutmeta_lib.models.pooling.POOLINGS`.
        batch_size: Rows computed at a time, at most (`mutmeta_lib.tasks.batches`).
        device: Where to compute.
        precision: One of `PRECISIONS`. In ``"bfloat16"``, for processors that multiply it faster,
            factors of matrix products keep two to three digits; the result is float32.
        cache_dir: Read the result from here if it was kept, else keep it. `batch_size` and
            `device`, which change it by rounding only, do not tell results apart.

    Returns:
        float32, shape ``(n, encoder.width)``, in the order of the rows.

    Raises:
        DataError: There is no such pooling or precision, or the folder cannot be used.

    >>> from mutmeta_lib.models.encoders import tiny_encoder
    >>> from mutmeta_lib.tasks.encodings import encode_variants
    >>> encoder = tiny_encoder()
    >>> batch = encode_variants("mutant", "MKTA", [()], encoder.vocabulary, encoder.max_tokens)
    >>> embed(encoder, batch, "mean").shape
    (1, 64)

    """
    if precision not in PRECISIONS:
        raise DataError(
            f"there is no precision '{precision}'", f"use one of {', '.join(PRECISIONS)}"
        )

    def compute() -> np.ndarray:
        low = torch.autocast(torch.device(device).type, torch.bfloat16, precision == "bfloat16")
        weights = {name: value.to(device) for name, value in encoder.module.named_parameters()}
        weights |= {name: value.to(device) for name, value in encoder.module.named_buffers()}
        first, which = distinct_rows(batch, pooling)
        texts = batch.rows(first) if len(first) < len(batch) else batch
        result = np.empty((len(first), encoder.width), dtype=np.float32)
        layered = hasattr(encoder.module, "layers")
        with torch.no_grad(), low:
            for rows, part in run_batches(texts, batch_size, layered=layered):
                given = inputs(part.to(device), pooling, layered=layered)
                reads = (given.states, given.mask)
                hidden = functional_call(encoder.module, weights, reads, given.options)
                result[rows] = weighted_sum(hidden, given.weights).float().cpu().numpy()
        return result[which]

    store = store_of(cache_dir, encoder, batch, pooling=pooling, precision=precision)
    return store.tensor("embeddings", compute).numpy()


def store_of(
    cache_dir: str | os.PathLike[str] | None, encoder: Encoder, batch: TokenBatch, **how: Any
) -> Store:
    """Where what an encoder makes of a batch is kept: it depends on both, and on ``how``."""
    if cache_dir is None:
        return Store(None, {})
    tokens = hashlib.sha256(str(tuple(batch.mask.shape)).encode())
    for tensor in (batch.token_ids, batch.mask, batch.sites):
        tokens.update(tensor.cpu().contiguous().numpy())
    about = {"encoder": encoder.sha256, "tokens": tokens.hexdigest(), **how}
    return Store(Path(cache_dir), about)
