"""The meta-gradient by the learn2learn package (Arnold et al. 2020, arXiv 2008.12284).

learn2learn adapts ``torch.nn.Module`` clones in place of functions of parameters. A small module
holds our parameters and calls our loss, so both backends differentiate the same mathematics.

Importing ``learn2learn`` itself pulls in torchvision and gym, which nothing here needs; bare
package modules stand in for its two ``__init__`` files, so that only ``algorithms.maml`` and what
it uses are executed.
"""

import importlib
import importlib.util
import sys
import types
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from mutmeta_lib.maml.inner import Batch, InnerLoop, Loss, Params
from mutmeta_lib.maml.metasgd import RATE, split_rates
from mutmeta_lib.maml.scope import adapted_names

INSTALL = (
    "pip install --no-deps --config-settings '--build-option=build_ext' "
    "-r requirements-learn2learn.txt"
)


def _bare_package(name: str, folder: Path) -> None:
    """Register a package module that has a path but runs no ``__init__``."""
    package = types.ModuleType(name)
    package.__path__ = [str(folder)]
    sys.modules[name] = package


def load_maml() -> type[nn.Module]:
    """learn2learn's ``MAML`` class (raises as :func:`load_algorithm`)."""
    return load_algorithm("maml").MAML


def load_algorithm(module: str) -> types.ModuleType:
    """A module of ``learn2learn.algorithms``: ``maml`` or ``meta_sgd``.

    Raises:
        ImportError: the package is missing; the message says how to install it.

    """
    if "learn2learn" not in sys.modules:
        spec = importlib.util.find_spec("learn2learn")
        if spec is None or spec.origin is None:
            raise ImportError(
                "the learn2learn backend needs learn2learn 0.2.0, which needs a special install: "
                f"{INSTALL} (pip >= 23.1); the torch.func backend needs nothing"
            )
        root = Path(spec.origin).parent
        _bare_package("learn2learn", root)
        _bare_package("learn2learn.algorithms", root / "algorithms")
    return importlib.import_module(f"learn2learn.algorithms.{module}")


class _LossModule(nn.Module):
    """A module whose forward is a loss and whose parameters are those that adapt.

    All others are held as plain tensors: clones of the module share them, so they stay at the
    start, and their gradient can be asked for.
    """

    def __init__(self, loss: Loss, params: Params, adapted: Sequence[str]):
        super().__init__()
        self.loss = loss
        self.names = list(params)
        self.index = {name: index for index, name in enumerate(adapted)}
        self.fixed: Params = {}
        for name, value in params.items():
            leaf = value.detach().clone()
            if name in self.index:
                # Parameter names may not hold dots.
                self.register_parameter(f"p{self.index[name]}", nn.Parameter(leaf))
            else:
                self.fixed[name] = leaf.requires_grad_(True)

    def leaves(self) -> Params:
        """What gradients are taken with respect to, in the order of the dictionary."""
        return {
            name: getattr(self, f"p{self.index[name]}") if name in self.index else self.fixed[name]
            for name in self.names
        }

    def forward(self, batch: Batch) -> Tensor:
        return self.loss(self.leaves(), batch)


def task_gradient(
    loss: Loss, params: Params, support: Batch, query: Batch, loop: InnerLoop
) -> tuple[Tensor, Params]:
    """Query loss after adaptation and its gradient with respect to the start, by learn2learn."""
    module = _LossModule(loss, params, adapted_names(params, loop.scope))
    learner = load_maml()(module, lr=loop.lr, first_order=loop.first_order).clone()
    for _ in range(loop.steps):
        learner.adapt(learner(support), allow_unused=True)
    value = learner(query)
    # A parameter the loss does not touch (an encoder's unused head) has gradient zero, not None.
    leaves = module.leaves()
    gradient = torch.autograd.grad(
        value, list(leaves.values()), allow_unused=True, materialize_grads=True
    )
    return value.detach(), dict(zip(leaves, gradient, strict=True))


def metasgd_task_gradient(
    loss: Loss, params: Params, support: Batch, query: Batch, loop: InnerLoop
) -> tuple[Tensor, Params]:
    """The same with learned rates (see ``metasgd``), by learn2learn's ``MetaSGD``.

    Every parameter that has a rate must take part in the support loss.
    """
    start, rates = split_rates(params)
    module = _LossModule(loss, start, list(rates))
    learned = nn.ParameterList([nn.Parameter(rate.detach().clone()) for rate in rates.values()])
    meta_sgd = load_algorithm("meta_sgd").MetaSGD
    learner = meta_sgd(module, first_order=loop.first_order, lrs=learned).clone()
    for _ in range(loop.steps):
        learner.adapt(learner(support))
    value = learner(query)
    leaves = module.leaves() | {
        RATE + name: rate for name, rate in zip(rates, learned, strict=True)
    }
    gradient = torch.autograd.grad(
        value, list(leaves.values()), allow_unused=True, materialize_grads=True
    )
    found = dict(zip(leaves, gradient, strict=True))
    return value.detach(), {name: found[name] for name in params}
