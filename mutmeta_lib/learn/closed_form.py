r"""Heads that are solved on a support set, not descended to: ridge regression, Gaussian process.

The outer loop learns the encoder *through* the solution. With h the pooled encoder output, of width
d, H that of the k support examples, one a row, and y their labels:

**R2-D2** (Bertinetto et al. 2019, arXiv 1805.08136). With a column of ones added to H,

.. math:: w = H^\top (H H^\top + \lambda I)^{-1} y, \qquad \hat y = a \, w^\top h + b

which is ridge regression, the ones penalised too. :math:`\log\lambda`, a and b are learned.

**Deep kernel transfer** (Patacchiola et al. 2020, arXiv 1910.05199). The labels of a task are a
Gaussian process with mean :math:`\mu` and kernel

.. math:: k(h, h') = a_1 \, \frac{h^\top h'}{d}
   + a_2 \exp\Bigl(-\frac{\lVert h - h' \rVert^2}{2 \ell^2 d}\Bigr), \qquad
   \hat y = \mu + k(h, H) (K + \sigma^2 I)^{-1} (y - \mu)

The outer loop maximises the *marginal likelihood* of all labels of a task: the query error of the
posterior mean would fix only the ratio of amplitude to noise.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from mutmeta_lib.learn.inner import InnerLoop, Loss
from mutmeta_lib.models.predictor import Params, Predictor
from mutmeta_lib.tasks.tasks import Examples


@dataclass(frozen=True, eq=False)
class SolvedPredictor(Predictor):
    """A predictor whose head is solved; ``numbers`` are learned besides, and begin so."""

    numbers: ClassVar[dict[str, float]]

    @classmethod
    def of(cls, predictor: Predictor) -> Self:
        """The same encoder and pooling with this head."""
        return cls(**{**vars(predictor), "hidden": ()})

    def prepare(self, params: Params, loop: InnerLoop | None = None) -> Params:
        """The encoder's parameters out of ``params``, and a fresh head; no random numbers."""
        start = {name: value for name, value in params.items() if name.startswith("encoder.")}
        like = next(iter(params.values()))
        return start | {name: like.new_full((), v) for name, v in self.numbers.items()}

    def update(self, loss: Loss, params: Params, support: Examples, loop: InnerLoop) -> Params:
        """What was learned stays, and what ``solve`` makes of the labels joins it."""
        return {**params, **self.solve(params, *self.data(params, support))} if support else params

    def data(self, params: Params, examples: Examples) -> tuple[Tensor, Tensor]:
        """Pooled encoder outputs ``(k, d)`` and labels ``(k,)``."""
        device = next(iter(params.values())).device
        inputs = self.pooled(params, examples.tokens.to(device))
        return inputs, examples.labels.to(inputs)


def ridge_weights(features: Tensor, labels: Tensor, penalty: Tensor) -> Tensor:
    """Ridge regression weights ``(d,)`` of features ``(k, d)`` and labels ``(k,)``, differentiable.

    >>> ridge_weights(torch.eye(2), torch.tensor([2.0, 4.0]), torch.tensor(1.0))
    tensor([1., 2.])
    """
    gram = features @ features.T
    shift = penalty * torch.eye(len(labels), dtype=gram.dtype, device=gram.device)
    return features.T @ torch.linalg.solve(gram + shift, labels)


@dataclass(frozen=True, eq=False)
class RidgePredictor(SolvedPredictor):
    """R2-D2: every task replaces ``ridge.weight``; the start's zeros predict the offset."""

    numbers = {"ridge.log_penalty": 0.0, "ridge.scale": 1.0, "ridge.offset": 0.0}  # noqa: RUF012

    def prepare(self, params: Params, loop: InnerLoop | None = None) -> Params:
        """As every solved head, and a weight of zeros, ``(width + 1,)``."""
        start = super().prepare(params)
        return start | {"ridge.weight": start["ridge.scale"].new_zeros(self.encoder.width + 1)}

    def head(self, params: Params, pooled: Tensor, generator=None) -> Tensor:
        """Labels ``(n,)`` from pooled embeddings ``(n, width)``."""
        linear = pooled @ params["ridge.weight"][:-1] + params["ridge.weight"][-1]
        return params["ridge.scale"] * linear + params["ridge.offset"]

    def solve(self, params: Params, inputs: Tensor, labels: Tensor) -> Params:
        """The ridge weights."""
        features = torch.cat([inputs, torch.ones_like(inputs[:, :1])], dim=1)
        return {"ridge.weight": ridge_weights(features, labels, params["ridge.log_penalty"].exp())}


def kernel(params: Params, left: Tensor, right: Tensor) -> Tensor:
    """Covariances ``(n, m)`` of the labels of ``left`` ``(n, d)`` and ``right`` ``(m, d)``."""
    width = left.shape[1]
    # Distances do not depend on the origin; one amid the points spares float32 a cancellation.
    origin = right.detach().mean(dim=0)
    a, b = left - origin, right - origin
    squared = (a * a).sum(1)[:, None] + (b * b).sum(1)[None, :] - 2 * a @ b.T
    decay = squared.clamp(min=0) / (2 * width * (2 * params["kernel.log_length"]).exp())
    linear = params["kernel.log_linear"].exp() * (left @ right.T) / width
    return linear + params["kernel.log_rbf"].exp() * (-decay).exp()


def factor(params: Params, inputs: Tensor) -> Tensor:
    """Lower Cholesky factor ``(k, k)`` of the covariance of noisy labels at ``inputs`` ``(k, d)``.

    A jitter of 10 k rounding units of the mean variance joins the noise, so that equal inputs do no
    harm in float32. A matrix that is still not positive definite, or not finite, gives NaN.
    """
    covariance = kernel(params, inputs, inputs)
    k = len(inputs)
    jitter = 10 * k * torch.finfo(inputs.dtype).eps * covariance.detach().diagonal().mean()
    shift = (params["kernel.log_noise"].exp() + jitter) * torch.eye(k).to(covariance)
    lower, failed = torch.linalg.cholesky_ex(covariance + shift)
    return torch.where(failed > 0, torch.nan, lower)


@dataclass(frozen=True, eq=False)
class DeepKernelPredictor(SolvedPredictor):
    """Deep kernel transfer; the first noise, exp(-1.2) = 0.3, is for labels of unit variance."""

    numbers = dict.fromkeys(
        ("kernel.mean", "kernel.log_linear", "kernel.log_rbf", "kernel.log_length"), 0.0
    ) | {"kernel.log_noise": -1.2}

    def head(self, params: Params, pooled: Tensor, generator=None) -> Tensor:
        """Posterior mean of the labels ``(n,)`` from pooled embeddings ``(n, width)``."""
        mean = params["kernel.mean"].expand(len(pooled))
        if "kernel.inputs" not in params:
            return mean
        return mean + kernel(params, pooled, params["kernel.inputs"]) @ params["kernel.weights"]

    def solve(self, params: Params, inputs: Tensor, labels: Tensor) -> Params:
        """The process on the labels: inputs ``(k, d)`` and weights ``(k,)``."""
        residual = (labels - params["kernel.mean"])[:, None]
        weights = torch.cholesky_solve(residual, factor(params, inputs))[:, 0]
        return {"kernel.inputs": inputs, "kernel.weights": weights}

    def surprise(self, params: Params, examples: Examples) -> Tensor:
        """Negative log marginal likelihood per label, a scalar."""
        inputs, labels = self.data(params, examples)
        lower = factor(params, inputs)
        residual = (labels - params["kernel.mean"])[:, None]
        white = torch.linalg.solve_triangular(lower, residual, upper=False)
        log_volume = lower.diagonal().log().sum()
        return (0.5 * (white**2).sum() + log_volume) / len(labels) + 0.5 * math.log(2 * math.pi)
