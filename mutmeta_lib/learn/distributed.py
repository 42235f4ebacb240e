"""Several processes that meta-train one start: each takes its share of a meta-step's tasks.

All draw the same tasks, work on every ``size``-th of them and add up their gradients: the step is
that of one process up to rounding. ``accelerate launch`` starts them. They talk by accelerate's
functions, which pickle what is no tensor: only among themselves, never a file.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor

from mutmeta_lib.errors import DataError

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process's place among those of a run, and the device it computes on.

    >>> Ranks().share(["a", "b"]), Ranks(rank=1, size=2).share(["a", "b", "c"])
    (['a', 'b'], ['b'])
    """

    rank: int = 0
    size: int = 1
    device: str = "auto"

    @property
    def first(self) -> bool:
        """Whether this is the one process that writes and shows."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """The items this process works on; shares differ by one item at most and may be empty."""
        return items[self.rank :: self.size]

    def sum(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The sums over processes, the same bits on all of them."""
        return self._together(lambda by: by.reduce(tensors, "sum"), tensors)

    def all(self, own: T) -> list[T]:
        """What every process has, in their order."""
        return self._together(lambda by: by.gather_object([own]), [own])

    def from_first(self, own: T) -> T:
        """What the first process has."""
        return self._together(lambda by: by.broadcast_object_list([own])[0], own)

    def gather(self, own: Sequence[float], n_items: int) -> list[float]:
        """One number per item, in the order of the items, from those of each process's share."""
        shares = self.all(list(own))
        return [shares[item % self.size][item // self.size] for item in range(n_items)]

    def check_same(self, question: object, what: str) -> None:
        """Refuse, on all processes, to go on where they were asked for different things."""
        if len(set(self.all(json.dumps(question, sort_keys=True)))) > 1:
            told = f"the processes of this run differ in their {what}"
            raise DataError(told, "start all of them with the same command, data and versions")

    def _together(self, act: Callable[[Any], T], alone: T) -> T:
        """Do by accelerate what all processes must do at once."""
        if self.size == 1:
            return alone
        from accelerate.utils import operations

        try:
            return act(operations)
        except RuntimeError as error:  # gloo's and NCCL's for a lost connection and a timeout
            mend = "look at what it said, and start all again: they go on from their checkpoint"
            told = "another process of this run has ended or does not answer"
            raise DataError(told, mend) from error


ALONE = Ranks()
"""The only process of a run."""


@contextmanager
def launched(device: str = "auto", *, timeout: float = 600.0) -> Iterator[Ranks]:
    """This process's place in a run of ``accelerate launch``: by NCCL on GPUs, by gloo on CPUs."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks(device=device)
        return
    try:
        from accelerate import PartialState
    except ImportError:
        told = "a run of several processes needs accelerate, which is not installed"
        raise DataError(told, 'run: pip install "mutmeta[distributed]"') from None
    on_cpu = device == "cpu" or not torch.cuda.is_available()
    try:
        state = PartialState(cpu=on_cpu, timeout=timedelta(seconds=timeout))
    except RuntimeError as error:
        mend = "look at the addresses and numbers given to accelerate launch"
        raise DataError("the processes of this run do not find each other", mend) from error
    where = "cpu" if on_cpu else str(state.device)
    try:
        yield Ranks(state.process_index, state.num_processes, where)
    finally:
        state.destroy_process_group()
