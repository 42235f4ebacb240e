"""The family, one entry per algorithm: what the one outer loop needs to know of each.

An algorithm is a model that predicts from adapted parameters, an inner loop that adapts them, and
the gradient of one task. A new one is a short file with these and one line in ``ALGORITHMS``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch

from mutmeta_lib.errors import DataError
from mutmeta_lib.learn.autograd import adapt_alone
from mutmeta_lib.learn.batched import (
    TaskLosses,
    batched_gradient,
    lowrank_head_losses,
    vmapped_losses,
)
from mutmeta_lib.learn.deep_kernel import DeepKernelPredictor, surprise_task_gradient
from mutmeta_lib.learn.inner import InnerLoop, Params, Update, inner_update
from mutmeta_lib.learn.learn2learn import metasgd_gbml_task_gradient, metasgd_task_gradient
from mutmeta_lib.learn.meta import BACKENDS, BatchedGradient, TaskGradient, differentiate
from mutmeta_lib.learn.metasgd import metasgd_update, with_rates
from mutmeta_lib.learn.r2d2 import RidgePredictor
from mutmeta_lib.learn.reptile import reptile_task_gradient
from mutmeta_lib.models.predictor import Predictor
from mutmeta_lib.tasks.tasks import Examples, Task

Batches = tuple[Examples, Examples]
"""What the inner and the outer loss see of a task."""


def support_and_query(task: Task) -> Batches:
    """Adapt on the support, be judged on the query."""
    return task.support, task.query


def everything(task: Task) -> Examples:
    """All labelled examples of a task, support first."""
    return Examples(
        task.support.assay,
        np.concatenate([task.support.rows, task.query.rows]),
        torch.cat([task.support.labels, task.query.labels]),
    )


def _as_given(params: Params, loop: InnerLoop) -> Params:
    return params


def _unchanged(loop: InnerLoop) -> InnerLoop:
    return loop


@dataclass(frozen=True, eq=False)
class Algorithm:
    """One member of the family.

    ``model`` predicts from adapted parameters, and its ``loss`` is the task loss; ``update`` adapts
    parameters to a support set; ``backends`` are the gradients of one task by name, as for
    ``meta_gradient``. ``prepare`` turns given parameters into those that are meta-trained, ``loop``
    the inner loop asked for into the one a new task is adapted by, and ``training_loop`` that one
    into the one inside the meta-gradient. ``batches`` is what inner and outer loss see of a task in
    meta-training. ``through`` says that the gradient is that of the query loss through ``update``,
    so that tasks may be taken side by side. The defaults are those of MAML.
    """

    model: Predictor
    update: Update = inner_update
    backends: Mapping[str, TaskGradient] = field(default_factory=lambda: BACKENDS)
    prepare: Callable[[Params, InnerLoop], Params] = _as_given
    loop: Callable[[InnerLoop], InnerLoop] = _unchanged
    training_loop: Callable[[InnerLoop], InnerLoop] = _unchanged
    batches: Callable[[Task], Batches] = support_and_query
    through: bool = True

    @property
    def adapt(self) -> Update:
        """``update`` where no gradient is taken through it."""
        return adapt_alone if self.update is inner_update else self.update

    def losses(self, loop: InnerLoop) -> dict[str, TaskLosses]:
        """Query losses of many tasks at once by name, where this algorithm and model have any."""
        if not self.through:
            return {}
        found = {}
        if self.model.start is None or hasattr(self.model.encoder.module, "layers"):
            found["vmap"] = vmapped_losses(self.model, self.update)
        plain = type(self.model) is Predictor and self.update is inner_update
        if plain and self.model.start is None and loop.scope in ("all", "head"):
            found["lowrank"] = lowrank_head_losses(self.model)
        return found

    def batched(self, loop: InnerLoop) -> dict[str, BatchedGradient]:
        """Gradients of many tasks at once by name, where this algorithm and model have any."""
        return {
            name: partial(batched_gradient, losses, self.model)
            for name, losses in self.losses(loop).items()
        }

    def fastest(self, loop: InnerLoop) -> str:
        """What the backend ``auto`` stands for: the fastest by our measurements, all are exact."""
        if "lowrank" in self.batched(loop):
            return "lowrank"
        return "autograd" if "autograd" in self.backends else "torch.func"


def _in_scope(scope: str) -> Callable[[InnerLoop], InnerLoop]:
    """An algorithm that *is* a scope takes no other."""

    def narrow(loop: InnerLoop) -> InnerLoop:
        if loop.scope not in ("all", scope):
            raise DataError(
                f"this algorithm adapts {scope!r}, its inner loop asks for {loop.scope!r}",
                "leave the scope at 'all', or choose the algorithm 'maml'",
            )
        return replace(loop, scope=scope)

    return narrow


def _multitask(predictor: Predictor) -> Algorithm:
    """Joint training on all labels of a task: the control without an inner loop."""
    return Algorithm(
        predictor,
        training_loop=lambda loop: replace(loop, steps=0),
        batches=lambda task: (task.support, everything(task)),
    )


def _metasgd(predictor: Predictor) -> Algorithm:
    backends = {
        "torch.func": differentiate(metasgd_update),
        "learn2learn": metasgd_task_gradient,
        "learn2learn-gbml": metasgd_gbml_task_gradient,
    }
    return Algorithm(predictor, metasgd_update, backends, prepare=with_rates)


def _reptile(predictor: Predictor) -> Algorithm:
    """Reptile splits no task: it adapts on the labels that the others see in support and query."""
    return Algorithm(
        predictor,
        backends={"torch.func": reptile_task_gradient},
        batches=lambda task: (everything(task), task.query),
        through=False,
    )


def _r2d2(predictor: Predictor) -> Algorithm:
    model = RidgePredictor.of(predictor)
    backends = {"torch.func": differentiate(model.update)}
    return Algorithm(model, model.update, backends, prepare=model.prepare, through=False)


def _deepkernel(predictor: Predictor) -> Algorithm:
    """Trained on the marginal likelihood of all labels of a task, tested on its query error."""
    model = DeepKernelPredictor.of(predictor)
    return Algorithm(
        model,
        model.update,
        {"torch.func": surprise_task_gradient(model)},
        prepare=model.prepare,
        batches=lambda task: (task.support, everything(task)),
        through=False,
    )


ALGORITHMS: dict[str, Callable[[Predictor], Algorithm]] = {
    "maml": Algorithm,
    "multitask": _multitask,
    "anil": lambda predictor: Algorithm(predictor, loop=_in_scope("head")),
    "boil": lambda predictor: Algorithm(predictor, loop=_in_scope("encoder")),
    "metasgd": _metasgd,
    "reptile": _reptile,
    "r2d2": _r2d2,
    "deepkernel": _deepkernel,
}
"""Name -> how to make it for a predictor."""
