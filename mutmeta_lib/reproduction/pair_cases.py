"""Two assays of one protein as vectors: how they agree, and what the one says of the other."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import RidgeCV

from mutmeta_lib.learn.baselines import RIDGE_PENALTIES, Features
from mutmeta_lib.models.encoders import Encoder
from mutmeta_lib.reproduction.assay_pairs import Pair
from mutmeta_lib.study.frozen_heads import freeze_assays
from mutmeta_lib.tasks.metrics import spearman
from mutmeta_lib.tasks.tasks import EncodedAssay, Examples, Task


@dataclass(frozen=True, eq=False)
class Case:
    """A pair with its vectors, and the cluster that its protein belongs to."""

    pair: Pair
    frozen_a: EncodedAssay
    frozen_b: EncodedAssay
    features: Features
    cluster: int

    def turned(self) -> "Case":
        """The same pair the other way round."""
        return Case(self.pair.turned(), self.frozen_b, self.frozen_a, self.features, self.cluster)


def read_case(pair: Pair, encoder: Encoder, clusters: Mapping[str, int], **how) -> Case:
    """Run the encoder on both assays of a pair; ``how`` as in `freeze_assays`."""
    both = freeze_assays(encoder, [pair.a, pair.b], **how)
    a, b = both.assays[pair.a.id], both.assays[pair.b.id]
    return Case(pair, a, b, both.features, clusters[pair.b.wild_type])


def overlap(case: Case) -> dict:
    """How the two assays agree on the variants that both hold."""
    pair = case.pair
    rows = sorted(pair.shared)
    other = [pair.shared[row] for row in rows]
    scores = pair.a.scores[rows], pair.b.scores[other]
    defined = len(rows) > 2 and np.ptp(scores[0]) > 0 and np.ptp(scores[1]) > 0
    return {
        "kind": pair.kind,
        "a": pair.a.id,
        "b": pair.b.id,
        "cluster": case.cluster,
        "n_a": len(pair.a),
        "n_b": len(pair.b),
        "shared": len(rows),
        "spearman": spearman(*scores) if defined else float("nan"),
    }


class FromA:
    """What A says of B's variants: its score where it measured them, else a ridge model's guess."""

    def __init__(self, case: Case, support: Examples):
        labels = support.labels.numpy()
        vectors = case.features(support)
        model = RidgeCV(alphas=RIDGE_PENALTIES).fit(vectors, labels)
        everything = Examples(
            case.frozen_b, np.arange(len(case.pair.b)), torch.zeros(len(case.pair.b))
        )
        self.features = case.features
        self.known = model.predict(case.features(everything))
        for row, other in case.pair.shared.items():
            self.known[other] = labels[row]

    def scores(self, query: Examples) -> np.ndarray:
        """A's word alone."""
        return self.known[query.rows]

    def predict(self, task: Task) -> np.ndarray:
        """Ridge on vectors and A's word, which counts as much as all of the vectors together."""
        if len(task.support) < 3:
            return self.scores(task.query)
        model = RidgeCV(alphas=RIDGE_PENALTIES)
        model.fit(self._both(task.support), task.support.labels.numpy())
        return model.predict(self._both(task.query))

    def _both(self, examples: Examples) -> np.ndarray:
        vectors = self.features(examples)
        word = self.known[examples.rows] * vectors.shape[1] ** 0.5
        return np.column_stack([vectors, word])
