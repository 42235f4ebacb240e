"""The data of the public code's comparison: a file for the initial fit, and target data sets.

Each target has a training and a test part, rows of many proteins split at random. Where the part
for training is missing (the solubility data in the copy we have), the test part is split anew.
Rows are taken at their word: this is the data as released, faults included.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from mutmeta_lib.data.assays import Assay
from mutmeta_lib.data.variants import Variant
from mutmeta_lib.errors import DataError
from mutmeta_lib.models.embeddings import cached_embeddings, embed
from mutmeta_lib.models.encoders import Encoder
from mutmeta_lib.models.frozen import FrozenTokens
from mutmeta_lib.reproduction.release import ReleaseFile, find_file, read_release
from mutmeta_lib.reproduction.release_rows import encode_rows, release_variants
from mutmeta_lib.seeds import stable_seed
from mutmeta_lib.tasks.batch import TokenBatch

INITIAL = "combined_ddG"
"""The data set of the initial fit, train and test part together."""

TARGETS = ("binding_affinity", "fireprot_dTm", "soluprotmut_solubility")
"""The targets that the repository's later README names."""

POOLING = "cls"
"""The head reads the hidden state of the first token, as in the public code."""

TEST_SHARE = 0.2
CHUNK = 1000
"""Rows whose vectors are kept in one cache file."""


@dataclass(frozen=True, eq=False)
class Measured:
    """n rows: wild type and variant of each, and its label ``(n,)`` as the file scales it."""

    variants: tuple[tuple[str, Variant], ...]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.variants)

    def take(self, index: Sequence[int] | np.ndarray) -> Measured:
        """Some of the rows, in the order asked for."""
        return Measured(tuple(self.variants[i] for i in index), self.labels[np.asarray(index)])


@dataclass(frozen=True, eq=False)
class ProtocolData:
    """Everything the comparison reads.

    ``initial`` is for the initial fit, ``train`` and ``test`` hold the parts of each target by
    name, ``resplit`` names targets whose test file was split anew, and ``sha256`` the tables read.
    """

    initial: Measured
    train: dict[str, Measured]
    test: dict[str, Measured]
    resplit: tuple[str, ...]
    sha256: dict[str, str]


def read_protocol(
    release_dir: str | os.PathLike[str], targets: Sequence[str] = TARGETS, *, seed: int = 42
) -> ProtocolData:
    """Read a copy of the public repository.

    Args:
        release_dir: The copy (see `release`).
        targets: Names of the target data sets.
        seed: Of the new split where a training part is missing.

    Raises:
        DataError: A table that is needed is missing or holds a row that cannot be taken at its
            word.

    """
    resplit = [name for name in targets if find_file(release_dir, f"{name}_train") is None]
    trained = [name for name in (INITIAL, *targets) if name not in resplit]
    tested = (INITIAL, *targets)
    files = read_release(
        release_dir, [f"{name}_train" for name in trained] + [f"{name}_test" for name in tested]
    )
    initial = _joined([_measured(files[f"{INITIAL}_{part}"]) for part in ("train", "test")])
    train, test = {}, {}
    for name in targets:
        rows = _measured(files[f"{name}_test"])
        if name in resplit:
            train[name], test[name] = split_rows(rows, seed)
        else:
            train[name], test[name] = _measured(files[f"{name}_train"]), rows
    hashes = {id: file.sha256 for id, file in files.items()}
    return ProtocolData(initial, train, test, tuple(resplit), hashes)


def protocol_of_assays(
    initial: Assay, targets: Mapping[str, Sequence[Assay]], *, seed: int = 42
) -> ProtocolData:
    """The same comparison on assays: each target's rows are put together, scaled, and split.

    As in the public code, labels are standardised over *all* rows before the split.
    """
    train, test = {}, {}
    for name, assays in targets.items():
        train[name], test[name] = split_rows(_joined([_standardised(a) for a in assays]), seed)
    used = [initial, *(assay for assays in targets.values() for assay in assays)]
    hashes = {assay.id: assay.sha256 for assay in used}
    return ProtocolData(_standardised(initial), train, test, tuple(targets), hashes)


def split_rows(rows: Measured, seed: int) -> tuple[Measured, Measured]:
    """A random fifth as test part; the rest is the training part."""
    order = np.random.default_rng(seed).permutation(len(rows))
    cut = round(TEST_SHARE * len(rows))
    return rows.take(np.sort(order[cut:])), rows.take(np.sort(order[:cut]))


def cap_rows(data: ProtocolData, most: int) -> ProtocolData:
    """At most so many rows for the initial fit and per training part (0: all), drawn once."""

    def capped(name: str, rows: Measured) -> Measured:
        if not most or len(rows) <= most:
            return rows
        rng = np.random.default_rng(stable_seed("protocol rows", name))
        return rows.take(np.sort(rng.choice(len(rows), most, replace=False)))

    train = {name: capped(name, rows) for name, rows in data.train.items()}
    return replace(data, initial=capped(INITIAL, data.initial), train=train)


@dataclass(frozen=True, eq=False)
class Rows:
    """n rows as an encoder reads them, with labels ``(n,)``; what a predictor's loss is given."""

    tokens: TokenBatch | FrozenTokens
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: np.ndarray) -> Rows:
        """Some of the rows, trimmed to the longest of them."""
        chosen = np.asarray(index)
        return Rows(self.tokens.rows(chosen), self.labels[torch.as_tensor(chosen)])


@dataclass(frozen=True, eq=False)
class EncodedProtocol:
    """`ProtocolData` with its rows encoded; names as there."""

    initial: Rows
    train: dict[str, Rows]
    test: dict[str, Rows]

    def others(self, target: str) -> list[tuple[Rows, Rows]]:
        """The training and test parts of all data sets but the target."""
        return [(self.train[name], self.test[name]) for name in self.train if name != target]


def encode_protocol(
    data: ProtocolData,
    encoding: str,
    encoder: Encoder,
    *,
    frozen: bool,
    cache_dir: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> EncodedProtocol:
    """Write all rows as tokens; with ``frozen`` also run the encoder over them, once per text.

    ``progress`` is called with rows done and rows in all while the encoder runs.
    """
    parts = {"initial": data.initial}
    parts |= {f"train {name}": rows for name, rows in data.train.items()}
    parts |= {f"test {name}": rows for name, rows in data.test.items()}
    everything = _joined(list(parts.values()))
    tokens = encode_rows(everything.variants, encoding, encoder.vocabulary, encoder.max_tokens)
    table: TokenBatch | FrozenTokens = tokens
    if frozen:
        table = FrozenTokens(tokens, _vectors(tokens, encoder, cache_dir, progress))
    labels = torch.tensor(everything.labels, dtype=torch.float32)
    made, first = {}, 0
    for name, rows in parts.items():
        place = np.arange(first, first + len(rows))
        own = tokens.rows(place)
        if frozen:
            made[name] = Rows(FrozenTokens(own, table.states[place]), labels[place])
        else:
            made[name] = Rows(own, labels[place])
        first += len(rows)
    return EncodedProtocol(
        made["initial"],
        {name: made[f"train {name}"] for name in data.train},
        {name: made[f"test {name}"] for name in data.test},
    )


def _vectors(
    tokens: TokenBatch,
    encoder: Encoder,
    cache_dir: str | None,
    progress: Callable[[int, int], None] | None,
) -> torch.Tensor:
    """Vectors ``(n, width)`` of the first token; equal texts, which tables share, are run once."""
    seen: dict[bytes, int] = {}
    written = np.where(tokens.mask.numpy(), tokens.token_ids.numpy(), -1).astype(np.int32)
    place = np.array([seen.setdefault(row.tobytes(), len(seen)) for row in written])
    _, first = np.unique(place, return_index=True)
    found = []
    for start in range(0, len(first), CHUNK):
        part = tokens.rows(first[start : start + CHUNK])
        if cache_dir is None:
            found.append(embed(encoder, part, POOLING))
        else:
            found.append(cached_embeddings(encoder, part, POOLING, cache_dir))
        if progress is not None:
            progress(min(start + CHUNK, len(first)), len(first))
    return torch.from_numpy(np.concatenate(found)[place])


def _measured(file: ReleaseFile) -> Measured:
    return Measured(tuple(release_variants(file, restore=False)), np.array(file.labels))


def _standardised(assay: Assay) -> Measured:
    scores = np.asarray(assay.scores)
    spread = scores.std()
    if not spread > 0:
        raise DataError(f"assay {assay.id} has one score only", "choose another assay")
    rows = tuple((assay.wild_type, variant) for variant in assay.variants)
    return Measured(rows, (scores - scores.mean()) / spread)


def _joined(parts: Sequence[Measured]) -> Measured:
    rows = tuple(row for part in parts for row in part.variants)
    return Measured(rows, np.concatenate([part.labels for part in parts]))
