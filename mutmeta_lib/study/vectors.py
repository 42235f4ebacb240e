"""Frozen vectors of every assay, and how they are prepared: for the third arm and the checks.

Where the encoder is frozen, each variant is a vector once and for all. All methods on embeddings,
by gradient or in closed form, read the same vectors.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial

import torch

from mutmeta_lib.data.assays import Assay
from mutmeta_lib.models.frozen import FrozenTokens, freeze
from mutmeta_lib.models.predictor import Predictor
from mutmeta_lib.models.zero_shot import ZeroShot, zero_shot
from mutmeta_lib.tasks.batches import TokenBatch
from mutmeta_lib.tasks.tasks import EncodedAssay, Examples, encode_assay, with_normal_scores

FEATURES = ("standardised", "raw")
"""``standardised``: each column has mean 0 and variance 1 over the (capped) variants of an assay,
whose sequences are known before anything is measured. ``raw``: as pooled."""


LABELS = ("normal_scores", "measured")
"""What meta-training and meta-validation see of an assay's labels; tests see what was measured."""


@dataclass(frozen=True, eq=False)
class Vectors:
    """Every assay as vectors, by id, and the predictor that reads them.

    ``assays`` have the labels that were measured, ``training`` those that meta-training sees.
    """

    predictor: Predictor
    assays: dict[str, EncodedAssay]
    training: dict[str, EncodedAssay]
    standardised: dict[str, torch.Tensor]
    cache_dir: str | None = None

    def features(self, examples: Examples):
        """Standardised vectors of some rows ``(n, width)``: what ridge and GP read."""
        return self.standardised[examples.assay.assay.id][torch.as_tensor(examples.rows)].numpy()

    @cached_property
    def zero_shot(self) -> Callable[[str], ZeroShot]:
        """Zero-shot methods by name; each is made once and serves all cases."""
        return cache(partial(zero_shot, encoder=self.predictor.encoder, cache_dir=self.cache_dir))


def embed_assays(
    predictor: Predictor,
    assays: Sequence[Assay],
    encoding: str,
    features: str,
    labels: str,
    *,
    cache_dir: str | None = None,
    device: str = "cpu",
) -> Vectors:
    """Encode, embed and standardise every assay once."""
    if features not in FEATURES:
        raise ValueError(f"unknown features {features!r}; choose from {FEATURES}")
    encoder = predictor.encoder
    encoded = [encode_assay(a, encoding, encoder.vocabulary, encoder.max_tokens) for a in assays]
    frozen, held = freeze(predictor, encoded, None, cache_dir=cache_dir, device=device)
    scaled = {item.assay.id: standardise(item.tokens.states) for item in held}
    kept = {}
    for item in held:
        name = item.assay.id
        states = scaled[name] if features == "standardised" else item.tokens.states
        kept[name] = replace(item, tokens=FrozenTokens(_blank(len(item)), states))
    return Vectors(frozen, kept, _learned(kept, labels), scaled, cache_dir)


def layered_assays(
    predictor: Predictor,
    assays: Sequence[Assay],
    encoding: str,
    labels: str,
    start: int,
    *,
    cache_dir: str | None = None,
    device: str = "cpu",
) -> Vectors:
    """The assays for a predictor whose encoder learns from layer ``start`` on; 0 is all of it.

    Nothing is standardised: the layers read what the trunk below them gives.
    """
    encoder = predictor.encoder
    kept = [encode_assay(a, encoding, encoder.vocabulary, encoder.max_tokens) for a in assays]
    if start:
        predictor, kept = freeze(predictor, kept, start, cache_dir=cache_dir, device=device)
    by_id = {item.assay.id: item for item in kept}
    return Vectors(predictor, by_id, _learned(by_id, labels), {}, cache_dir)


def _learned(kept: dict[str, EncodedAssay], labels: str) -> dict[str, EncodedAssay]:
    """What meta-training sees of the assays."""
    if labels not in LABELS:
        raise ValueError(f"unknown labels {labels!r}; choose from {LABELS}")
    if labels == "measured":
        return kept
    return {id: replace(a, assay=with_normal_scores(a.assay)) for id, a in kept.items()}


def standardise(states: torch.Tensor) -> torch.Tensor:
    """Mean 0 and variance 1 per column of ``(n, width)``; a constant column becomes 0."""
    centred = states - states.mean(dim=0)
    spread = centred.std(dim=0, correction=0)
    return centred / torch.where(spread > 1e-5, spread, torch.inf)


def _blank(n: int) -> TokenBatch:
    """Tokens that nobody reads any more, so that tasks do not carry them about."""
    ids = torch.zeros(n, 1, dtype=torch.long)
    return TokenBatch(ids, torch.ones(n, 1, dtype=torch.bool), torch.zeros(n, 1, dtype=torch.bool))
