"""Everything that can be evaluated, behind one small protocol.

The evaluation loop never asks which method it holds. A new method is one class with ``adapt`` and
``predict``, and one line in `METHODS`; command line, tables and figures find it there.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch

from mutmeta_lib.learn import InnerLoop, inner_update
from mutmeta_lib.learn.algorithms import ALGORITHMS, Algorithm
from mutmeta_lib.learn.baselines import (
    Blosum,
    Features,
    GaussianProcess,
    Ridge,
    SupportMean,
    onehot_features,
)
from mutmeta_lib.learn.inner import adapted_names, finetune, shuffled
from mutmeta_lib.models.predictor import Params, Predictor, predict
from mutmeta_lib.models.zero_shot import MASKED
from mutmeta_lib.tasks.losses import RANKING
from mutmeta_lib.tasks.tasks import Examples

Rate = tuple[str, float]
"""Optimiser (``sgd`` or ``adam``) and learning rate."""


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
class _Learner:
    """What the methods that hold a predictor and a start share."""

    name: str
    predictor: Predictor
    start: Params

    def predict(self, state: Params, query: Examples) -> np.ndarray:
        """Predicted labels, ``(n,)``."""
        return predict(self.predictor, state, query.tokens).numpy()

    @property
    def ranks_only(self) -> bool:
        """Trained on a ranking loss: predictions have no scale."""
        return self.predictor.objective in RANKING

    def unless_diverged(self, adapted: Params, support: Examples, how: str) -> Params:
        """The adapted parameters, or the start with a warning where the support loss got worse.

        It needs no label but the support's, in tuning and in testing alike.
        """
        with torch.no_grad():
            before = self.predictor.loss(self.start, support)
            after = self.predictor.loss(adapted, support)
        if after <= before:  # False for NaN as well
            return adapted
        assay = support.assay.assay.id
        warnings.warn(
            f"{self.name} diverged on assay {assay} ({len(support)} labels, {how}); "
            "its start is used there",
            Diverged,
            stacklevel=3,
        )
        return self.start


@dataclass(frozen=True, eq=False)
class GradientMethod(_Learner):
    """Full-batch gradient steps from a start: plain SGD (MAML's inner loop) or Adam.

    MAML, fine-tuning from the pretrained encoder and fine-tuning from the jointly trained start
    are this class with another start. ``scope`` says which parameters move (``learn.inner``).
    """

    rate: Rate
    steps: int
    scope: str = "all"

    def adapt(self, support: Examples, generator: torch.Generator) -> Params:
        """Take ``steps`` gradient steps; without labels the start itself is used."""
        if not len(support):
            return self.start
        (optimiser, lr), loss = self.rate, self.predictor.loss
        if optimiser == "sgd":
            loop = InnerLoop(lr, self.steps, first_order=True, scope=self.scope)
            adapted = inner_update(loss, self.start, support, loop)
        elif optimiser == "adam":
            moving = {name: self.start[name] for name in adapted_names(self.start, self.scope)}
            tuned = finetune(
                lambda changed, batch: loss({**self.start, **changed}, batch),
                moving,
                [support] * self.steps,
                lr=lr,
            )
            adapted = {**self.start, **tuned}
        else:
            raise ValueError(f"unknown optimiser {optimiser!r}; choose sgd or adam")
        return self.unless_diverged(adapted, support, f"{optimiser} at {lr}")


@dataclass(frozen=True, eq=False)
class EpochFineTuning(_Learner):
    """Adam in batches of 16 for whole epochs: fine-tuning as the paper's timing has it."""

    epochs: int
    lr: float = 1e-3

    def adapt(self, support: Examples, generator: torch.Generator) -> Params:
        """Pass over the support set ``epochs`` times."""
        if not len(support):
            return self.start
        batches = shuffled(support, self.epochs, 16, generator)
        tuned = finetune(self.predictor.loss, self.start, batches, lr=self.lr)
        return self.unless_diverged(tuned, support, f"adam at {self.lr}, {self.epochs} epochs")


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
        """Adapt as in meta-training; learned steps may diverge like others, a solution cannot."""
        if not len(support):
            return self.start
        model, loop = self.algorithm.model, InnerLoop(steps=self.steps, first_order=True)
        with torch.no_grad():
            adapted = self.algorithm.update(model.loss, self.start, support, loop)
        if not self.descends:
            return adapted
        learner = _Learner(self.name, model, self.start)
        return learner.unless_diverged(adapted, support, "learned rates")

    def predict(self, state: Params, query: Examples) -> np.ndarray:
        """Predicted labels, ``(n,)``."""
        return predict(self.algorithm.model, state, query.tokens).numpy()

    @property
    def ranks_only(self) -> bool:
        """Trained on a ranking loss: predictions have no scale."""
        return self.algorithm.model.objective in RANKING


@dataclass(frozen=True, eq=False)
class FirstLabels:
    """Another method, shown only the first ``shots`` labels however many there are."""

    name: str
    method: Method
    shots: int

    def adapt(self, support: Examples, generator: torch.Generator) -> Any:
        """Adapt to the first labels."""
        return self.method.adapt(support.take(np.arange(min(self.shots, len(support)))), generator)

    def predict(self, state: Any, query: Examples) -> np.ndarray:
        """Predicted labels, ``(n,)``."""
        return self.method.predict(state, query)


@dataclass(frozen=True)
class Start:
    """How a start is meta-trained; without an ``algorithm`` it is the encoder and a fresh head.

    ``first_order`` None is what the study asks for. A ``solved`` head learns a few numbers only, in
    fewer meta-steps.
    """

    algorithm: str = ""
    first_order: bool | None = None
    objective: str = "mse"
    solved: bool = False


STARTS: dict[str, Start] = {
    "fresh": Start(),
    "maml": Start("maml"),
    "fomaml": Start("maml", first_order=True),
    "maml_rank": Start("maml", objective="list_mle"),
    "multitask": Start("multitask"),
    "anil": Start("anil"),
    "boil": Start("boil"),
    "reptile": Start("reptile", first_order=True),
    "metasgd": Start("metasgd"),
    "r2d2": Start("r2d2", solved=True),
    "deepkernel": Start("deepkernel", solved=True),
    "joint": Start("joint"),
}
"""Name -> how it is made. Over a frozen encoder MAML adapts the head alone: it is ANIL as well.
``joint`` is trained on the labels of all test assays, where a study holds out variants of them."""


@dataclass(frozen=True, eq=False)
class Given:
    """What a method is built from; a method reads what it needs.

    ``features`` are standardised vectors of the frozen encoder, ``zero_shot`` makes the methods
    `MASKED` by name, ``fixed`` is how many labels `FirstLabels` reads.
    """

    predictor: Predictor
    start: Params | None = None
    rate: Rate | None = None
    steps: int = 10
    epochs: int = 5
    fixed: int = 10
    features: Features | None = None
    zero_shot: Callable[[str], Method] | None = None


@dataclass(frozen=True)
class Entry:
    """One line of `METHODS`: how to build it, the start it needs, and whose rate it takes.

    ``rate`` is the name of the method that the rate is chosen for; empty where none is chosen.
    """

    build: Callable[[str, Given], Method]
    start: str = ""
    rate: str = ""


def _gradient(name: str, given: Given, scope: str = "all", **fixed: Any) -> Method:
    model = given.predictor
    if name in STARTS:
        model = replace(model, objective=STARTS[name].objective)
    how = {"rate": given.rate, "steps": given.steps, "scope": scope} | fixed
    return GradientMethod(name, model, given.start, **how)


def _learned(name: str, given: Given) -> Method:
    algorithm = ALGORITHMS[name](given.predictor)
    return AlgorithmMethod(name, algorithm, given.start, given.steps, not STARTS[name].solved)


def _fixed_labels(name: str, given: Given) -> Method:
    return FirstLabels(name, _gradient("maml", given), given.fixed)


METHODS: dict[str, Entry] = {
    "maml": Entry(_gradient, "maml", "maml"),
    "multitask": Entry(_gradient, "multitask", "multitask"),
    "finetune": Entry(_gradient, "fresh", "finetune"),
    "fomaml": Entry(_gradient, "fomaml", "fomaml"),
    "maml_rank": Entry(_gradient, "maml_rank", "maml_rank"),
    "anil": Entry(partial(_gradient, scope="head"), "anil", "anil"),
    "boil": Entry(partial(_gradient, scope="encoder"), "boil", "boil"),
    "reptile": Entry(_gradient, "reptile", "reptile"),
    "metasgd": Entry(_learned, "metasgd"),
    "r2d2": Entry(_learned, "r2d2"),
    "deepkernel": Entry(_learned, "deepkernel"),
    "maml_1": Entry(partial(_gradient, steps=1), "maml", "maml"),
    "maml_fixed": Entry(_fixed_labels, "maml", "maml"),
    "finetune_epochs": Entry(
        lambda name, given: EpochFineTuning(name, given.predictor, given.start, given.epochs),
        "fresh",
    ),
    "joint": Entry(partial(_gradient, rate=("sgd", 0.0), steps=0), "joint"),
    "mlp": Entry(partial(_gradient, rate=("adam", 1e-3)), "fresh"),
    "ridge": Entry(lambda name, given: Ridge(name, given.features)),
    "gp": Entry(lambda name, given: GaussianProcess(name, given.features)),
    "onehot": Entry(lambda name, given: Ridge(name, onehot_features)),
    "blosum": Entry(lambda name, given: Blosum(name)),
    "mean": Entry(lambda name, given: SupportMean(name)),
    **{name: Entry(lambda name, given: given.zero_shot(name)) for name in MASKED},
}
"""Name -> how to build it. ``maml_1`` takes one step, ``maml_fixed`` reads the first labels alone,
``mlp`` is fine-tuning at a rate that is not chosen; the `MASKED` need a language-model head."""


def check_methods(names: Sequence[str]) -> None:
    """Refuse a name that is not in the table.

    Raises:
        ValueError: an unknown name.

    """
    if unknown := sorted(set(names) - set(METHODS)):
        raise ValueError(f"unknown methods {unknown}; choose from {sorted(METHODS)}")


def build_methods(
    names: Sequence[str], given: Given, starts: Mapping[str, Params], rates: Mapping[str, Rate]
) -> dict[str, Method]:
    """Build methods by name from their starts and chosen rates."""
    check_methods(names)
    return {
        name: METHODS[name].build(
            name,
            replace(
                given, start=starts.get(METHODS[name].start), rate=rates.get(METHODS[name].rate)
            ),
        )
        for name in names
    }
