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
        result = func(*args, **(kwargs or {}))
        self._book(result)
        return result

    def _book(self, tree: object, given: bool = False) -> None:
        for leaf in tree_leaves(tree):
            if isinstance(leaf, torch.Tensor):
                self._book_storage(leaf.untyped_storage(), given)

    def _book_storage(self, storage: torch.UntypedStorage, given: bool) -> None:
        key = storage._cdata
        if key in self.sizes:
            return
        self.sizes[key] = 0 if given else storage.nbytes()
        self.alive += self.sizes[key]
        self.most = max(self.most, self.alive)
        weakref.finalize(storage, self._strike, key)

    def _strike(self, key: int) -> None:
        self.alive -= self.sizes.pop(key)


def peak_tensor_bytes(compute: Callable[[], T]) -> tuple[int, T]:
    """Run something once and count the bytes of all tensors it made that lived at the same time.

    Tensors made before do not count, and neither does what an operation needs inside. The same on
    every machine, unlike a process's resident size. Slows down what it watches.

    >>> peak_tensor_bytes(lambda: torch.zeros(250) + torch.ones(250))[0]
    3000

    """
    with _Ledger() as ledger:
        result = compute()
    return ledger.most, result
