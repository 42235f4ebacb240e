"""How much memory tensors hold at most while something is computed, counted exactly."""

import weakref
from collections.abc import Callable
from typing import TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

T = TypeVar("T")


class _Ledger(TorchDispatchMode):
    """Book every new storage when it is made and when it is gone."""

    def __init__(self):
        super().__init__()
        self.sizes: dict[int, int] = {}
        self.alive = self.most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self._book((args, kwargs), given=True)
        self._book(result := func(*args, **(kwargs or {})))
        return result

    def _book(self, tree: object, given: bool = False) -> None:
        for leaf in tree_leaves(tree):
            storage = leaf.untyped_storage() if isinstance(leaf, torch.Tensor) else None
            if storage is not None and storage._cdata not in self.sizes:
                self.sizes[storage._cdata] = 0 if given else storage.nbytes()
                self.alive += self.sizes[storage._cdata]
                self.most = max(self.most, self.alive)
                weakref.finalize(storage, self._strike, storage._cdata)

    def _strike(self, key: int) -> None:
        self.alive -= self.sizes.pop(key)


def peak_tensor_bytes(compute: Callable[[], T]) -> tuple[int, T]:
    """Bytes of all tensors made in one call that lived at the same time, and what it returned.

    Neither what was made before counts nor what an operation needs inside: the same on every
    machine, unlike a process's resident size.

    >>> peak_tensor_bytes(lambda: torch.zeros(250) + torch.ones(250))[0]
    3000
    """
    with _Ledger() as ledger:
        result = compute()
    return ledger.most, result
