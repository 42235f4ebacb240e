"""Everything that can be evaluated, behind one small protocol.

A new method is one class with ``adapt`` and ``predict``, and one line in `METHODS`; evaluation,
command line, tables and figures find it there.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import torch

from mutmeta_lib.learn import InnerLoop, baselines, inner_update
from mutmeta_lib.learn.algorithms import ALGORITHMS
from mutmeta_lib.learn.inner import Update, adapted_names, finetune, shuffled
from mutmeta_lib.learn.ranker import RankerMethod, RankerPredictor
from mutmeta_lib.models.predictor import Params, Predictor, predict
from mutmeta_lib.models.zero_shot import MASKED
from mutmeta_lib.tasks.losses import RANKING
from mutmeta_lib.tasks.tasks import Examples


class Rate(NamedTuple):
    """Optimiser (``sgd``, ``adam``, or ``learned`` by the start), its rate and number of steps."""

    optimiser: str
    lr: float
    steps: int

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """The rate of a row of `tuning.grid_scores`."""
        return cls(*(row[name] for name in cls._fields))


GRID: tuple[tuple[str, float], ...] = (
    *(("sgd", rate) for rate in (0.003, 0.01, 0.03, 0.1)),
    *(("adam", rate) for rate in (1e-3, 3e-3, 1e-2)),
)
"""Optimisers and rates that every gradient method chooses from; SGD is MAML's inner loop."""
LEARNED = (("learned", 0.0),)
MLP = ("adam", 1e-3)


class Method(Protocol):
    """Predictions that have an order but no scale are told by an attribute ``ranks_only``.

    A method that knows how sure it is has ``deviation(state, query)`` as well: the predictive
    standard deviation of each label, ``(n,)``, noise included.
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
    """MAML's family and fine-tuning: steps on all labels, or the ``first``, by SGD or Adam.

    SGD, at a rate that is given or learned, is the inner loop or the algorithm's ``update``. Adam
    may take ``epochs`` of batches of 16, as in the paper's timing. Without labels the start is
    used; and, with a warning, where steps made the loss on them worse.
    """

    name: str
    predictor: Predictor
    start: Params
    rate: Rate
    scope: str = "all"
    epochs: int = 0
    first: int | None = None
    update: Update = inner_update

    def adapt(self, support: Examples, generator: torch.Generator) -> Params:
        """The adapted parameters."""
        support = support.take(np.arange(len(support))[: self.first])
        if not len(support):
            return self.start
        adapted = self.moved(support, generator)
        if self.update is not inner_update:  # a solution does not diverge
            return adapted
        with torch.no_grad():
            before = self.predictor.loss(self.start, support)
            if self.predictor.loss(adapted, support) <= before:  # False for NaN as well
                return adapted
        how = f"{self.rate.optimiser} at {self.rate.lr}" if self.rate.lr else "learned rates"
        told = f"{self.name} diverged on assay {support.assay.assay.id} ({len(support)} labels, "
        warnings.warn(f"{told}{how}); its start is used there", Diverged, stacklevel=2)
        return self.start

    def moved(self, support: Examples, generator: torch.Generator) -> Params:
        """The parameters after the steps, whatever they came to."""
        (optimiser, lr, steps), loss = self.rate, self.predictor.loss
        if optimiser in ("sgd", "learned"):
            loop = InnerLoop(lr, steps, first_order=True, scope=self.scope)
            return self.update(loss, self.start, support, loop)
        if optimiser != "adam":
            raise ValueError(f"unknown optimiser {optimiser!r}; choose sgd or adam")
        moving = {name: self.start[name] for name in adapted_names(self.start, self.scope)}
        whole = lambda changed, batch: loss({**self.start, **changed}, batch)  # noqa: E731
        batches = shuffled(support, self.epochs, 16, generator) if self.epochs else ()
        return self.start | finetune(whole, moving, batches or [support] * steps, lr=lr)

    def predict(self, state: Params, query: Examples) -> np.ndarray:
        """Predicted labels, ``(n,)``."""
        return predict(self.predictor, state, query.tokens).numpy()

    @property
    def ranks_only(self) -> bool:
        """Trained on a ranking loss: predictions have no scale."""
        return self.predictor.objective in RANKING


@dataclass(frozen=True)
class Start:
    """How a start is meta-trained; without an ``algorithm`` it is the encoder and a fresh head.

    ``first_order`` None is what the study asks for; a ``solved`` head needs fewer meta-steps. With
    ``members`` the start is several, as many as the study asks for (`members`).
    """

    algorithm: str = ""
    first_order: bool | None = None
    objective: str = "mse"
    solved: bool = False
    members: bool = False


STARTS: dict[str, Start] = {
    "fresh": Start(),
    **{name: Start(name) for name in ("maml", "multitask", "joint")},
    **{name: Start(name) for name in ("anil", "boil", "lora", "metasgd")},
    "fomaml": Start("maml", first_order=True),
    "maml_rank": Start("maml", objective="list_mle"),
    "lora_rank": Start("lora", objective="list_mle"),
    "reptile": Start("reptile", first_order=True),
    "r2d2": Start("r2d2", solved=True),
    "deepkernel": Start("deepkernel", solved=True),
    "ranker": Start("ranker", members=True),
}
"""Name -> how it is made. Over a frozen encoder MAML adapts the head alone: it is ANIL as well.
``joint`` is trained on the labels of all test assays, where a study holds out variants of them."""


@dataclass(frozen=True, eq=False)
class Given:
    """What methods are built from; ``fixed`` is for ``maml_fixed``, ``zero_shot`` for `MASKED`."""

    predictor: Predictor
    start: Params | None = None
    rate: Rate | None = None
    steps: int = 10
    epochs: int = 5
    fixed: int = 10
    features: baselines.Features | None = None
    kept: dict = field(default_factory=dict)
    zero_shot: Callable[[str], Method] | None = None


@dataclass(frozen=True)
class Entry:
    """How to build a method, its start, and the method whose rate of the ``grid`` it takes."""

    build: Callable[[str, Given], Method]
    start: str = ""
    rate: str = ""
    grid: tuple[tuple[str, float], ...] = GRID


def _gradient(name: str, given: Given, **fixed: Any) -> Method:
    model = given.predictor
    if name in STARTS:
        model = replace(model, objective=STARTS[name].objective)
    return GradientMethod(name, model, given.start, **{"rate": given.rate} | fixed)


def _adapters(name: str, given: Given) -> Method:
    model = ALGORITHMS["lora"](given.predictor).model
    return _gradient(name, replace(given, predictor=model), scope="lora")


def _learned(name: str, given: Given) -> Method:
    algorithm = ALGORITHMS[name](given.predictor)
    rate = given.rate or Rate(*LEARNED[0], given.steps)
    return GradientMethod(name, algorithm.model, given.start, rate, update=algorithm.update)


def joined(starts: Sequence[Params]) -> Params:
    """Several starts as one; `members` are they again."""
    return {f"{i}/{name}": value for i, one in enumerate(starts) for name, value in one.items()}


def members(start: Params) -> list[Params]:
    """The starts that were `joined`.

    >>> members(joined([{"a": 1}, {"a": 2}]))
    [{'a': 1}, {'a': 2}]
    """
    found: dict[str, Params] = {}
    for key, value in start.items():
        number, name = key.split("/", 1)
        found.setdefault(number, {})[name] = value
    return list(found.values())


def _ranker(name: str, given: Given, first: int | None = None, labels: bool = True) -> Method:
    model = RankerPredictor.of(given.predictor)
    several = members(given.start)[:first]
    return RankerMethod(name, model, several, labels, {} if first else given.kept)


def _with_score(
    regression: type[baselines.WithPrior],
    features: baselines.Features | None,
    name: str,
    given: Given,
) -> Method:
    """Regression on features, with the zero-label score as the prior mean."""
    model = _ranker(name, given, labels=False)
    score = lambda examples: model.predict(model.members, examples)  # noqa: E731
    return regression(name, features or given.features, score)


_TUNED = ("maml", "multitask", "fomaml", "maml_rank", "reptile")
METHODS: dict[str, Entry] = {
    **{name: Entry(_gradient, name, name) for name in _TUNED},
    "finetune": Entry(_gradient, "fresh", "finetune"),
    "anil": Entry(partial(_gradient, scope="head"), "anil", "anil"),
    "boil": Entry(partial(_gradient, scope="encoder"), "boil", "boil"),
    **{name: Entry(_adapters, name, name) for name in ("lora", "lora_rank")},
    "metasgd": Entry(_learned, "metasgd", "metasgd", LEARNED),
    **{name: Entry(_learned, name) for name in ("r2d2", "deepkernel")},
    "maml_1": Entry(lambda n, of: _gradient(n, of, rate=of.rate._replace(steps=1)), "maml", "maml"),
    "maml_fixed": Entry(lambda n, of: _gradient(n, of, first=of.fixed), "maml", "maml"),
    "finetune_epochs": Entry(
        lambda n, of: _gradient(n, of, rate=Rate(*MLP, 0), epochs=of.epochs), "fresh"
    ),
    "joint": Entry(partial(_gradient, rate=Rate("sgd", 0.0, 0)), "joint"),
    "mlp": Entry(lambda n, of: _gradient(n, of, rate=Rate(*MLP, of.steps)), "fresh"),
    "ridge": Entry(lambda name, given: baselines.Ridge(name, given.features)),
    "gp": Entry(lambda name, given: baselines.GaussianProcess(name, given.features)),
    "onehot": Entry(lambda name, given: baselines.Ridge(name, baselines.onehot_features)),
    "ranker": Entry(_ranker, "ranker"),
    "ranker_1": Entry(partial(_ranker, first=1), "ranker"),
    "zero_label": Entry(partial(_ranker, labels=False), "ranker"),
    "onehot_zero": Entry(
        partial(_with_score, baselines.WithPrior, baselines.onehot_features), "ranker"
    ),
    "ridge_zero": Entry(partial(_with_score, baselines.WithPrior, None), "ranker"),
    "gp_zero": Entry(partial(_with_score, baselines.GaussianProcessWithPrior, None), "ranker"),
    "onehot_blosum": Entry(
        lambda name, given: baselines.WithPrior(
            name, baselines.onehot_features, baselines.substitution_score, slope=0.1
        )
    ),
    "blosum": Entry(lambda name, given: baselines.Scored(name, baselines.blosum)),
    "mean": Entry(lambda name, given: baselines.Scored(name, baselines.nothing)),
    **{name: Entry(lambda name, given: given.zero_shot(name)) for name in MASKED},
}
"""Name -> how to build it. ``maml_1`` takes one step, ``maml_fixed`` reads the first labels alone,
``mlp`` is fine-tuning at a rate that is not chosen; the `MASKED` need a language-model head.
``ranker_1`` is the first of the ranker's networks alone, ``zero_label`` its zero-label score."""


def build_methods(
    names: Sequence[str], given: Given, starts: Mapping[str, Params], rates: Mapping[str, Rate]
) -> dict[str, Method]:
    """Build methods by name from their starts and chosen rates."""
    return {
        name: one.build(name, replace(given, start=starts.get(one.start), rate=rates.get(one.rate)))
        for name, one in ((name, METHODS[name]) for name in names)
    }
