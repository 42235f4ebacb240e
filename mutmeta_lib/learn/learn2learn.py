"""The meta-gradient by the learn2learn package (Arnold et al. 2020, arXiv 2008.12284).

It adapts clones of a ``torch.nn.Module``: a small one with our parameters and our loss, without a
child, as it stops at one that is ``None``. Bare packages stand in for its two ``__init__`` files,
which import torchvision and gym.
"""

import importlib
import importlib.util
import sys
import types
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from mutmeta_lib.errors import DataError
from mutmeta_lib.learn.inner import UNUSED, Batch, InnerLoop, Loss, Params, adapted_names

INSTALL = "pip install --no-deps --use-pep517 -r requirements-learn2learn.txt"


def has_learn2learn() -> bool:
    """Whether the package is installed."""
    return "learn2learn" in sys.modules or importlib.util.find_spec("learn2learn") is not None


def load_algorithm() -> types.ModuleType:
    """The module ``learn2learn.algorithms.maml``, or how to install it."""
    if not has_learn2learn():
        mend = f"install it with {INSTALL} (pip >= 23.1 and a C compiler); only comparisons with "
        raise DataError("learn2learn 0.2.0 is not installed", f"{mend}learn2learn need it")
    if "learn2learn" not in sys.modules:
        root = Path(importlib.util.find_spec("learn2learn").origin).parent
        for name, folder in (("", root), (".algorithms", root / "algorithms")):
            package = types.ModuleType(f"learn2learn{name}")  # it has a path, but runs no __init__
            package.__path__ = [str(folder)]
            sys.modules[package.__name__] = package
    try:
        return importlib.import_module("learn2learn.algorithms.maml")
    except ImportError as error:
        told = f"learn2learn cannot be imported ({error})"
        raise DataError(told, f"install it anew with {INSTALL}") from error


class LossModule(nn.Module):
    """A module whose forward is a loss; its parameters adapt, clones share all other tensors."""

    def __init__(self, loss: Loss, params: Params, adapted: Sequence[str]):
        super().__init__()
        self.loss, self.adapted = loss, adapted
        self.given = {n: value.detach().clone().requires_grad_() for n, value in params.items()}
        for place, name in enumerate(adapted):  # a module's own names may have no dots
            self.register_parameter(f"p{place}", nn.Parameter(self.given[name].detach()))

    def leaves(self) -> Params:
        """What gradients are taken with respect to, in the order of the dictionary."""
        return self.given | {n: getattr(self, f"p{i}") for i, n in enumerate(self.adapted)}

    def forward(self, batch: Batch) -> Tensor:
        """The loss."""
        return self.loss(self.leaves(), batch)


def task_gradient(
    loss: Loss, params: Params, support: Batch, query: Batch, loop: InnerLoop
) -> tuple[Tensor, Params]:
    """Query loss after adaptation and its gradient with respect to the start, by ``MAML``."""
    module = LossModule(loss, params, adapted_names(params, loop.scope))
    maml = load_algorithm().MAML
    learner = maml(module, lr=loop.lr, first_order=loop.first_order, allow_unused=True).clone()
    for _ in range(loop.steps):
        learner.adapt(learner(support))
    leaves, value = module.leaves(), learner(query)
    gradient = torch.autograd.grad(value, list(leaves.values()), **UNUSED)
    return value.detach(), dict(zip(leaves, gradient, strict=True))
