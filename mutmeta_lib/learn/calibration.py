r"""Give predictions at zero and one label a sensible scale: a slope and an offset per shots.

With a prior (``tasks.labels``) labels have a scale at any number of shots, but a meta-learned start
was trained to predict *after* adaptation: before it, predictions rank better than they measure.

.. math:: \hat y = a_k \, f(x) + b_k

with :math:`a_k, b_k` for k labels by least squares on assays that are not tested on. The order of
predictions never changes. Use meta-validation assays: on those that the start was trained on it is
surer of itself than on new proteins.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from mutmeta_lib.errors import DataError
from mutmeta_lib.learn.methods import Method
from mutmeta_lib.seeds import stable_seed
from mutmeta_lib.tasks.labels import Priors, prior_for
from mutmeta_lib.tasks.tasks import EncodedAssay, Examples, draw_task, task_generator

MIN_SLOPE = 1e-3
"""The least slope: where predictions say nothing of the labels, the order is kept all the same."""


class Affine(NamedTuple):
    """``slope * prediction + offset``."""

    slope: float
    offset: float


def fit_affine(predicted: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> Affine:
    """Weighted least squares of labels on predictions, all ``(n,)``; the slope is kept positive.

    >>> fit_affine(np.array([0.0, 1.0]), np.array([3.0, 5.0]), np.ones(2))
    Affine(slope=2.0, offset=3.0)
    """
    weights = weights / weights.sum()
    centre, level = weights @ predicted, weights @ labels
    variance = weights @ (predicted - centre) ** 2
    covariance = weights @ ((predicted - centre) * (labels - level))
    slope = max(float(covariance / variance), MIN_SLOPE) if variance > 0 else 1.0
    return Affine(slope, float(level - slope * centre))


@dataclass(frozen=True, eq=False)
class Calibrated:
    """A method whose predictions from k labels are mapped by ``maps[k]``, where there is one."""

    name: str
    method: Method
    maps: Mapping[int, Affine]

    def adapt(self, support: Examples, generator: torch.Generator) -> tuple[int, Any]:
        """Adapt the method; the number of labels is remembered."""
        return len(support), self.method.adapt(support, generator)

    def predict(self, state: tuple[int, Any], query: Examples) -> np.ndarray:
        """Predicted labels, ``(n,)``."""
        slope, offset = self.maps.get(state[0], Affine(1.0, 0.0))
        return slope * self.method.predict(state[1], query) + offset

    @property
    def ranks_only(self) -> bool:
        """As the method: numbers of labels that were not calibrated for have no scale."""
        return getattr(self.method, "ranks_only", False)


def calibrate(
    method: Method,
    assays: Sequence[EncodedAssay],
    priors: Priors,
    *,
    shots: Sequence[int] = (0, 1),
    seed: int = 0,
    draws: int = 4,
    max_query: int = 64,
) -> Calibrated:
    """Learn the maps of a method, for each of ``shots`` labels, on assays it is not tested on.

    Assays without a prior are not used, as zero labels have no scale there. Of each of the others
    ``draws`` supports are drawn; every assay has the same weight.

    Raises:
        DataError: no assay has a prior.

    """
    known = [(assay, prior_for(priors, assay.assay)) for assay in assays]
    known = [(assay, prior) for assay, prior in known if prior is not None]
    if not known:
        raise DataError(
            "no assay to calibrate on has a label prior (property and units)",
            "calibrate on assays in units of the meta-training assays",
        )
    maps = {}
    for k in shots:
        predicted, labels, weights = [], [], []
        for assay, prior in known:
            for draw in range(draws):
                rng = task_generator(stable_seed("calibration", seed, draw), assay.assay.id)
                pool = max(shots)
                task = draw_task(assay, k, rng, pool=pool, max_query=max_query, prior=prior)
                generator = torch.Generator().manual_seed(stable_seed("calibration", seed, draw, k))
                state = method.adapt(task.support, generator)
                predicted.append(np.asarray(method.predict(state, task.query), dtype=float))
                labels.append(task.query.labels.numpy().astype(float))
                weights.append(np.full(len(task.query), 1 / len(task.query)))
        maps[k] = fit_affine(*map(np.concatenate, (predicted, labels, weights)))
    return Calibrated(method.name, method, maps)
