r"""R2-D2 (Bertinetto et al. 2019, arXiv 1805.08136): a ridge head that is solved, not descended.

With the pooled encoder output of the support and a column of ones as :math:`X` (k, d),

.. math:: w = X^\top (X X^\top + \lambda I)^{-1} y, \qquad \hat y = a \, X w + b

which is ridge regression in its dual (Woodbury) form: one small k x k system instead of d x d. The
encoder, :math:`\log\lambda`, :math:`a` and :math:`b` are learned by the outer loop through the
solution. The penalty falls on the column of ones as well.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mutmeta_lib.learn.inner import InnerLoop, Loss
from mutmeta_lib.models.predictor import Params, Predictor
from mutmeta_lib.tasks.tasks import Examples


def ridge_weights(features: Tensor, labels: Tensor, penalty: Tensor) -> Tensor:
    """Ridge regression weights ``(d,)`` of features ``(k, d)`` and labels ``(k,)``, differentiable.

    No intercept is added. Without labels (k = 0) the weights are zero.

    >>> ridge_weights(torch.eye(2), torch.tensor([2.0, 4.0]), torch.tensor(1.0))
    tensor([1., 2.])
    """
    gram = features @ features.T
    shift = penalty * torch.eye(len(labels), dtype=gram.dtype, device=gram.device)
    return features.T @ torch.linalg.solve(gram + shift, labels)


@dataclass(frozen=True, eq=False)
class RidgePredictor(Predictor):
    """A predictor whose head is linear: ``scale * (features @ weight) + offset``.

    Parameters are ``encoder.*``, ``ridge.log_penalty``, ``ridge.scale``, ``ridge.offset`` and
    ``ridge.weight``, which every task replaces; the start holds zeros, so that without any label
    the offset is predicted. ``hidden`` and ``dropout`` are not used.
    """

    @classmethod
    def of(cls, predictor: Predictor) -> "RidgePredictor":
        """The same encoder and pooling with this head."""
        return cls(**{**vars(predictor), "hidden": ()})

    def prepare(self, params: Params, loop: InnerLoop | None = None) -> Params:
        """The encoder's parameters out of ``params``, and a fresh head.

        Penalty 1, scale 1, offset 0, in the place of a random MLP head; no random numbers.
        """
        start = {name: value for name, value in params.items() if name.startswith("encoder.")}
        like = next(iter(params.values()))
        return start | {
            "ridge.weight": like.new_zeros(self.encoder.width + 1),
            "ridge.log_penalty": like.new_zeros(()),
            "ridge.scale": like.new_ones(()),
            "ridge.offset": like.new_zeros(()),
        }

    def init(self, generator: torch.Generator) -> Params:
        """Fresh parameters; the generator is not used."""
        return self.prepare(super().init(generator))

    def head(
        self, params: Params, pooled: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Labels ``(n,)`` from pooled embeddings ``(n, width)``."""
        linear = _with_ones(pooled) @ params["ridge.weight"]
        return params["ridge.scale"] * linear + params["ridge.offset"]

    def update(self, loss: Loss, params: Params, support: Examples, loop: InnerLoop) -> Params:
        """Solve for the weight on the support set; everything else stays at the start.

        ``loss`` and ``loop`` are those of any inner loop; the solution needs neither.
        """
        if not len(support):
            return params
        device = next(iter(params.values())).device
        features = _with_ones(self.pooled(params, support.tokens.to(device)))
        labels = support.labels.to(features)
        weight = ridge_weights(features, labels, params["ridge.log_penalty"].exp())
        return {**params, "ridge.weight": weight}


def _with_ones(pooled: Tensor) -> Tensor:
    """Pooled embeddings and the bias column, ``(n, width + 1)``."""
    return torch.cat([pooled, torch.ones_like(pooled[:, :1])], dim=1)
