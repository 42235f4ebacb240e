"""Methods without a gradient step: ridge and Gaussian process, one-hot, BLOSUM62, the mean."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from biotite.sequence.align import SubstitutionMatrix
from scipy.sparse import csr_array, issparse

from mutmeta_lib.data.variants import AMINO_ACIDS
from mutmeta_lib.models.embed import embed, standardise
from mutmeta_lib.models.encoder import Encoder
from mutmeta_lib.tasks.tasks import Examples, encode_assay, towards_normal

Features = Callable[[Examples], np.ndarray]
"""Examples -> feature matrix, ``(n, d)``, which may be sparse."""

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


def onehot_features(examples: Examples) -> csr_array:
    """One-hot encoded mutated sequences less that of the wild type, sparse ``(n, 20 * length)``.

    The wild type's share is the same in all rows, so that a model with an intercept ignores it; X
    is a row of zeros.
    """
    column = {letter: index for index, letter in enumerate(AMINO_ACIDS)}
    rows, columns, values = [], [], []
    for row, variant in enumerate(examples.variants):
        for one in variant:
            for letter, value in ((one.wild_type, -1.0), (one.mutant, 1.0)):
                if letter in column:
                    rows.append(row)
                    columns.append((one.position - 1) * len(AMINO_ACIDS) + column[letter])
                    values.append(value)
    shape = len(examples), len(examples.assay.assay.wild_type) * len(AMINO_ACIDS)
    return csr_array((values, (rows, columns)), shape=shape, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Ridge:
    """Ridge regression, penalty by leave-one-out; under three labels, the support mean."""

    name: str
    features: Features

    def model(self, width: int) -> Any:
        """The regressor of scikit-learn, for features ``(n, width)``."""
        from sklearn.linear_model import RidgeCV  # slow to import, here and below

        return RidgeCV(alphas=RIDGE_PENALTIES)

    def adapt(self, support: Examples, generator: torch.Generator) -> Any:
        """Fit on the support set; of sparse features only on the columns that it has."""
        if len(support) < 3:
            return None
        from sklearn.exceptions import ConvergenceWarning

        features, columns = self.features(support), None
        if issparse(features):
            columns = np.unique(features.indices)
            features = features[:, columns].toarray()
        with warnings.catch_warnings():
            # An optimum on a bound is common with ten labels and harmless: bounds are wide.
            warnings.simplefilter("ignore", ConvergenceWarning)
            return self.model(features.shape[1]).fit(features, self.targets(support)), columns

    def targets(self, support: Examples) -> np.ndarray:
        """What is regressed on, ``(n,)``."""
        return support.labels.numpy()

    def predict(self, state: Any, query: Examples) -> np.ndarray:
        """Predicted labels, ``(n,)``."""
        if state is None:
            return nothing(query)
        (model, columns), features = state, self.features(query)
        return model.predict(features if columns is None else features[:, columns].toarray())


@dataclass(frozen=True, eq=False)
class WithPrior(Ridge):
    """Ridge regression on what a score without labels, times ``slope``, leaves of the labels."""

    score: Callable[[Examples], np.ndarray]
    slope: float = 0.7

    def targets(self, support: Examples) -> np.ndarray:
        """The labels, moved as the ranker's are, less their prior mean."""
        return towards_normal(support.labels).numpy() - self.slope * self.score(support)

    def predict(self, state: Any, query: Examples) -> np.ndarray:
        """Predicted labels, ``(n,)``; under three labels, their prior mean."""
        return self.slope * self.score(query) + super().predict(state, query)


class GaussianProcess(Ridge):
    """In the place of ridge a Gaussian process with one RBF length scale and noise."""

    def model(self, width: int) -> Any:
        """The length scale starts at the typical distance of standardised features."""
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

        scale = width**0.5
        rbf = ConstantKernel(1.0, (0.05, 20.0)) * RBF(scale, (0.05 * scale, 20 * scale))
        return GaussianProcessRegressor(rbf + WhiteKernel(0.3, (1e-3, 2.0)))

    def deviation(self, state: Any, query: Examples) -> np.ndarray:
        """Predictive standard deviation with noise, ``(n,)``; without a fit that of the support."""
        if state is None:
            return np.ones(len(query))
        return state[0].predict(self.features(query), return_std=True)[1]


class GaussianProcessWithPrior(WithPrior, GaussianProcess):
    """A Gaussian process in the place of ridge on what the score leaves, as sure as it is of it."""


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
