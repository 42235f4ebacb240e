"""Methods without a gradient step: ridge and Gaussian process, one-hot, BLOSUM62, the mean."""

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
from mutmeta_lib.models.embed import embed, standardise
from mutmeta_lib.models.encoder import Encoder
from mutmeta_lib.tasks.tasks import Examples, encode_assay

Features = Callable[[Examples], np.ndarray]
"""Examples -> feature matrix, ``(n, d)``."""

RIDGE_PENALTIES = np.logspace(-2, 4, 13)


def embedding_features(encoder: Encoder, encoding: str, pooling: str, **how: Any) -> Features:
    """Embed each assay when it is first asked for (``how`` is for `embed`), and look rows up.

    Features are standardised over all variants of the assay, which are known before any label.
    """
    tables: dict[str, np.ndarray] = {}

    def features(examples: Examples) -> np.ndarray:
        assay = examples.assay.assay
        if assay.id not in tables:
            encoded = encode_assay(assay, encoding, encoder.vocabulary, encoder.max_tokens)
            vectors = torch.from_numpy(embed(encoder, encoded.tokens, pooling, **how))
            tables[assay.id] = standardise(vectors).numpy()
        return tables[assay.id][examples.rows]

    return features


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
    """Ridge regression, penalty by leave-one-out; under three labels, the support mean."""

    name: str
    features: Features

    def model(self, width: int) -> Any:
        """The regressor of scikit-learn, for features ``(n, width)``."""
        return RidgeCV(alphas=RIDGE_PENALTIES)

    def adapt(self, support: Examples, generator: torch.Generator) -> Any:
        """Fit on the support set."""
        if len(support) < 3:
            return None
        features = self.features(support)
        with warnings.catch_warnings():
            # An optimum on a bound is common with ten labels and harmless: bounds are wide.
            warnings.simplefilter("ignore", ConvergenceWarning)
            return self.model(features.shape[1]).fit(features, support.labels.numpy())

    def predict(self, state: Any, query: Examples) -> np.ndarray:
        """Predicted labels, ``(n,)``."""
        return nothing(query) if state is None else state.predict(self.features(query))


class GaussianProcess(Ridge):
    """In the place of ridge a Gaussian process with one RBF length scale and noise."""

    def model(self, width: int) -> Any:
        """The length scale starts at the typical distance of standardised features."""
        scale = width**0.5
        rbf = ConstantKernel(1.0, (0.05, 20.0)) * RBF(scale, (0.05 * scale, 20 * scale))
        return GaussianProcessRegressor(rbf + WhiteKernel(0.3, (1e-3, 2.0)))

    def deviation(self, state: Any, query: Examples) -> np.ndarray:
        """Predictive standard deviation with noise, ``(n,)``; without a fit that of the support."""
        if state is None:
            return np.ones(len(query))
        return state.predict(self.features(query), return_std=True)[1]


@dataclass(frozen=True, eq=False)
class Scored:
    """A control that uses no label: a score of each variant."""

    name: str
    score: Callable[[Examples], np.ndarray]

    def adapt(self, support: Examples, generator: torch.Generator) -> None:
        """Nothing to learn beyond the label scale."""

    def predict(self, state: None, query: Examples) -> np.ndarray:
        """The scores, ``(n,)``."""
        return self.score(query)


def substitution_score(examples: Examples) -> np.ndarray:
    """BLOSUM62(wild type, mutant) summed over sites, ``(n,)``: high for conservative changes."""
    score = SubstitutionMatrix.std_protein_matrix().get_score  # BLOSUM62
    changes = [[(s.wild_type, s.mutant) for s in variant] for variant in examples.variants]
    return np.array([float(sum(score(*pair) for pair in one)) for one in changes])


def blosum(examples: Examples) -> np.ndarray:
    """Standardised BLOSUM62 scores (doi:10.1073/pnas.89.22.10915), ``(n,)``."""
    return standardise(torch.from_numpy(substitution_score(examples))[:, None])[:, 0].numpy()


def nothing(examples: Examples) -> np.ndarray:
    """Label 0, the support mean, ``(n,)``: the floor every error must beat."""
    return np.zeros(len(examples))
