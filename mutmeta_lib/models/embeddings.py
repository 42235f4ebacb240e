"""Embeddings: one fixed vector per variant from a frozen encoder, and their cache on disk.

Embedding a data set with a large encoder takes long and gives the same numbers every time, so they
may be kept. A cache file is trusted only if it proves to be what was asked for and unharmed.
"""

import hashlib
import os
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.func import functional_call

from mutmeta_lib.errors import DataError
from mutmeta_lib.models.encoders import Encoder
from mutmeta_lib.models.pooling import inputs, weighted_sum
from mutmeta_lib.tasks.batches import TokenBatch, distinct_rows, run_batches

PRECISIONS = ("float32", "bfloat16")
"""How matrices are multiplied: see `embed`."""

_BAD_ARCHIVE = (zipfile.BadZipFile, zlib.error, NotImplementedError)
"""What a damaged zip archive raises; the last one is about a compression method it lacks."""


def embed(
    encoder: Encoder,
    batch: TokenBatch,
    pooling: str,
    *,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
    precision: str = "float32",
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

    Returns:
        float32, shape ``(n, encoder.width)``, in the order of the rows.

    Raises:
        DataError: There is no such pooling or precision.

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


def content_key(encoder: Encoder, batch: TokenBatch, what: str) -> str:
    """SHA-256 of what results depend on: encoder, tokens, sites, and `what` is made of them."""
    digest = hashlib.sha256(f"{encoder.sha256} {what} {tuple(batch.mask.shape)}".encode())
    for tensor in (batch.token_ids, batch.mask, batch.sites):
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _checksum(key: str, values: np.ndarray) -> str:
    return hashlib.sha256(key.encode() + np.ascontiguousarray(values).tobytes()).hexdigest()


def _read(file: Path, key: str, shape: tuple[int, int]) -> np.ndarray:
    """The embeddings in a cache file; `ValueError` when it is not what `key` promises."""
    try:
        with np.load(file, allow_pickle=False) as archive:
            values, checksum = archive["embeddings"], str(archive["checksum"])
    except (OSError, EOFError, KeyError, TypeError, ValueError, *_BAD_ARCHIVE) as error:
        raise ValueError(f"cannot be read ({type(error).__name__})") from error
    if values.dtype != np.float32 or values.shape != shape:
        raise ValueError(f"holds {values.dtype} {values.shape} in place of float32 {shape}")
    if checksum != _checksum(key, values):
        raise ValueError("has a wrong checksum")
    return values


def _write(file: Path, key: str, values: np.ndarray) -> None:
    """Write beside the file, then rename: a reader finds the entire file or none."""
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=file.stem, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as stream:
            np.savez(stream, embeddings=values, checksum=np.array(_checksum(key, values)))
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(name, file)
    finally:
        Path(name).unlink(missing_ok=True)


def cached(
    cache_dir: str | os.PathLike[str],
    key: str,
    shape: tuple[int, int],
    compute: Callable[[], np.ndarray],
    what: str = "embeddings",
) -> np.ndarray:
    """A float32 table that is read from `cache_dir`, or computed and kept there.

    Args:
        cache_dir: The folder; it is made if there is none.
        key: SHA-256 of all that the table depends on; the file's name is made of it.
        shape: The table's shape.
        compute: What makes the table.
        what: What to call it in warnings.

    Raises:
        DataError: the folder cannot be made or used.

    """
    directory = Path(cache_dir)
    file = directory / f"{key[:32]}.npz"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        there = file.exists()
    except OSError as error:
        raise DataError(
            f"the folder of cached {what} cannot be used ({error.strerror})",
            "look at its permissions, or choose another one",
            file=directory,
        ) from error
    if there:
        try:
            return _read(file, key, shape)
        except ValueError as error:
            warnings.warn(f"the cached {what} {file} {error}; they are computed anew", stacklevel=3)
    values = compute()
    try:
        _write(file, key, values)
    except OSError as error:
        warnings.warn(
            f"the {what} cannot be kept in {file} ({error.strerror}); they are used once",
            stacklevel=3,
        )
    return values


def cached_embeddings(
    encoder: Encoder,
    batch: TokenBatch,
    pooling: str,
    cache_dir: str | os.PathLike[str],
    *,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
    precision: str = "float32",
) -> np.ndarray:
    """What `embed` returns, read from `cache_dir` if it was computed before.

    The file's name is the hash of the encoder, the tokens, the sites, the pooling and the
    precision, so a change of any of them is another file. `batch_size` and `device` are not part
    of it: they change results by rounding only. A file that is damaged is never used: a warning
    names it, and it is computed anew and replaced. If the disk is full, a warning says so and
    nothing is kept.

    Raises:
        DataError: the folder cannot be made or used.

    """
    what = pooling if precision == "float32" else f"{pooling} {precision}"
    key = content_key(encoder, batch, what)
    options = {"batch_size": batch_size, "device": device, "precision": precision}
    return cached(
        cache_dir,
        key,
        (len(batch), encoder.width),
        lambda: embed(encoder, batch, pooling, **options),
    )
