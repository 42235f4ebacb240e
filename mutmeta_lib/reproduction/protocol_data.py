"""The data of the public code's comparison: rows for the initial fit, and target data sets.

Each target has a training and a test part, rows of many proteins split at random. Where the part
for training is missing (the solubility data in the copy we have), the test part is split anew.
Rows are taken at their word: this is the data as released, faults included.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from mutmeta_lib.models.embeddings import embed
from mutmeta_lib.models.encoders import Encoder
from mutmeta_lib.reproduction.counts import INITIAL
from mutmeta_lib.reproduction.released import as_stated, find_table, read_release
from mutmeta_lib.seeds import stable_seed
from mutmeta_lib.study.study import DEMO, load_assays
from mutmeta_lib.tasks.batches import TokenBatch, concatenate, distinct_rows
from mutmeta_lib.tasks.encodings import encode_variants

TARGETS = ("binding_affinity", "fireprot_dTm", "soluprotmut_solubility")
"""The targets that the repository's later README names."""

POOLING = "cls"
"""The head reads the hidden state of the first token, as in the public code."""

CHUNK = 1000
"""Rows whose vectors are kept in one cache file."""


@dataclass(frozen=True, eq=False)
class ProtocolData:
    """Everything the comparison reads.

    ``parts`` are tables of wild_type, variant and label (as the file scales it) by name:
    ``initial``, and ``<target> train`` and ``<target> test`` for each of ``targets``. ``resplit``
    names targets whose test file was split anew, and ``sha256`` holds the tables read.
    """

    parts: dict[str, pd.DataFrame]
    targets: tuple[str, ...]
    resplit: tuple[str, ...]
    sha256: dict[str, str]


def read_protocol(release_dir: str | os.PathLike[str]) -> ProtocolData:
    """Read a copy of the public repository, or ``demo``, a miniature of bundled assays.

    Raises `DataError` where a table is missing, or a row cannot be taken at its word.
    """
    if release_dir == DEMO:
        return _miniature()
    resplit = [name for name in TARGETS if find_table(release_dir, f"{name}_train") is None]
    names = [(name, part) for part in ("train", "test") for name in (INITIAL, *TARGETS)]
    ids = [f"{n}_{part}" for n, part in names if part == "test" or n not in resplit]
    rows, hashes = read_release(release_dir, ids)
    rows = rows.rename(columns={"sequence": "wild_type"})
    rows = rows.assign(variant=rows["mutations"].map(as_stated))
    parts = {"initial": rows[rows["name"] == INITIAL]}
    for name in TARGETS:
        split = [rows[rows["table"] == f"{name}_{part}"] for part in ("train", "test")]
        split = split_rows(split[1]) if name in resplit else split
        parts |= dict(zip((f"{name} train", f"{name} test"), split, strict=True))
    parts = {name: part[["wild_type", "variant", "label"]] for name, part in parts.items()}
    return ProtocolData(parts, TARGETS, tuple(resplit), hashes)


def _miniature() -> ProtocolData:
    """Stability of GB1 for the initial fit, then two assays of each protein as a data set.

    As in the public code, labels are standardised over all rows before the split.
    """
    assays = load_assays(DEMO, per_protein=2)
    sets: dict[str, list[pd.DataFrame]] = {}
    for assay in assays:
        target = assay.protein.replace("-", " ").split()[0]
        label = (assay.scores - assay.scores.mean()) / assay.scores.std()
        rows = {"wild_type": assay.wild_type, "variant": list(assay.variants), "label": label}
        name = "initial" if assay.property == "stability" else target
        sets.setdefault(name, []).append(pd.DataFrame(rows))
    parts = {"initial": pd.concat(sets.pop("initial"))}
    for name, rows in sets.items():
        names = (f"{name} train", f"{name} test")
        parts |= dict(zip(names, split_rows(pd.concat(rows)), strict=True))
    return ProtocolData(parts, tuple(sets), tuple(sets), {a.id: a.sha256 for a in assays})


def split_rows(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A random fifth as test part, behind the rest, which is the training part."""
    order = np.random.default_rng(42).permutation(len(rows))
    cut = round(0.2 * len(rows))
    return rows.iloc[np.sort(order[cut:])], rows.iloc[np.sort(order[:cut])]


def cap_rows(data: ProtocolData, most: int) -> ProtocolData:
    """At most so many rows for the initial fit and per training part (0: all), drawn once."""
    parts = {}
    for name, rows in data.parts.items():
        parts[name] = rows
        if most and len(rows) > most and not name.endswith(" test"):
            drawn = INITIAL if name == "initial" else name.removesuffix(" train")
            rng = np.random.default_rng(stable_seed("protocol rows", drawn))
            parts[name] = rows.iloc[np.sort(rng.choice(len(rows), most, replace=False))]
    return replace(data, parts=parts)


@dataclass(frozen=True, eq=False)
class Rows:
    """n rows as an encoder reads them, with labels ``(n,)``; what a predictor's loss is given."""

    tokens: TokenBatch
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: np.ndarray) -> Rows:
        """Some of the rows, trimmed to the longest of them."""
        return Rows(self.tokens.rows(index), self.labels[torch.as_tensor(index)])


def encode_rows(rows: pd.DataFrame, encoding: str, encoder: Encoder) -> TokenBatch:
    """Variants of many wild types as one padded batch, in their order; errors as in `encode`."""
    places = rows.groupby("wild_type", sort=False).indices
    variants = rows["variant"].to_numpy()
    how = (encoder.vocabulary, encoder.max_tokens)
    parts = [encode_variants(encoding, w, variants[at], *how) for w, at in places.items()]
    return concatenate(parts).rows(np.argsort(np.concatenate(list(places.values()))))


def encode_protocol(
    data: ProtocolData,
    encoding: str,
    encoder: Encoder,
    *,
    frozen: bool,
    cache_dir: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Rows]:
    """The parts as tokens, by name; with ``frozen`` also run the encoder, once per text.

    ``progress`` is called with texts done and texts in all while the encoder runs.
    """
    everything = pd.concat(data.parts.values())
    tokens = encode_rows(everything, encoding, encoder)
    if frozen:
        texts, place = distinct_rows(tokens, POOLING)
        found = []
        for start in range(0, len(texts), CHUNK):
            part = tokens.rows(texts[start : start + CHUNK])
            found.append(embed(encoder, part, POOLING, cache_dir=cache_dir))
            progress(min(start + CHUNK, len(texts)), len(texts))
        vectors = torch.from_numpy(np.concatenate(found)[place])
        nothing = torch.empty(len(tokens), 0, dtype=torch.bool)  # tokens are not read any more
        tokens = TokenBatch(nothing.long(), nothing, nothing, vectors)
    labels = torch.tensor(everything["label"].to_numpy(), dtype=torch.float32)
    ends = np.cumsum([len(rows) for rows in data.parts.values()])[:-1]
    places = np.split(np.arange(len(labels)), ends)
    whole = Rows(tokens, labels)
    return {name: whole.take(place) for name, place in zip(data.parts, places, strict=True)}
