"""Labels: measured scores on the scale that a predictor is trained on.

A task's scale is fitted on its support alone (`LabelScale`). Zero or one label identifies no scale.
Labels of *training and validation* assays are all known, so these may be given normal scores, which
tame far tails (`with_normal_scores`); test assays keep what was measured.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.stats import norm, rankdata

from mutmeta_lib.data.assays import Assay


@dataclass(frozen=True)
class LabelScale:
    """The affine map between measured scores and the labels a predictor is trained on.

    Location is the mean of the support (0 without a label), scale its standard deviation (ddof 1).
    Fewer than two labels, or equal ones, identify no scale; it is then 1, and errors in measured
    units are not defined.
    """

    location: float
    scale: float
    identified: bool

    @classmethod
    def fit(cls, scores: np.ndarray) -> LabelScale:
        """Fit on the support scores, shape ``(k,)``.

        >>> LabelScale.fit(np.array([1.0, 3.0]))
        LabelScale(location=2.0, scale=1.4142135623730951, identified=True)
        >>> LabelScale.fit(np.array([5.0])).identified
        False
        """
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


def with_normal_scores(assay: Assay) -> Assay:
    """The same assay with the normal quantiles of its scores' ranks, which have no unit.

    Order and ties are kept: ``(r - 1/2) / n`` with average ranks r. Scaled by ten support labels,
    an assay with two modes or one far tail gives a few tasks whose errors are a hundred times
    those of others, and meta-training would follow these.
    """
    ranks = rankdata(assay.scores)
    return replace(assay, scores=norm.ppf((ranks - 0.5) / len(ranks)), units="normal score")
