r"""What meta-training assays say about the location and scale of a new assay's scores.

Zero or one label identifies no scale (``tasks.LabelScale``). Assays of one property in one unit are
alike, though, and how alike can be learned from those of meta-training: empirical Bayes. With k
support scores of mean :math:`\bar y` and variance :math:`s^2`,

.. math:: \text{location} = \frac{\kappa \mu + k \bar y}{\kappa + k}, \qquad
   \text{scale}^2 = \frac{\nu \sigma^2 + (k - 1)\, s^2}{\nu + k - 1}
   \quad (\text{for } k = 0: \sigma^2)

so that without labels the prior is used as it is, and with many it does not matter. The weights
:math:`\kappa` and :math:`\nu`, in labels, follow from how much assays differ: little, and the prior
is worth many labels. The shrinkage of variances is that of Smyth (2004, Statistical Applications in
Genetics and Molecular Biology 3, article 3); that of means is the usual normal one.

No label of the assay at hand is used but its support's. A unit that occurs in fewer than two
meta-training assays has no prior: there is nothing to learn from. Assays count alike; where most of
them are of one protein, the prior is largely that protein's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import digamma, polygamma

from mutmeta_lib.data.assays import Assay
from mutmeta_lib.errors import DataError

MAX_WEIGHT = 100.0
"""The most labels a prior is worth, so that enough of them always outweigh it."""


@dataclass(frozen=True)
class LabelPrior:
    """Location and scale to expect of an assay, in its units, and what that is worth in labels.

    Attributes:
        location: Mean of the assays' means.
        scale: Typical standard deviation within an assay.
        location_weight: The location is worth so many labels.
        scale_weight: The scale is worth so many labels (degrees of freedom).
        n_assays: Number of assays it was learned from.

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
        variance = (self.scale_weight * self.scale**2 + squares) / (
            self.scale_weight + max(k - 1, 0)
        )
        return total / (self.location_weight + k), variance**0.5


def learn_label_prior(assays: Sequence[Assay]) -> LabelPrior:
    """The prior of assays in one unit, by moments of their means and log variances.

    Raises:
        DataError: There are fewer than two assays, or one with equal scores (or one score) only.

    """
    if len(assays) < 2:
        raise DataError(
            f"{len(assays)} assay cannot show how assays differ", "learn the prior from two or more"
        )
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
    scale_weight = 2 * _inverse_trigamma(spread)
    scale = np.exp((logs.mean() + digamma(scale_weight / 2) - np.log(scale_weight / 2)) / 2)
    between = means.var(ddof=1) - (variances / counts).mean()
    # A new assay differs from the mean of n others by more than they differ among themselves.
    away = max(between, 0.0) * (1 + 1 / len(assays))
    return LabelPrior(
        location=float(means.mean()),
        scale=float(scale),
        location_weight=float(scale**2 / max(away, scale**2 / MAX_WEIGHT)),
        scale_weight=float(scale_weight),
        n_assays=len(assays),
    )


def _inverse_trigamma(value: float) -> float:
    """The x whose trigamma function is ``value``; half the largest weight where that is more."""
    most = MAX_WEIGHT / 2
    if value <= polygamma(1, most):
        return most
    # Between these bounds lies every value below 1e8: trigamma(x) is about 1 / x**2 near zero.
    return brentq(lambda x: float(polygamma(1, x)) - value, 1e-4, most)


Priors = Mapping[tuple[str, str], LabelPrior]
"""(property, units) -> prior."""


def learn_label_priors(assays: Sequence[Assay]) -> dict[tuple[str, str], LabelPrior]:
    """A prior for every property and unit of which there are two assays or more.

    Args:
        assays: Meta-training assays, never those that are tested on. Assays without a stated unit
            belong together with no other, so they give no prior.

    """
    groups: dict[tuple[str, str], list[Assay]] = {}
    for assay in assays:
        if assay.units:
            groups.setdefault((assay.property, assay.units), []).append(assay)
    return {key: learn_label_prior(group) for key, group in groups.items() if len(group) > 1}


def prior_for(priors: Priors | None, assay: Assay) -> LabelPrior | None:
    """The prior for an assay's property and units, if there is one."""
    return None if priors is None else priors.get((assay.property, assay.units))
