"""Several processes that meta-train one start: each takes its share of a meta-step's tasks.

Every process draws the same tasks from the same generator, works on every ``size``-th of them, and
all of them add up their gradients. So all take the same step, and it is that of one process but
for the order in which numbers are added. They are started by ``accelerate launch``, on one machine
or many; see ``launched``.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from safetensors.torch import load, save
from torch import Tensor

from mutmeta_lib.errors import DataError

T = TypeVar("T")
Content = tuple[dict[str, Tensor], dict]
"""Named tensors and JSON values, as a checkpoint holds them."""

TIMEOUT = 600.0
"""Seconds that a process waits for the others before it gives up."""


@dataclass(frozen=True)
class Ranks:
    """This process's place among those of a run. Alone, everything stays as it is.

    ``device`` is where tensors lie when they travel: the GPU of this process, or the CPU.

    >>> Ranks().share(["a", "b"]), Ranks(rank=1, size=2).share(["a", "b", "c"])
    (['a', 'b'], ['b'])
    """

    rank: int = 0
    size: int = 1
    device: torch.device | str = "cpu"

    @property
    def first(self) -> bool:
        """Whether this is the one process that writes and shows."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """The items this process works on; shares differ by one item at most and may be empty."""
        return items[self.rank :: self.size]

    def sum(self, values: Tensor) -> Tensor:
        """The sum over processes, the same bits on all of them."""
        if self.size == 1:
            return values
        total = values.detach().to(self.device, copy=True)
        _together(lambda: torch.distributed.all_reduce(total))
        return total.to(values.device)

    def gather(self, own: Tensor, n_items: int) -> Tensor:
        """One number per item from those of each process's share, ``(n_items,)``."""
        if self.size == 1:
            return own
        values = torch.zeros(n_items, dtype=own.dtype, device=own.device)
        values[self.rank :: self.size] = own
        return self.sum(values)

    def any(self, flag: bool) -> bool:
        """Whether any process says so."""
        return bool(self.sum(torch.tensor(int(flag))))

    def check_same(self, question: object, what: str) -> None:
        """Refuse to go on together where the processes were asked for different things.

        Raises:
            DataError: on all of them; ``what`` is named.

        """
        digest = hashlib.sha256(json.dumps(question, sort_keys=True).encode()).digest()
        rows = torch.zeros(self.size, len(digest), dtype=torch.int64)
        rows[self.rank] = torch.tensor(list(digest))
        if (self.sum(rows) != rows[self.rank]).any():
            raise DataError(
                f"the processes of this run differ in their {what}",
                "start all of them with the same command, data and versions",
            )

    def from_first(self, content: Content | None) -> Content | None:
        """What the first process has, on all of them."""
        if self.size == 1:
            return content
        parts = [b"", b""]
        if content is not None:
            whole = {name: value.cpu().contiguous() for name, value in content[0].items()}
            parts = [save(whole), json.dumps(content[1]).encode()]
        tensors, state = (self._bytes_from_first(part) for part in parts)
        return (load(tensors), json.loads(state)) if state else None

    def _bytes_from_first(self, data: bytes) -> bytes:
        length = int(self.sum(torch.tensor(len(data) if self.first else 0)))
        if not length:
            return b""
        buffer = torch.frombuffer(bytearray(data if self.first else length), dtype=torch.uint8)
        buffer = buffer.to(self.device)
        _together(lambda: torch.distributed.broadcast(buffer, src=0))
        return buffer.cpu().numpy().tobytes()


ALONE = Ranks()
"""The only process of a run."""


def _together(act: Callable[[], object]) -> None:
    """Do what all processes must do at once.

    Raises:
        DataError: another process ended or does not answer.

    """
    try:
        act()
    except RuntimeError as error:  # what gloo and NCCL raise for a lost connection and a timeout
        raise DataError(
            "another process of this run has ended or does not answer",
            "look at what it said, and start all of them again: the run goes on from its last "
            "checkpoint",
        ) from error


@contextmanager
def launched(device: str = "auto", *, timeout: float = TIMEOUT) -> Iterator[Ranks]:
    """This process's place in a run that ``accelerate launch`` started; alone without it.

    Processes talk by NCCL where they compute on GPUs, one each, and by gloo on CPUs.

    Args:
        device: ``cpu`` keeps to CPUs; ``auto`` and ``cuda`` take GPUs where there are any.
        timeout: seconds to wait for the other processes before giving up.

    Raises:
        DataError: accelerate is not installed, or the processes do not find each other.

    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    try:
        from accelerate import PartialState
    except ImportError:
        raise DataError(
            "a run of several processes needs accelerate, which is not installed",
            'run: pip install "mutmeta[distributed]"',
        ) from None
    on_cpu = device == "cpu" or not torch.cuda.is_available()
    try:
        state = PartialState(cpu=on_cpu, timeout=timedelta(seconds=timeout))
    except RuntimeError as error:
        raise DataError(
            "the processes of this run do not find each other",
            "look at the addresses and numbers given to accelerate launch",
        ) from error
    place = torch.device("cpu") if on_cpu else state.device
    try:
        yield Ranks(state.process_index, state.num_processes, place)
    finally:
        state.destroy_process_group()
