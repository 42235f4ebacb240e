r"""A ranker of variants: a score without labels, a posterior with them, both meta-learned.

On the trunk (`models.trunk`) a *zero-label score* m is linear in h. The labels of an assay are a
Gaussian process with prior mean :math:`a\,m` and, between two substitutions at places x and x',

.. math:: k = s_1 \frac{h^\top h'}{d} + s_2 R(c, c') + [x = x']\,(s_3 + s_4 R(u, u'))
   + s_5 R(u, u') + s_6 e^{-|x - x'| / \ell} + s_7, \qquad R(a, b) = e^{-|a - b|^2 / 2}

with learned coordinates c of the site and u of the change; :math:`s_8\,m\,m'` is added, and the
noise is :math:`s_9`. Covariances of variants are sums over their substitutions. Site and change in
one kernel are Kermut's idea (Groth et al. 2024, arXiv 2407.00002), a kernel learned over tasks that
of Patacchiola et al. (2020, arXiv 1910.05199); what other proteins taught is the prior's mean. Both
are trained together: the squared error of m, and the negative log density of held-out variants
given a few labels. Both see normal scores; labels of a new assay are moved towards those of their
own ranks, the more of them there are (`tasks.towards_normal`).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from mutmeta_lib.errors import DataError
from mutmeta_lib.learn.closed_form import SolvedPredictor
from mutmeta_lib.learn.gradients import Together, blocks
from mutmeta_lib.learn.inner import InnerLoop, Loss, Params
from mutmeta_lib.models.predictor import Predictor
from mutmeta_lib.models.sites import READS
from mutmeta_lib.models.trunk import SUM, Latent
from mutmeta_lib.tasks.batches import TokenBatch
from mutmeta_lib.tasks.tasks import Examples, both, towards_normal

SHOTS = (5, 10, 20, 40, 48)
"""In training, how many labels of a task are given is drawn from these (from those it affords)."""

_SCALES = (0.3, 0.3, 0.3, 0.1, 0.1, 0.1, 0.05, 0.1, 0.5)
_JITTER, _LEAST_VARIANCE, _LEAST_SPREAD, _WORST = 1e-4, 1e-4, 0.3, 20.0


@dataclass(frozen=True, eq=False)
class RankerPredictor(SolvedPredictor):
    """The process of the module's first lines on a trunk; its head is the zero-label score.

    Solving keeps the labelled variants: ``support.rows`` ``(k, m, d)``, ``support.mask``, and
    ``support.lower``, ``support.weights`` of their covariance.
    """

    numbers = {  # noqa: RUF012
        **{f"kernel.log_s{i}": math.log(one) for i, one in enumerate(_SCALES, start=1)},
        "kernel.log_length": math.log(6.0),
        "kernel.slope": 0.7,
    }

    @classmethod
    def of(cls, predictor: Predictor) -> Self:
        """The same trunk; a DataError for a predictor that reads texts."""
        if predictor.pooling != SUM:
            told = "the ranker learns on sites, and this predictor reads texts"
            raise DataError(told, f"read with one of {', '.join(READS)}")
        return super().of(predictor)

    def prepare(self, params: Params, loop: InnerLoop | None = None) -> Params:
        """As every solved head, with the linear head of ``params`` beside it."""
        head = {name: value for name, value in params.items() if name.startswith("head.")}
        return super().prepare(params) | head

    def update(self, loss: Loss, params: Params, support: Examples, loop: InnerLoop) -> Params:
        """The process given labels; one label has no scale, and changes nothing."""
        if len(support) < 2:
            return params
        tokens = support.tokens.to(next(iter(params.values())).device)
        latent = self.latent(params, tokens)
        labels = towards_normal(support.labels).to(latent.real)
        lower, weights = self.solve(params, latent, labels)
        kept = {"rows": tokens.hidden, "mask": tokens.mask, "lower": lower, "weights": weights}
        return params | {f"support.{name}": value for name, value in kept.items()}

    def __call__(self, params: Params, tokens: TokenBatch, generator: Any = None) -> Tensor:
        """Labels ``(n,)``: the posterior mean, and without labels the zero-label score."""
        return self.posterior(params, self.latent(params, tokens))[0]

    def posterior(
        self, params: Params, latent: Latent, deviation: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Mean ``(n,)`` and, if asked for, standard deviation of new measurements."""
        score = self.score(params, latent)
        if "support.weights" not in params:
            return score, torch.ones_like(score) if deviation else None
        known = TokenBatch(*[params["support.mask"]] * 3, params["support.rows"])
        cross = self.covariance(params, latent, self.latent(params, known))
        mean = params["kernel.slope"] * score + cross @ params["support.weights"]
        if not deviation:
            return mean, None
        return mean, self.variance(params, latent, cross, params["support.lower"]).sqrt()

    def deviation(self, params: Params, tokens: TokenBatch) -> Tensor:
        """Standard deviations of new labels ``(n,)``."""
        return self.posterior(params, self.latent(params, tokens), True)[1]

    def score(self, params: Params, latent: Latent) -> Tensor:
        """The zero-label scores ``(..., n)``, in normal scores of an assay."""
        return self.head(params, latent.hidden.sum(dim=-2))

    def covariance(self, params: Params, a: Latent, b: Latent) -> Tensor:
        """Covariances of variants ``(..., n, k)``."""
        left, right = a.real.shape[-2:], b.real.shape[-2:]
        # Substitutions of all variants in one row, and each pair back in its place.
        flat = (_mapped(one, lambda part, axis: part.flatten(axis - 1, axis)) for one in (a, b))
        found = self._between(params, *flat).unflatten(-2, left).unflatten(-1, right)
        scores = (self.score(params, a)[..., :, None], self.score(params, b)[..., None, :])
        return found.sum(dim=(-3, -1)) + params["kernel.log_s8"].exp() * scores[0] * scores[1]

    def _between(self, params: Params, a: Latent, b: Latent) -> Tensor:
        """Covariances of single substitutions ``(..., r, s)``, of latents ``(..., r, d)``."""
        s = [params[f"kernel.log_s{i}"].exp() for i in range(1, 8)]
        linear = a.hidden @ b.hidden.mT / a.hidden.shape[-1]
        site, change = _radial(a.site, b.site), _radial(a.change, b.change)
        apart = (a.places[..., :, None] - b.places[..., None, :]).abs()
        here = (apart == 0) * (s[2] + s[3] * change)
        near = s[5] * (-apart / params["kernel.log_length"].exp()).exp()
        both = a.real[..., :, None] * b.real[..., None, :]
        return both * (s[0] * linear + s[1] * site + here + s[4] * change + near + s[6])

    def solve(self, params: Params, latent: Latent, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Cholesky factor ``(..., k, k)`` and weights ``(..., k)`` of labels of unit variance."""
        shift = params["kernel.log_s9"].exp() + _JITTER
        known = self.covariance(params, latent, latent)
        lower = torch.linalg.cholesky(known + shift * torch.eye(labels.shape[-1]).to(known))
        missed = labels - params["kernel.slope"] * self.score(params, latent)
        return lower, torch.cholesky_solve(missed[..., None], lower).squeeze(-1)

    def variance(self, params: Params, latent: Latent, cross: Tensor, lower: Tensor) -> Tensor:
        """Variances ``(..., n)`` of new measurements, noise included."""
        one = _mapped(latent, lambda part, axis: part.unsqueeze(axis - 1))
        prior = self.covariance(params, one, one)[..., 0, 0]
        known = torch.linalg.solve_triangular(lower, cross.mT, upper=False)
        left = (prior - (known**2).sum(dim=-2)).clamp_min(_LEAST_VARIANCE)
        return left + params["kernel.log_s9"].exp()


def _mapped(latent: Latent, change: Callable[[Tensor, int], Tensor]) -> Latent:
    """Every part changed, given its axis of substitutions."""
    return Latent(*(change(part, -2) for part in latent[:3]), *(change(p, -1) for p in latent[3:]))


def _radial(a: Tensor, b: Tensor) -> Tensor:
    return (-(torch.cdist(a, b) ** 2) / 2).exp()


@dataclass(frozen=True, eq=False)
class RankerTasks(Together):
    """The ranker's loss of tasks of equal size, all at once."""

    def losses(self, params: Params, tasks: Sequence, loop: InnerLoop) -> Tensor:
        """Losses ``(n_tasks,)``; the labels of both sides are scores of one assay, unscaled."""
        model, given = self.predictor, len(tasks[0][0])
        sets = [both(*task) for task in tasks]
        scores = np.stack([examples.scores for examples in sets])
        rows, mask = (one.to(next(iter(params.values())).device) for one in blocks(sets))
        labels = torch.from_numpy(scores).to(rows)
        if model.encoder.module.training:
            afforded = [k for k in SHOTS if k < labels.shape[1] - 1] or [given]
            given = afforded[int(torch.randint(len(afforded), ()))]
        latent = model.latent(params, TokenBatch(mask, mask, mask, rows))
        error = ((model.score(params, latent) - labels) ** 2).mean(dim=-1)
        sides = slice(given), slice(given, None)
        known, held = (Latent(*(part[:, side] for part in latent)) for side in sides)
        location = labels[:, :given].mean(dim=1, keepdim=True)
        scale = labels[:, :given].std(dim=1, keepdim=True).clamp_min(_LEAST_SPREAD)
        scaled = (labels - location) / scale
        lower, weights = model.solve(params, known, scaled[:, :given])
        cross = model.covariance(params, held, known)
        mean = params["kernel.slope"] * model.score(params, held)
        mean = mean + (cross @ weights[..., None]).squeeze(-1)
        variance = model.variance(params, held, cross, lower)
        density = ((scaled[:, given:] - mean) ** 2 / variance + variance.log()) / 2
        return error + density.clamp(max=_WORST).mean(dim=-1)


def spread(means: Sequence[np.ndarray], spreads: Sequence[np.ndarray]) -> np.ndarray:
    """Standard deviations ``(n,)`` of a mixture of networks, from the means and own of each.

    >>> spread([np.array([0.0]), np.array([2.0])], [np.array([0.0]), np.array([0.0])])
    array([1.])
    """
    return np.sqrt(np.square(spreads).mean(axis=0) + np.var(means, axis=0))


@dataclass(frozen=True, eq=False)
class RankerMethod:
    """The mean of several rankers' posteriors; with ``labels`` False, of zero-label scores."""

    name: str
    predictor: RankerPredictor
    members: Sequence[Params]
    labels: bool = True
    kept: dict = field(default_factory=dict)

    def adapt(self, support: Examples, generator: torch.Generator) -> list[Params]:
        """Every member given the labels."""
        if not self.labels:
            return list(self.members)
        with torch.no_grad():
            return [self.predictor.update(None, one, support, None) for one in self.members]

    def predict(self, state: Sequence[Params], query: Examples) -> np.ndarray:
        """Predicted labels ``(n,)``."""
        return np.mean([mean for mean, _ in self._posteriors(state, query, False)], axis=0)

    def deviation(self, state: Sequence[Params], query: Examples) -> np.ndarray:
        """Standard deviation of new labels ``(n,)``, that of the mixture of the members."""
        return spread(*zip(*self._posteriors(state, query, True), strict=True))

    def _posteriors(self, state: Sequence[Params], query: Examples, deviation: bool) -> list:
        # A query is the same at every number of labels: what the networks make of it is kept.
        asked = query.assay.assay.sha256, query.rows.tobytes()
        with torch.no_grad():
            if asked not in self.kept:
                if len(self.kept) > 9:  # supports, which are small, may stand beside a query
                    self.kept.clear()
                tokens = query.tokens
                self.kept[asked] = [self.predictor.latent(one, tokens) for one in self.members]
            found = zip(state, self.kept[asked], strict=True)
            both = (self.predictor.posterior(*one, deviation) for one in found)
            return [tuple(None if x is None else x.cpu().numpy() for x in one) for one in both]
