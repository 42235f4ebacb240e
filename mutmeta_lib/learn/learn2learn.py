"""The meta-gradient by the learn2learn package (Arnold et al. 2020, arXiv 2008.12284).

learn2learn adapts ``torch.nn.Module`` clones in place of functions of parameters. A small module
holds our parameters and calls our loss, so all backends differentiate the same mathematics. It has
no child: learn2learn's own walk over a model's children stops at one that is ``None``, such as a
pooler that was taken off an ESM model.

Two of its classes do MAML's inner loop, ``MAML`` and the more general ``GBML``, which passes each
gradient through a transform; no transform (``None``) is plain gradient descent, a learned scale is
Meta-SGD.

Importing ``learn2learn`` itself pulls in torchvision and gym, which nothing here needs; bare
package modules stand in for its two ``__init__`` files, so that only the algorithm asked for and
what it uses are executed.
"""

import importlib
import importlib.util
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from mutmeta_lib.errors import DataError
from mutmeta_lib.learn.inner import Batch, InnerLoop, Loss, Params
from mutmeta_lib.learn.metasgd import RATE, split_rates
from mutmeta_lib.learn.scope import adapted_names

INSTALL = "pip install --no-deps --use-pep517 -r requirements-learn2learn.txt"


def has_learn2learn() -> bool:
    """Whether the package is installed; only what compares with it needs it."""
    return "learn2learn" in sys.modules or _init_file() is not None


def _init_file() -> str | None:
    spec = importlib.util.find_spec("learn2learn")
    return spec.origin if spec else None


def _bare_package(name: str, folder: Path) -> None:
    """Register a package module that has a path but runs no ``__init__``."""
    package = types.ModuleType(name)
    package.__path__ = [str(folder)]
    sys.modules[name] = package


def load_maml() -> type[nn.Module]:
    """learn2learn's ``MAML`` class (raises as :func:`load_algorithm`)."""
    return load_algorithm("maml").MAML


def load_gbml() -> type[nn.Module]:
    """learn2learn's ``GBML`` class (raises as :func:`load_algorithm`)."""
    loaded = load_algorithm("gbml").GBML
    # It looks these up in the package when called; the bare package has none of its own.
    package = sys.modules["learn2learn"]
    package.optim = importlib.import_module("learn2learn.optim")
    package.clone_module = importlib.import_module("learn2learn.utils").clone_module
    return loaded


def load_algorithm(module: str) -> types.ModuleType:
    """A module of ``learn2learn.algorithms``: ``maml``, ``meta_sgd`` or ``gbml``.

    Raises:
        DataError: the package is missing or broken; the message says how to install it.

    """
    if "learn2learn" not in sys.modules:
        origin = _init_file()
        if origin is None:
            raise DataError(
                "learn2learn 0.2.0 is not installed",
                f"install it with {INSTALL} (pip >= 23.1 and a C compiler); "
                "only comparisons with learn2learn need it",
            )
        root = Path(origin).parent
        _bare_package("learn2learn", root)
        _bare_package("learn2learn.algorithms", root / "algorithms")
    try:
        return importlib.import_module(f"learn2learn.algorithms.{module}")
    except ImportError as error:
        raise DataError(
            f"learn2learn cannot be imported ({error})", f"install it anew with {INSTALL}"
        ) from error


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


class _Scale(nn.Module):
    """Meta-SGD as a transform of gradients."""

    def __init__(self, rate: nn.Parameter):
        super().__init__()
        self.rate = rate

    def forward(self, gradient: Tensor) -> Tensor:
        return self.rate * gradient


def _adapted_gradient(
    learner: nn.Module, leaves: Params, support: Batch, query: Batch, steps: int
) -> tuple[Tensor, Params]:
    """Adapt a clone, and the query loss by the leaves that it was cloned from."""
    learner = learner.clone()
    for _ in range(steps):
        learner.adapt(learner(support))
    value = learner(query)
    # A parameter the loss does not touch (an encoder's unused head) has gradient zero, not None.
    gradient = torch.autograd.grad(
        value, list(leaves.values()), allow_unused=True, materialize_grads=True
    )
    return value.detach(), dict(zip(leaves, gradient, strict=True))


def task_gradient(
    loss: Loss, params: Params, support: Batch, query: Batch, loop: InnerLoop
) -> tuple[Tensor, Params]:
    """Query loss after adaptation and its gradient with respect to the start, by ``MAML``."""
    module = _LossModule(loss, params, adapted_names(params, loop.scope))
    learner = load_maml()(module, lr=loop.lr, first_order=loop.first_order, allow_unused=True)
    return _adapted_gradient(learner, module.leaves(), support, query, loop.steps)


def gbml_task_gradient(
    loss: Loss, params: Params, support: Batch, query: Batch, loop: InnerLoop
) -> tuple[Tensor, Params]:
    """The same by ``GBML`` without a transform."""
    module = _LossModule(loss, params, adapted_names(params, loop.scope))
    learner = load_gbml()(
        module,
        transform=lambda parameter: None,
        lr=loop.lr,
        first_order=loop.first_order,
        allow_unused=True,
    )
    return _adapted_gradient(learner, module.leaves(), support, query, loop.steps)


def _with_rates(
    make: Callable[[nn.Module, nn.ParameterList], nn.Module],
    loss: Loss,
    params: Params,
    support: Batch,
    query: Batch,
    loop: InnerLoop,
) -> tuple[Tensor, Params]:
    """Split parameters from rates, and give the gradient of both in the given order."""
    start, rates = split_rates(params)
    module = _LossModule(loss, start, list(rates))
    learned = nn.ParameterList([nn.Parameter(rate.detach().clone()) for rate in rates.values()])
    leaves = module.leaves() | {RATE + name: r for name, r in zip(rates, learned, strict=True)}
    learner = make(module, learned)
    value, found = _adapted_gradient(learner, leaves, support, query, loop.steps)
    return value, {name: found[name] for name in params}


def metasgd_task_gradient(
    loss: Loss, params: Params, support: Batch, query: Batch, loop: InnerLoop
) -> tuple[Tensor, Params]:
    """The same with learned rates (see ``metasgd``), by learn2learn's ``MetaSGD``.

    Every parameter that has a rate must take part in the support loss.
    """

    def make(module: nn.Module, rates: nn.ParameterList) -> nn.Module:
        meta_sgd = load_algorithm("meta_sgd").MetaSGD
        return meta_sgd(module, first_order=loop.first_order, lrs=rates)

    return _with_rates(make, loss, params, support, query, loop)


def metasgd_gbml_task_gradient(
    loss: Loss, params: Params, support: Batch, query: Batch, loop: InnerLoop
) -> tuple[Tensor, Params]:
    """The same by ``GBML``, with one learned scale per gradient as its transform."""

    def make(module: nn.Module, rates: nn.ParameterList) -> nn.Module:
        scales = map(_Scale, rates)  # GBML asks for one transform per parameter, in order
        return load_gbml()(
            module,
            transform=lambda parameter: next(scales),
            lr=1.0,
            first_order=loop.first_order,
            allow_unused=True,
        )

    return _with_rates(make, loss, params, support, query, loop)
