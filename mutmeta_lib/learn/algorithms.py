"""The family, one entry per algorithm: what the one outer loop needs to know of each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mutmeta_lib.errors import DataError
from mutmeta_lib.learn import gradients as ways
from mutmeta_lib.learn.closed_form import DeepKernelPredictor, RidgePredictor
from mutmeta_lib.learn.gradients import TaskGradient, Together
from mutmeta_lib.learn.inner import InnerLoop, Params, Update, inner_update, with_rates
from mutmeta_lib.learn.lora import with_lora
from mutmeta_lib.learn.ranker import RankerPredictor, RankerTasks
from mutmeta_lib.models.predictor import Predictor
from mutmeta_lib.models.trunk import SUM
from mutmeta_lib.tasks.tasks import Examples, Task, both


def everything(task: Task) -> Examples:
    """All labelled examples of a task, support first."""
    return both(task.support, task.query)


@dataclass(frozen=True, eq=False)
class Algorithm:
    """One member of the family; the defaults are those of MAML.

    ``model`` has the task loss, ``update`` adapts to a support set, ``gradients`` are ways to the
    gradient of one task, ``together`` those of many. ``prepare`` makes the parameters that are
    meta-trained, ``loop`` the inner loop of a new task, ``training_loop`` from that the one inside
    the meta-gradient; ``batches`` is what inner and outer loss see of a task there.
    """

    model: Predictor
    update: Update = inner_update
    gradients: Mapping[str, TaskGradient] = field(default_factory=lambda: ways.BACKENDS)
    together: Callable[[Predictor, InnerLoop], Mapping[str, Together]] = ways.together
    prepare: Callable[[Params, InnerLoop], Params] = lambda params, loop: params
    loop: Callable[[InnerLoop], InnerLoop] = lambda loop: loop
    training_loop: Callable[[InnerLoop], InnerLoop] = lambda loop: loop
    batches: Callable[[Task], tuple[Examples, Examples]] = lambda task: (task.support, task.query)

    def backends(self, loop: InnerLoop) -> dict[str, TaskGradient | Together]:
        """The ways to the meta-gradient that there are, by name; ``auto`` is the fastest."""
        many = dict(self.together(self.model, loop))
        return (
            {"auto": next(iter(many.values()), self.gradients["autograd"])} | self.gradients | many
        )


def _alone(predictor: Predictor, loop: InnerLoop) -> dict:
    """No way to take tasks together."""
    return {}


def _narrow(scope: str, loop: InnerLoop) -> InnerLoop:
    """An algorithm that *is* a scope takes no other."""
    if loop.scope not in ("all", scope):
        told = f"this algorithm adapts {scope!r}, its inner loop asks for {loop.scope!r}"
        raise DataError(told, "leave the scope at 'all', or choose the algorithm 'maml'")
    return replace(loop, scope=scope)


def _adapters(predictor: Predictor) -> Algorithm:
    """Low-rank adapters and the head adapt (`lora`); all else learns in the outer loop alone."""
    model = replace(predictor, encoder=with_lora(predictor.encoder))

    def prepare(params: Params, loop: InnerLoop) -> Params:
        fresh = model.init(torch.Generator().manual_seed(0))
        return {name: params.get(name.replace(".base_layer", ""), fresh[name]) for name in fresh}

    return Algorithm(model, prepare=prepare, loop=partial(_narrow, "lora"))


def reptile_task_gradient(loss, params, support, query, loop) -> tuple[Tensor, Params]:
    """Reptile (Nichol et al. 2018, arXiv 1803.02999): start minus adapted in a gradient's place.

    Nothing is differentiated through. The query loss after adaptation is for the record only.
    """
    with torch.no_grad():
        adapted = inner_update(loss, params, support, loop)
        value = loss(adapted, query)
        return value, {name: start - adapted[name] for name, start in params.items()}


def _solved(kind: type, gradient: Callable, predictor: Predictor, **more: Any) -> Algorithm:
    """A head that is solved on the support; ``gradient`` makes that of a task from the model."""
    model = kind.of(predictor)
    given = {
        "gradients": {"autograd": gradient(model)},
        "together": _alone,
        "prepare": model.prepare,
    }
    return Algorithm(model, model.update, **given, **more)


def _ranker(model: RankerPredictor) -> Algorithm:
    """Trained on the scores without labels and the density of what is held out, given some."""
    many = RankerTasks(model)
    return Algorithm(
        model,
        model.update,
        {"autograd": many},
        lambda predictor, loop: {"batched": many},
        model.prepare,
    )


ALGORITHMS: dict[str, Callable[[Predictor], Algorithm]] = {
    "maml": Algorithm,
    # Joint training on all labels of a task: the control without an inner loop.
    "multitask": partial(
        Algorithm,
        training_loop=lambda loop: replace(loop, steps=0),
        batches=lambda task: (task.support, everything(task)),
    ),
    "anil": partial(Algorithm, loop=partial(_narrow, "head")),
    "boil": partial(Algorithm, loop=partial(_narrow, "encoder")),
    "lora": _adapters,
    "metasgd": partial(
        Algorithm,
        gradients={"autograd": ways.task_gradient},
        together=lambda model, loop: ways.together(model, loop) if model.pooling == SUM else {},
        prepare=with_rates,
    ),
    # Reptile splits no task: it adapts on the labels that the others see in support and query.
    "reptile": partial(
        Algorithm,
        gradients={"autograd": reptile_task_gradient},
        together=_alone,
        batches=lambda task: (everything(task), task.query),
    ),
    "r2d2": partial(_solved, RidgePredictor, lambda model: ways.differentiate(model.update)),
    # Trained on the marginal likelihood of all labels of a task, tested on its query error.
    "deepkernel": partial(
        _solved,
        DeepKernelPredictor,
        lambda model: (
            lambda loss, params, support, query, loop: ways.value_and_gradient(
                lambda at: model.surprise(at, query), params
            )
        ),
        batches=lambda task: (task.support, everything(task)),
    ),
    "ranker": lambda predictor: _ranker(RankerPredictor.of(predictor)),
}
"""Name -> how to make it for a predictor."""
