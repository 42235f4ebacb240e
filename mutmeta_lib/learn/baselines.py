"""Controls that need no gradient step: ridge and Gaussian process, one-hot, BLOSUM62, the mean.

Each is a ``Method`` (see ``methods``): ``adapt(support) -> state``, ``predict(state, query)``.
Features come as a function of rows, so the same ridge serves embeddings and one-hot vectors.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from biotite.sequence.align import SubstitutionMatrix
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.linear_model import RidgeCV

from mutmeta_lib.data.variants import AMINO_ACIDS, apply_variant
from mutmeta_lib.models.embeddings import embed
from mutmeta_lib.models.encoders import Encoder
from mutmeta_lib.tasks.tasks import Examples, encode_assay

Features = Callable[[Examples], np.ndarray]
"""Examples -> feature matrix, ``(n, d)``."""

RIDGE_PENALTIES = np.logspace(-2, 4, 13)


def embedding_features(
    encoder: Encoder,
    encoding: str,
    pooling: str,
    *,
    device: str = "cpu",
    cache_dir: str | None = None,
) -> Features:
    """Embed whole assays when they are first asked for, once each, and look rows up.

    Features are standardised with the mean and standard deviation over all variants of the assay:
    their sequences are known before anything is measured, labels are not touched.
    """
    tables: dict[str, np.ndarray] = {}

    def features(examples: Examples) -> np.ndarray:
        assay = examples.assay.assay
        if assay.id not in tables:
            encoded = encode_assay(assay, encoding, encoder.vocabulary, encoder.max_tokens)
            how = {"device": device, "cache_dir": cache_dir}
            table = embed(encoder, encoded.tokens, pooling, **how)
            tables[assay.id] = _standardise(table)
        return tables[assay.id][examples.rows]

    return features


def _standardise(table: np.ndarray) -> np.ndarray:
    """Zero mean and unit variance per column; columns constant up to rounding become 0."""
    spread, mean = table.std(axis=0), table.mean(axis=0)
    return (table - mean) / np.where(spread > 1e-6 * (1 + np.abs(mean)), spread, np.inf)


def onehot_features(examples: Examples) -> np.ndarray:
    """One-hot encoded mutated sequences, ``(n, 20 * length)``; X is a row of zeros."""
    wild_type = examples.assay.assay.wild_type
    column = {letter: index for index, letter in enumerate(AMINO_ACIDS)}
    features = np.zeros((len(examples), len(wild_type), len(AMINO_ACIDS)), dtype=np.float32)
    for row, variant in enumerate(examples.variants):
        for site, letter in enumerate(apply_variant(variant, wild_type)):
            if letter in column:
                features[row, site, column[letter]] = 1.0
    return features.reshape(len(examples), -1)


@dataclass(frozen=True, eq=False)
class Ridge:
    """Ridge regression; the penalty is chosen by leave-one-out error on the support set.

    With fewer than three labels leave-one-out says nothing, and the support mean is predicted.
    """

    name: str
    features: Features

    def adapt(self, support: Examples, generator: torch.Generator) -> Any:
        """Fit on the support set."""
        if len(support) < 3:
            return None
        return RidgeCV(alphas=RIDGE_PENALTIES).fit(self.features(support), support.labels.numpy())

    def predict(self, state: Any, query: Examples) -> np.ndarray:
        """Predicted labels, ``(n,)``."""
        if state is None:
            return np.zeros(len(query))
        return state.predict(self.features(query))


@dataclass(frozen=True, eq=False)
class GaussianProcess:
    """Gaussian process with one RBF length scale and noise, fitted by marginal likelihood.

    The length scale starts at the square root of the number of features (the typical distance
    of standardised features). Fewer than three labels: the support mean.
    """

    name: str
    features: Features

    def adapt(self, support: Examples, generator: torch.Generator) -> Any:
        """Fit kernel parameters and weights on the support set."""
        if len(support) < 3:
            return None
        features = self.features(support)
        scale = features.shape[1] ** 0.5
        kernel = ConstantKernel(1.0, (0.05, 20.0)) * RBF(
            scale, (0.05 * scale, 20 * scale)
        ) + WhiteKernel(0.3, (1e-3, 2.0))
        model = GaussianProcessRegressor(kernel)
        with warnings.catch_warnings():
            # An optimum on a bound is common with ten labels and harmless: bounds are wide.
            warnings.simplefilter("ignore", ConvergenceWarning)
            return model.fit(features, support.labels.numpy())

    def predict(self, state: Any, query: Examples) -> np.ndarray:
        """Posterior mean of the labels, ``(n,)``."""
        if state is None:
            return np.zeros(len(query))
        return state.predict(self.features(query))


_MATRIX = SubstitutionMatrix.std_protein_matrix()  # BLOSUM62


def substitution_score(examples: Examples) -> np.ndarray:
    """BLOSUM62(wild type, mutant) summed over sites, ``(n,)``: high for conservative changes."""
    return np.array(
        [
            float(sum(_MATRIX.get_score(s.wild_type, s.mutant) for s in variant))
            for variant in examples.variants
        ]
    )


@dataclass(frozen=True)
class Blosum:
    """Zero-shot control: the BLOSUM62 score (doi:10.1073/pnas.89.22.10915), labels unused."""

    name: str = "blosum"

    def adapt(self, support: Examples, generator: torch.Generator) -> None:
        """Nothing to learn."""

    def predict(self, state: None, query: Examples) -> np.ndarray:
        """Standardised substitution scores, ``(n,)``."""
        return _standardise(substitution_score(query)[:, None])[:, 0]


@dataclass(frozen=True)
class SupportMean:
    """The support mean, label 0: the floor every error must beat."""

    name: str = "mean"

    def adapt(self, support: Examples, generator: torch.Generator) -> None:
        """Nothing to learn beyond the label scale."""

    def predict(self, state: None, query: Examples) -> np.ndarray:
        """Zeros, ``(n,)``."""
        return np.zeros(len(query))
