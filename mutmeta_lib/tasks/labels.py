r"""Labels: measured scores on the scale that a predictor is trained on.

A task's scale is fitted on its support alone (`LabelScale`). Zero or one label identifies no scale.
Assays of one property in one unit are alike, though, and how alike can be learned from those of
meta-training: empirical Bayes (`LabelPrior`). With k support scores of mean :math:`\bar y` and
variance :math:`s^2`,

.. math:: \text{location} = \frac{\kappa \mu + k \bar y}{\kappa + k}, \qquad
   \text{scale}^2 = \frac{\nu \sigma^2 + (k - 1)\, s^2}{\nu + k - 1}
   \quad (\text{for } k = 0: \sigma^2)

so that without labels the prior is used as it is, and with many it does not matter. The weights
:math:`\kappa` and :math:`\nu`, in labels, follow from how much assays differ: little, and the prior
is worth many labels. Variances shrink as in Smyth (2004, Statistical Applications in Genetics and
Molecular Biology 3, article 3). Assays count alike; where most of them are of one protein, the
prior is largely that protein's.

Labels of *training and validation* assays are all known, so these may be given normal scores, which
tame far tails (`with_normal_scores`); test assays keep what was measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import digamma, polygamma
from scipy.stats import norm, rankdata

from mutmeta_lib.data.assays import Assay
from mutmeta_lib.errors import DataError

MAX_WEIGHT = 100.0
"""The most labels a prior is worth, so that enough of them always outweigh it."""


@dataclass(frozen=True)
class LabelScale:
    """The affine map between measured scores and the labels a predictor is trained on.

    Location is the mean of the support (0 without a label), scale its standard deviation (ddof 1).
    Fewer than two labels, or equal ones, identify no scale; it is then 1, and errors in measured
    units are not defined. A prior identifies a scale at any number of labels.
    """

    location: float
    scale: float
    identified: bool

    @classmethod
    def fit(cls, scores: np.ndarray, prior: LabelPrior | None = None) -> LabelScale:
        """Fit on the support scores, shape ``(k,)``; with a prior, shrink towards it.

        >>> LabelScale.fit(np.array([1.0, 3.0]))
        LabelScale(location=2.0, scale=1.4142135623730951, identified=True)
        >>> LabelScale.fit(np.array([5.0])).identified
        False
        """
        if prior is not None:
            return cls(*prior.shrink(scores), identified=True)
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


@dataclass(frozen=True)
class LabelPrior:
    """Location and scale to expect of an assay, in its units, and how many labels each is worth.

    The scale's weight counts as degrees of freedom; `n_assays` is how many it was learned from.
    """

    location: float
    scale: float
    location_weight: float
    scale_weight: float
    n_assays: int

    def shrink(self, scores: np.ndarray) -> tuple[float, float]:
        """Location and scale of an assay of which the support scores ``(k,)`` are known.

        >>> prior = LabelPrior(1.0, 2.0, location_weight=3.0, scale_weight=4.0, n_assays=9)
        >>> prior.shrink(np.array([])), prior.shrink(np.array([5.0]))
        ((1.0, 2.0), (2.0, 2.0))
        """
        k = len(scores)
        total = self.location_weight * self.location + float(np.sum(scores))
        squares = float(np.sum((scores - np.mean(scores)) ** 2)) if k else 0.0
        freedom = self.scale_weight + max(k - 1, 0)
        variance = (self.scale_weight * self.scale**2 + squares) / freedom
        return total / (self.location_weight + k), variance**0.5


Priors = Mapping[tuple[str, str], LabelPrior]
"""(property, units) -> prior."""


def learn_label_priors(assays: Sequence[Assay]) -> dict[tuple[str, str], LabelPrior]:
    """A prior for every property and stated unit that two or more meta-training assays have.

    Raises `DataError` where an assay has equal scores (or one score) only.
    """
    groups: dict[tuple[str, str], list[Assay]] = {}
    for assay in assays:
        if assay.units:
            groups.setdefault((assay.property, assay.units), []).append(assay)
    return {key: _learn(group) for key, group in groups.items() if len(group) > 1}


def prior_for(priors: Priors | None, assay: Assay) -> LabelPrior | None:
    """The prior for an assay's property and units, if there is one."""
    return None if priors is None else priors.get((assay.property, assay.units))


def _learn(assays: Sequence[Assay]) -> LabelPrior:
    """The prior of two or more assays in one unit, by moments of means and log variances."""
    for assay in assays:
        if len(assay) < 2 or np.ptp(assay.scores) == 0:
            raise DataError(
                f"the scores of assay {assay.id} have no spread", "leave this assay out"
            )
    counts = np.array([len(assay) for assay in assays])
    means = np.array([assay.scores.mean() for assay in assays])
    variances = np.array([assay.scores.var(ddof=1) for assay in assays])
    # A sample variance is a multiple of chi-squared: its logarithm has a known bias and spread.
    half = (counts - 1) / 2
    logs = np.log(variances) - digamma(half) + np.log(half)
    spread = logs.var(ddof=1) - polygamma(1, half).mean()
    weight = 2 * _inverse_trigamma(spread)
    scale = np.exp((logs.mean() + digamma(weight / 2) - np.log(weight / 2)) / 2)
    between = means.var(ddof=1) - (variances / counts).mean()
    # A new assay differs from the mean of n others by more than they differ among themselves.
    away = max(between, 0.0) * (1 + 1 / len(assays))
    location_weight = scale**2 / max(away, scale**2 / MAX_WEIGHT)
    return LabelPrior(
        float(means.mean()), float(scale), float(location_weight), float(weight), len(assays)
    )


def _inverse_trigamma(value: float) -> float:
    """The x whose trigamma function is ``value``; half the largest weight where that is more."""
    most = MAX_WEIGHT / 2
    if value <= polygamma(1, most):
        return most
    # Between these bounds lies every value below 1e8: trigamma(x) is about 1 / x**2 near zero.
    return brentq(lambda x: float(polygamma(1, x)) - value, 1e-4, most)


def with_normal_scores(assay: Assay) -> Assay:
    """The same assay with the normal quantiles of its scores' ranks, which have no unit.

    Order and ties are kept: ``(r - 1/2) / n`` with average ranks r. Scaled by ten support labels,
    an assay with two modes or one far tail gives a few tasks whose errors are a hundred times
    those of others, and meta-training would follow these.
    """
    ranks = rankdata(assay.scores)
    return replace(assay, scores=norm.ppf((ranks - 0.5) / len(ranks)), units="normal score")
