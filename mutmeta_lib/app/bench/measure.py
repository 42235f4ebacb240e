"""Seconds, ratios with their spread, memory, and the share of the machine's matmul rate."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from mutmeta_lib.app.bench.cases import Case, largest_difference
from mutmeta_lib.models.tensor_memory import peak_tensor_bytes


@dataclass(frozen=True)
class Timed:
    """What one case gave: median seconds of both, and the ratio of every round."""

    case: Case
    ours: float
    theirs: float
    ratios: tuple[float, ...]
    difference: float
    flops: float

    def row(self, rate: float) -> dict:
        """A row of the table; `rate` is the machine's, in FLOP/s."""
        return {
            "case": self.case.name,
            "order": self.case.order,
            "tasks": self.case.tasks,
            "residues": self.case.residues,
            "backend": self.case.backend,
            "meta_steps_per_s": 1 / self.ours,
            "learn2learn_meta_steps_per_s": 1 / self.theirs,
            "ratio": float(np.median(self.ratios)),
            "ratio_low": min(self.ratios),
            "ratio_high": max(self.ratios),
            "rounds": len(self.ratios),
            "matmul_share": self.flops / self.ours / rate,
            "largest_difference": self.difference,
        }


def seconds(run: Callable[[], object]) -> float:
    """Wall-clock seconds of one call; waits for the GPU where there is one."""
    began = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def time_case(case: Case, rounds: int) -> Timed:
    """Time both sides in turns, after a first call of each that also compares their gradients."""
    difference = largest_difference(case)
    ours, theirs = [], []
    for _ in range(rounds):
        theirs.append(seconds(case.theirs))
        ours.append(seconds(case.ours))
    with FlopCounterMode(display=False) as counter:
        case.ours()
    ratios = tuple(one / other for one, other in zip(theirs, ours, strict=True))
    flops = float(counter.get_total_flops())
    return Timed(case, float(np.median(ours)), float(np.median(theirs)), ratios, difference, flops)


def matmul_rate(size: int = 1024, rounds: int = 20, dtype: torch.dtype = torch.float32) -> float:
    """The best rate of a square matrix product on this machine, FLOP/s."""
    left, right = (torch.randn(size, size).to(dtype) for _ in range(2))
    best = min(seconds(lambda: left @ right) for _ in range(rounds))
    return 2 * size**3 / best


def memory_row(name: str, tasks: int, run: Callable[[], object]) -> dict:
    """Peak of the tensors alive at once in one meta-gradient."""
    return {"what": name, "tasks": tasks, "peak_mb": peak_tensor_bytes(run)[0] / 1e6}
