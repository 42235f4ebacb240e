"""Assays become few-shot tasks: a labelled support set to learn from, a query set to predict.

All methods see the same draw (same seed and assay, same rows), the supports of growing size are
nested, and the query set is the same at every number of shots, so that points of a few-shot curve
differ in their labels alone: measured scores on the scale of the support.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.special import ndtri

from mutmeta_lib.data.assays import Assay
from mutmeta_lib.data.variants import Variant
from mutmeta_lib.errors import DataError
from mutmeta_lib.seeds import stable_seed
from mutmeta_lib.tasks.batches import TokenBatch
from mutmeta_lib.tasks.encodings import encode_variants
from mutmeta_lib.tasks.vocabulary import Vocabulary

_HALF_WAY = 50  # of 25, 50, 100, and half way at any number: Spearman on validation assays
_LEAST_SPREAD = 1e-6


@dataclass(frozen=True, eq=False)
class EncodedAssay:
    """An assay with its variants as tokens: ``tokens`` has one row per variant."""

    assay: Assay
    encoding: str
    tokens: TokenBatch

    def __len__(self) -> int:
        return len(self.assay)


def encode_assay(
    assay: Assay, encoding: str, vocabulary: Vocabulary, max_tokens: int
) -> EncodedAssay:
    """Write every variant of an assay as tokens, once; tasks then only index rows."""
    tokens = encode_variants(encoding, assay.wild_type, assay.variants, vocabulary, max_tokens)
    return EncodedAssay(assay, encoding, tokens)


@dataclass(frozen=True, eq=False)
class Examples:
    """Rows of one assay with their labels on the scaled axis, shape ``(n,)``."""

    assay: EncodedAssay
    rows: np.ndarray
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, index: np.ndarray) -> Examples:
        """Some of these examples, by their place among them."""
        return Examples(self.assay, self.rows[index], self.labels[torch.as_tensor(index)])

    @property
    def tokens(self) -> TokenBatch:
        """The rows' tokens, ``(n, length)``, trimmed to the longest row."""
        return self.assay.tokens.rows(self.rows)

    @property
    def variants(self) -> tuple[Variant, ...]:
        """The rows' variants."""
        return tuple(self.assay.assay.variants[row] for row in self.rows)

    @property
    def scores(self) -> np.ndarray:
        """The rows' measured scores, in the assay's units."""
        return self.assay.assay.scores[self.rows]


def both(support: Examples, query: Examples) -> Examples:
    """The examples of a support and a query set of one assay, support first."""
    rows = np.concatenate([support.rows, query.rows])
    return Examples(support.assay, rows, torch.cat([support.labels, query.labels]))


@dataclass(frozen=True)
class LabelScale:
    """The affine map between measured scores and the labels a predictor is trained on.

    Location is the mean of the support (0 without a label), scale its standard deviation (ddof 1).
    Fewer than two labels, or equal ones, identify no scale: it is 1, and errors are not defined.
    """

    location: float
    scale: float
    identified: bool

    @classmethod
    def fit(cls, scores: np.ndarray) -> LabelScale:
        """Fit on the support scores, shape ``(k,)``."""
        location = float(np.mean(scores)) if len(scores) else 0.0
        spread = float(np.std(scores, ddof=1)) if len(scores) > 1 else 0.0
        identified = spread > 1e-12 * max(1.0, abs(location))
        return cls(location, spread if identified else 1.0, identified)

    def to_labels(self, scores: np.ndarray) -> torch.Tensor:
        """Measured scores -> labels, ``(n,)`` float32."""
        return torch.tensor((scores - self.location) / self.scale, dtype=torch.float32)

    def to_scores(self, labels: np.ndarray) -> np.ndarray:
        """Predicted labels -> the assay's own units, ``(n,)``."""
        return np.asarray(labels, dtype=float) * self.scale + self.location


@dataclass(frozen=True, eq=False)
class Task:
    """A support set, a query set, and the label scale fitted on the support."""

    support: Examples
    query: Examples
    label_scale: LabelScale


def make_task(assay: EncodedAssay, support: np.ndarray, query: np.ndarray) -> Task:
    """A task from row numbers; label scaling sees the support rows only."""
    scores = assay.assay.scores
    scale = LabelScale.fit(scores[support])
    parts = (Examples(assay, rows, scale.to_labels(scores[rows])) for rows in (support, query))
    return Task(*parts, scale)


def draw_task(
    assay: EncodedAssay,
    shots: int,
    rng: np.random.Generator,
    *,
    pool: int,
    max_query: int | None = None,
) -> Task:
    """Draw ``shots`` support rows and the query rows of one task.

    Of one permutation of the assay the first ``pool`` rows are reserved for supports, the rest is
    the query set, cut at ``max_query``: with equally seeded generators and one ``pool``, supports
    are nested and the query set is always the same. Fewer than two query rows are a DataError.
    """
    if not 0 <= shots <= pool:
        raise DataError(f"{shots} shots do not fit a support pool of {pool}", "ask for fewer")
    if len(assay) < pool + 2:
        problem = f"assay {assay.assay.id} has {len(assay)} variants, a support pool of {pool}"
        mend = "leave this assay out or ask for fewer shots"
        raise DataError(f"{problem} leaves fewer than two to predict", mend)
    order = rng.permutation(len(assay))
    query = order[pool:] if max_query is None else order[pool : pool + max_query]
    return make_task(assay, order[:shots], query)


def task_generator(seed: int, assay_id: str) -> np.random.Generator:
    """The generator of one assay's draws: the same for every method that is compared."""
    return np.random.default_rng(stable_seed("task", seed, assay_id))


def sample_tasks(
    assays: Sequence[EncodedAssay],
    n_tasks: int,
    *,
    support: int,
    query: int,
    rng: np.random.Generator,
) -> list[Task]:
    """Draw the tasks of one meta-step: a *protein*, then one of its assays, then the rows."""
    families: dict[str, list[EncodedAssay]] = {}
    for assay in assays:
        if len(assay) >= support + query:
            families.setdefault(assay.assay.protein, []).append(assay)
    if not families:
        problem = f"no meta-training assay has {support + query} variants"
        raise DataError(problem, "lower support or query size, or add assays")
    names = sorted(families)
    tasks = []
    for _ in range(n_tasks):
        family = families[names[rng.integers(len(names))]]
        assay = family[rng.integers(len(family))]
        rows = rng.choice(len(assay), size=support + query, replace=False)
        tasks.append(make_task(assay, rows[:support], rows[support:]))
    return tasks


def normal_scores(scores: np.ndarray) -> np.ndarray:
    """The normal quantiles of the scores' ranks, ``(r - 1/2) / n`` with average ranks r; ``(n,)``.

    >>> normal_scores(np.array([3.0, 1.0, 100.0])).round(2).tolist()
    [0.0, -0.97, 0.97]
    """
    # As norm.ppf and rankdata of scipy.stats, which takes half a second to load.
    ordered = np.sort(scores)
    ranks = sum(np.searchsorted(ordered, scores, side) for side in ("left", "right"))
    return ndtri(ranks / 2 / len(scores))


def with_normal_scores(assay: Assay) -> Assay:
    """The same assay with `normal_scores`, which have no unit; order and ties are kept.

    Otherwise meta-training would follow the few tasks, of assays with a far tail, whose errors are
    a hundred times the others'.
    """
    return replace(assay, scores=normal_scores(assay.scores), units="normal score")


def towards_normal(labels: torch.Tensor) -> torch.Tensor:
    r"""Labels ``(k,)`` of unit variance, moved by a share of k / (k + 50) to their `normal_scores`.

    A far tail would draw a model of all labels after itself; the ranks of few labels say little.
    The order is kept.

    >>> towards_normal(torch.tensor([-0.5, -0.4, -0.3, -0.2, 1.7])).double().numpy().round(2)
    array([-0.57, -0.41, -0.27, -0.13,  1.66])
    """
    normal = normal_scores(labels.cpu().numpy())
    normal = torch.from_numpy(normal / max(normal.std(ddof=1), _LEAST_SPREAD)).to(labels)
    return torch.lerp(labels, normal, len(labels) / (len(labels) + _HALF_WAY))
