"""Rows of the public repository's tables as tokens, for arms that train on them.

A table holds many proteins, so each row brings its own wild type; that is the difference from an
`Assay`. A row can be taken at its word, or restored where it is written backwards.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mutmeta_lib.data.variants import Variant
from mutmeta_lib.reproduction.findings import directions
from mutmeta_lib.reproduction.release import ReleaseFile, as_restored, as_stated
from mutmeta_lib.tasks.batch import TokenBatch
from mutmeta_lib.tasks.encodings import Encoded, encode
from mutmeta_lib.tasks.vocabulary import Vocabulary


def release_variants(file: ReleaseFile, *, restore: bool) -> list[tuple[str, Variant]]:
    """Wild type and variant of every row, in order.

    With ``restore`` the rows of sources that `directions` finds backwards are turned round; all
    others, and all rows without it, are taken at their word. A mutation into the same letter
    gives the wild type ``()``. Raises `DataError` for a letter that is no amino acid.
    """
    found = directions({file.id: file})
    backwards = set(found[found["backwards"]]["source"]) if restore else set()
    return [
        (as_restored if source in backwards else as_stated)(sequence, mutations)
        for sequence, mutations, source in zip(
            file.sequences, file.mutations, file.sources, strict=True
        )
    ]


def encode_rows(
    rows: Sequence[tuple[str, Variant]], encoding: str, vocabulary: Vocabulary, max_tokens: int
) -> TokenBatch:
    """Write variants of many wild types as one padded batch, in their order.

    Arguments and errors are those of `encode`, with a wild type per row.
    """
    texts = [encode(encoding, *row, vocabulary, max_tokens) for row in rows]
    width = max(map(len, texts), default=1)
    ids = torch.full((len(texts), width), vocabulary.id(vocabulary.pad))
    mask = torch.zeros(ids.shape, dtype=torch.bool)
    sites = torch.zeros(ids.shape, dtype=torch.bool)
    for row, text in enumerate(texts):
        _write(text, ids[row], mask[row], sites[row])
    return TokenBatch(ids, mask, sites)


def _write(text: Encoded, ids: torch.Tensor, mask: torch.Tensor, sites: torch.Tensor) -> None:
    ids[: len(text)] = torch.tensor(text.token_ids)
    mask[: len(text)] = True
    sites[list(text.sites)] = True
