"""Everything that can be evaluated, behind one small protocol.

The evaluation loop never asks which method it holds. A new method is one class with ``adapt`` and
``predict``, and one line in the ``METHODS`` table.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from mutmeta_lib.learn import InnerLoop, inner_update
from mutmeta_lib.learn.algorithms import ALGORITHMS, Algorithm
from mutmeta_lib.learn.baselines import (
    Blosum,
    GaussianProcess,
    Ridge,
    SupportMean,
    embedding_features,
    onehot_features,
)
from mutmeta_lib.learn.finetune import finetune
from mutmeta_lib.learn.scope import adapted_names
from mutmeta_lib.models.predictor import Params, Predictor, predict
from mutmeta_lib.models.zero_shot import MASKED, zero_shot
from mutmeta_lib.tasks.losses import RANKING
from mutmeta_lib.tasks.tasks import EncodedAssay, Examples


class Method(Protocol):
    """Learn from a support set, then predict a query set of the same assay.

    A method whose predictions have an order but no scale says so by an attribute ``ranks_only``.
    """

    name: str

    def adapt(self, support: Examples, generator: torch.Generator) -> Any:
        """Learn from the labelled support set (may be empty); returns any state."""

    def predict(self, state: Any, query: Examples) -> np.ndarray:
        """Predicted labels ``(n,)`` on the scaled axis; ``query.labels`` is not read."""


class Diverged(UserWarning):
    """Adaptation made the support loss worse; the method falls back to its start on this task."""


@contextmanager
def divergences() -> Iterator[list[str]]:
    """Collect what ``Diverged`` warnings say, to be counted and recorded, in place of stderr."""
    messages: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield messages
    for one in caught:
        if issubclass(one.category, Diverged):
            messages.append(str(one.message))
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


@dataclass(frozen=True, eq=False)
class GradientMethod:
    """Full-batch gradient steps from a start: plain SGD (MAML's inner loop) or Adam.

    MAML, fine-tuning from the pretrained encoder and fine-tuning from the jointly trained start
    are this class with another start: they differ in nothing else but optimiser and rate. ``scope``
    says which parameters move (``learn.scope``): the head for ANIL, the encoder for BOIL.
    """

    name: str
    predictor: Predictor
    start: Params
    optimiser: str
    lr: float
    steps: int
    scope: str = "all"

    def adapt(self, support: Examples, generator: torch.Generator) -> Params:
        """Take ``steps`` gradient steps; without labels the start itself is used.

        An adaptation whose support loss ends higher than it began, or not finite, is warned about
        (``Diverged``) and answered with the start, in tuning and in testing alike: it needs no
        label but the support's, and a user who saw it would do the same.
        """
        if not len(support):
            return self.start
        loss = self.predictor.loss
        if self.optimiser == "sgd":
            loop = InnerLoop(self.lr, self.steps, first_order=True, scope=self.scope)
            adapted = inner_update(loss, self.start, support, loop)
        elif self.optimiser == "adam":
            moving = {name: self.start[name] for name in adapted_names(self.start, self.scope)}
            tuned = finetune(
                lambda changed, batch: loss({**self.start, **changed}, batch),
                moving,
                support,
                lr=self.lr,
                steps=self.steps,
            )
            adapted = {**self.start, **tuned}
        else:
            raise ValueError(f"unknown optimiser {self.optimiser!r}; choose sgd or adam")
        how = f"{self.optimiser} at {self.lr}"
        return _unless_diverged(self.name, self.predictor, self.start, adapted, support, how)

    def predict(self, state: Params, query: Examples) -> np.ndarray:
        """Predicted labels, ``(n,)``."""
        return predict(self.predictor, state, query.tokens).numpy()

    @property
    def ranks_only(self) -> bool:
        """Trained on a ranking loss: predictions have no scale."""
        return self.predictor.objective in RANKING


@dataclass(frozen=True, eq=False)
class AlgorithmMethod:
    """An algorithm that has learned how to adapt: Meta-SGD's rates, R2-D2's ridge, a deep kernel.

    No rate is chosen for it. The state is a dictionary of parameters, as in ``GradientMethod``.
    """

    name: str
    algorithm: Algorithm
    start: Params
    steps: int
    descends: bool

    def adapt(self, support: Examples, generator: torch.Generator) -> Params:
        """Adapt as in meta-training; without labels the start itself is used.

        Learned gradient steps (``descends``) may diverge like any others, see ``GradientMethod``;
        a solution cannot.
        """
        if not len(support):
            return self.start
        model, loop = self.algorithm.model, InnerLoop(steps=self.steps, first_order=True)
        with torch.no_grad():
            adapted = self.algorithm.update(model.loss, self.start, support, loop)
        if not self.descends:
            return adapted
        return _unless_diverged(self.name, model, self.start, adapted, support, "learned rates")

    def predict(self, state: Params, query: Examples) -> np.ndarray:
        """Predicted labels, ``(n,)``."""
        return predict(self.algorithm.model, state, query.tokens).numpy()

    @property
    def ranks_only(self) -> bool:
        """Trained on a ranking loss: predictions have no scale."""
        return self.algorithm.model.objective in RANKING


def _unless_diverged(
    name: str, predictor: Predictor, start: Params, adapted: Params, support: Examples, how: str
) -> Params:
    """The adapted parameters, or the start with a warning where the support loss got worse."""
    with torch.no_grad():
        before = predictor.loss(start, support)
        after = predictor.loss(adapted, support)
    if after <= before:  # False for NaN as well
        return adapted
    warnings.warn(
        f"{name} diverged on assay {support.assay.assay.id} ({len(support)} labels, {how}); "
        "its start is used there",
        Diverged,
        stacklevel=3,
    )
    return start


@dataclass(frozen=True, eq=False)
class Ingredients:
    """What the table below builds methods from."""

    predictor: Predictor
    starts: dict[str, Params]
    assays: Sequence[EncodedAssay]
    rates: dict[str, tuple[str, float]]
    steps: int
    device: str = "cpu"
    cache_dir: str | None = None


def _gradient(name: str, scope: str = "all") -> Callable[[Ingredients], Method]:
    def build(given: Ingredients) -> Method:
        start, (optimiser, lr) = given.starts[name], given.rates[name]
        return GradientMethod(name, given.predictor, start, optimiser, lr, given.steps, scope)

    return build


def _learned(name: str, descends: bool) -> Callable[[Ingredients], Method]:
    def build(given: Ingredients) -> Method:
        algorithm = ALGORITHMS[name](given.predictor)
        return AlgorithmMethod(name, algorithm, given.starts[name], given.steps, descends)

    return build


def _on_embeddings(kind: type, name: str) -> Callable[[Ingredients], Method]:
    def build(given: Ingredients) -> Method:
        features = embedding_features(
            given.predictor.encoder,
            given.assays,
            given.predictor.pooling,
            given.device,
            given.cache_dir,
        )
        return kind(name, features)

    return build


def _zero_shot(name: str) -> Callable[[Ingredients], Method]:
    def build(given: Ingredients) -> Method:
        return zero_shot(
            name, given.predictor.encoder, cache_dir=given.cache_dir, device=given.device
        )

    return build


METHODS: dict[str, Callable[[Ingredients], Method]] = {
    "maml": _gradient("maml"),
    "multitask": _gradient("multitask"),
    "finetune": _gradient("finetune"),
    "anil": _gradient("anil", "head"),
    "boil": _gradient("boil", "encoder"),
    "reptile": _gradient("reptile"),
    "metasgd": _learned("metasgd", descends=True),
    "r2d2": _learned("r2d2", descends=False),
    "deepkernel": _learned("deepkernel", descends=False),
    "ridge": _on_embeddings(Ridge, "ridge"),
    "gp": _on_embeddings(GaussianProcess, "gp"),
    "onehot": lambda given: Ridge("onehot", onehot_features),
    "blosum": lambda given: Blosum(),
    "mean": lambda given: SupportMean(),
    **{name: _zero_shot(name) for name in MASKED},
}
"""Name -> how to build it.

``maml``, ``multitask``, ``finetune``, ``anil``, ``boil`` and ``reptile`` need a start and a rate,
``metasgd``, ``r2d2`` and ``deepkernel`` a start from ``training.meta_train``, which holds what they
have learned. ``zero_shot`` and ``zero_shot_wt`` need an encoder with a language-model head.
"""


def build_methods(names: Sequence[str], given: Ingredients) -> dict[str, Method]:
    """Build the named methods.

    Raises:
        ValueError: an unknown name.

    """
    unknown = sorted(set(names) - set(METHODS))
    if unknown:
        raise ValueError(f"unknown methods {unknown}; choose from {sorted(METHODS)}")
    return {name: METHODS[name](given) for name in names}
