r"""A Gaussian process on a meta-learned encoder: deep kernel transfer (arXiv 1910.05199).

With h the pooled encoder output, of width d, the labels of a task are a Gaussian process with mean
:math:`\mu` and kernel

.. math:: k(h, h') = a_1 \, \frac{h^\top h'}{d}
   + a_2 \exp\Bigl(-\frac{\lVert h - h' \rVert^2}{2 \ell^2 d}\Bigr), \qquad
   \hat y = \mu + k(h, H) (K + \sigma^2 I)^{-1} (y - \mu)

where H are the support's vectors and K is their kernel matrix. The linear part alone is R2-D2's
head; the second part (RBF) lets the response bend. Adapting is conditioning: nothing descends.

The outer loop maximises the *marginal likelihood* of all labels of a task (Patacchiola et al.
2020), not the query error of the posterior mean as R2-D2 does: the mean depends on
:math:`a_1, a_2, \sigma^2` through their ratios only, so a squared error would leave the posterior
*variance* without a scale. It needs no query set; ``algorithms`` gives it the labels that the
others see in support and query.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad_and_value

from mutmeta_lib.learn.inner import InnerLoop, Loss
from mutmeta_lib.learn.meta import TaskGradient
from mutmeta_lib.models.predictor import Params, Predictor
from mutmeta_lib.tasks.batches import TokenBatch
from mutmeta_lib.tasks.tasks import Examples

START = {"mean": 0.0, "log_linear": 0.0, "log_rbf": 0.0, "log_length": 0.0, "log_noise": -1.2}
"""The head before meta-training, on labels of unit variance; the noise, exp(-1.2) = 0.3, is where
``baselines.GaussianProcess`` starts too."""


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

    A jitter of 10 k rounding units of the mean variance is added to the noise, so that equal inputs
    do no harm in float32. A matrix that is not positive definite in spite of it, or not finite,
    gives NaN, which meta-training reports with the task's name.
    """
    covariance = kernel(params, inputs, inputs)
    k = len(inputs)
    jitter = 10 * k * torch.finfo(inputs.dtype).eps * covariance.detach().diagonal().mean()
    shift = (params["kernel.log_noise"].exp() + jitter) * torch.eye(k).to(covariance)
    lower, failed = torch.linalg.cholesky_ex(covariance + shift)
    return torch.where(failed > 0, torch.nan, lower)


@dataclass(frozen=True, eq=False)
class DeepKernelPredictor(Predictor):
    """A predictor whose head is a Gaussian process.

    Parameters are ``encoder.*`` and five numbers, ``kernel.mean`` and the logarithms of two
    amplitudes, length scale and noise. Conditioning on k labels adds ``kernel.inputs`` ``(k, d)``,
    ``kernel.factor`` ``(k, k)`` and ``kernel.weights`` ``(k,)``; without them the prior mean is
    predicted. ``hidden`` and ``dropout`` are not used; ``objective`` judges predictions, but does
    not train them (see the module).
    """

    @classmethod
    def of(cls, predictor: Predictor) -> "DeepKernelPredictor":
        """The same encoder and pooling with this head."""
        return cls(**{**vars(predictor), "hidden": ()})

    def prepare(self, params: Params, loop: InnerLoop | None = None) -> Params:
        """The encoder's parameters out of ``params``, and a fresh head; no random numbers."""
        start = {name: value for name, value in params.items() if name.startswith("encoder.")}
        like = next(iter(params.values()))
        return start | {f"kernel.{name}": like.new_full((), v) for name, v in START.items()}

    def init(self, generator: torch.Generator) -> Params:
        """Fresh parameters; the generator is not used."""
        return self.prepare(super().init(generator))

    def head(
        self, params: Params, pooled: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Posterior mean of the labels ``(n,)`` from pooled embeddings ``(n, width)``."""
        mean = params["kernel.mean"].expand(len(pooled))
        if "kernel.inputs" not in params:
            return mean
        return mean + kernel(params, pooled, params["kernel.inputs"]) @ params["kernel.weights"]

    def variance(self, params: Params, tokens: TokenBatch) -> Tensor:
        """Posterior variance ``(n,)`` of the noise-free labels, on the scaled-label axis.

        Add ``params["kernel.log_noise"].exp()`` for that of new measurements; times the label
        scale squared it is in the assay's units. Without adaptation it is the prior's.
        """
        device = next(iter(params.values())).device
        pooled = self.pooled(params, tokens.to(device))
        linear, bend = params["kernel.log_linear"].exp(), params["kernel.log_rbf"].exp()
        prior = linear * (pooled**2).mean(dim=1) + bend
        if "kernel.inputs" not in params:
            return prior
        cross = kernel(params, params["kernel.inputs"], pooled)
        known = torch.linalg.solve_triangular(params["kernel.factor"], cross, upper=False)
        return (prior - (known**2).sum(dim=0)).clamp(min=0)

    def update(self, loss: Loss, params: Params, support: Examples, loop: InnerLoop) -> Params:
        """Condition on the support set; every parameter stays at the start.

        ``loss`` and ``loop`` are those of any inner loop; the solution needs neither.
        """
        if not len(support):
            return params
        inputs, labels = self._data(params, support)
        lower = factor(params, inputs)
        residual = (labels - params["kernel.mean"])[:, None]
        weights = torch.cholesky_solve(residual, lower)[:, 0]
        state = {"inputs": inputs, "factor": lower, "weights": weights}
        return {**params, **{f"kernel.{name}": value for name, value in state.items()}}

    def surprise(self, params: Params, examples: Examples) -> Tensor:
        """Negative log marginal likelihood per label, a scalar."""
        inputs, labels = self._data(params, examples)
        lower = factor(params, inputs)
        residual = (labels - params["kernel.mean"])[:, None]
        white = torch.linalg.solve_triangular(lower, residual, upper=False)
        log_volume = lower.diagonal().log().sum()
        count = len(labels)
        return (0.5 * (white**2).sum() + log_volume) / count + 0.5 * math.log(2 * math.pi)

    def _data(self, params: Params, examples: Examples) -> tuple[Tensor, Tensor]:
        device = next(iter(params.values())).device
        inputs = self.pooled(params, examples.tokens.to(device))
        return inputs, examples.labels.to(inputs)


def surprise_task_gradient(model: DeepKernelPredictor) -> TaskGradient:
    """The gradient of the negative log marginal likelihood of what a task's query holds."""

    def task_gradient(
        loss: Loss, params: Params, support: Examples, query: Examples, loop: InnerLoop
    ) -> tuple[Tensor, Params]:
        """Surprise per label and its gradient; ``loss``, ``support`` and ``loop`` are not used."""
        gradient, value = grad_and_value(model.surprise)(params, query)
        return value, gradient

    return task_gradient
