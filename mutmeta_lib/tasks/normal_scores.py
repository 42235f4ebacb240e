"""Normal scores: the labels of a training assay with its order kept and its tails tamed.

Scaled by ten support labels, an assay with two modes or one far tail gives a few tasks whose errors
are a hundred times those of others, and meta-training follows these. Labels of *training and
validation* assays are all known, so they may be replaced by the normal quantiles of their ranks;
test assays keep what was measured.
"""

from dataclasses import replace

import numpy as np
from scipy.stats import norm, rankdata

from mutmeta_lib.data.assays import Assay


def normal_scores(scores: np.ndarray) -> np.ndarray:
    """Normal quantiles of average ranks, ``(r - 1/2) / n``; equal scores stay equal; ``(n,)``.

    >>> normal_scores(np.array([7.0, -1.0, 900.0])).round(3).tolist()
    [0.0, -0.967, 0.967]
    """
    return norm.ppf((rankdata(scores) - 0.5) / len(scores))


def with_normal_scores(assay: Assay) -> Assay:
    """The same assay with normal scores in the place of measured ones; they have no unit."""
    return replace(assay, scores=normal_scores(assay.scores), units="normal score")
