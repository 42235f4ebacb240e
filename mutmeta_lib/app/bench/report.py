"""All cases, the bars they are held to, and the record of it."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import product

import numpy as np
import pandas as pd

from mutmeta_lib.app.bench.cases import Case, encoder_case, head_case
from mutmeta_lib.app.bench.latency import esm_latency, tiny_latency
from mutmeta_lib.app.bench.measure import matmul_rate, memory_row, time_case
from mutmeta_lib.learn.learn2learn import load_maml
from mutmeta_lib.records.record import Record, environment, number, peak_memory_mb


@dataclass(frozen=True)
class Bar:
    """A goal that was set before the engine was written."""

    number: str
    says: str
    least: float | None = None
    most: float | None = None

    def holds(self, value: float) -> bool:
        """Whether a measured value meets it."""
        above = self.least is None or value >= self.least
        return above and (self.most is None or value <= self.most)


BARS = (
    Bar("head_64_second_ratio", "a: head 320-256-128-1, 64 tasks: 8 times learn2learn", least=8),
    Bar("small_head_64_second_ratio", "a: head 320-128-1, 64 tasks: 8 times learn2learn", least=8),
    Bar("last_second_ratio", "b: last 2 layers, second order: 4 times learn2learn", least=4),
    Bar("whole_second_ratio", "c: all of ESM-2 8M, second order: 1.2 times", least=1.2),
    Bar("tiny_seconds", "tiny: 10 labels to 4,750 scores within 2 s", most=2),
    Bar("esm_cold_seconds", "ESM-2 8M: the same within 60 s, nothing cached", most=60),
    Bar("esm_cached_seconds", "ESM-2 8M: the same within 5 s from its cache", most=5),
    Bar("memory_second_over_first", "memory, second order over first: 2.5 times", most=2.5),
    Bar("memory_tasks", "memory at twice the tasks: the same", most=1.05),
)


def bench(*, quick: bool = False, progress: Callable[[str], None] = lambda line: None) -> Record:
    """Measure everything in one run.

    Args:
        quick: few tasks and rounds, no ESM-2: a minute, to see that it works.
        progress: called with a line before each case.

    Returns:
        A record: table ``cases`` (meta-steps per second of both sides, ratio with its lowest and
        highest round, share of the matmul rate, largest difference of the gradients), ``memory``,
        ``bars``; the numbers named in ``BARS`` and the machine's ``matmul_gflops``.

    Raises:
        DataError: learn2learn is missing.

    """
    load_maml()  # told now if it is missing, not after the first measurements
    began = datetime.now(UTC)
    progress("matrix products")
    rate = matmul_rate()
    rows, numbers = [], {"matmul_gflops": number(rate / 1e9, unit="GFLOP/s")}
    for name, make, rounds in _cases(quick):
        progress(name)
        timed = time_case(make(), rounds)
        rows.append(timed.row(rate))
        numbers[f"{name}_ratio"] = number(
            float(np.median(timed.ratios)), min(timed.ratios), max(timed.ratios), rounds
        )
    progress("memory")
    memory = _memory(quick)
    numbers |= _memory_numbers(memory)
    progress("latency")
    rounds = 1 if quick else 5
    numbers["tiny_seconds"] = _seconds(tiny_latency(rounds))
    if not quick:
        cold, cached = esm_latency(rounds)
        numbers["esm_cold_seconds"] = _seconds([cold])
        numbers["esm_cached_seconds"] = _seconds(cached)
    return Record(
        experiment="bench",
        profile="quick" if quick else "full",
        parameters={"quick": quick},
        data={},
        encoder={"name": "random weights of ESM-2 8M's shape", "sha256": "none", "provenance": {}},
        environment=environment("cpu"),
        seconds={"total": (datetime.now(UTC) - began).total_seconds()},
        peak_memory_mb=peak_memory_mb(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        numbers=numbers,
        tables={
            "cases": pd.DataFrame(rows),
            "memory": pd.DataFrame(memory),
            "bars": pd.DataFrame(bar_rows(numbers)),
        },
    )


def _cases(quick: bool) -> list[tuple[str, Callable[[], Case], int]]:
    """Name, how to make it, rounds."""
    orders = {"first": True, "second": False}
    cases: list[tuple[str, Callable[[], Case], int]] = []
    for tasks, (order, first) in product((4,) if quick else (4, 16, 64), orders.items()):
        head = partial(head_case, tasks, first)
        cases.append((f"head_{tasks}_{order}", head, 3 if quick else 9))
        cases.append(
            (f"small_head_{tasks}_{order}", partial(head, hidden=(128,)), 3 if quick else 9)
        )
    if quick:
        return cases
    cases.append(("head_64_second_vmap", partial(head_case, 64, False, "vmap"), 5))
    # Through an encoder the time is proportional to the number of tasks, so a few will do.
    cases += [
        ("last_first", partial(encoder_case, 2, True, 60, 4), 2),
        ("last_second", partial(encoder_case, 4, False, 60, 4), 2),
        ("last_long_second", partial(encoder_case, 1, False, 130, 4), 2),
        ("last_second_bfloat16", partial(encoder_case, 2, False, 60, 4, coarse=True), 2),
        ("whole_first", partial(encoder_case, 2, True, 60, 0), 3),
        ("whole_second", partial(encoder_case, 2, False, 60, 0), 3),
        ("whole_second_bfloat16", partial(encoder_case, 1, False, 60, 0, coarse=True), 2),
        ("whole_recursion", partial(encoder_case, 1, False, 60, 0, "recursion"), 2),
    ]
    return cases


def _memory(quick: bool) -> list[dict]:
    """Peaks of one meta-gradient through all of ESM-2 8M; through the head where it is quick."""

    def case(tasks: int, first: bool, backend: str) -> Case:
        if quick:
            return head_case(tasks, first, backend)
        return encoder_case(tasks, first, 60, 0, backend)

    rows = []
    for tasks in (1, 2):
        rows += [
            memory_row("first order", tasks, case(tasks, True, "autograd").ours),
            memory_row("second order, recursion", tasks, case(tasks, False, "recursion").ours),
        ]
    whole = case(1, False, "autograd")
    return [
        *rows,
        memory_row("second order, whole graph", 1, whole.ours),
        memory_row("second order, torch.func", 1, case(1, False, "torch.func").ours),
        memory_row("second order, learn2learn", 1, whole.theirs),
    ]


def _memory_numbers(rows: list[dict]) -> dict:
    peak = {(row["what"], row["tasks"]): row["peak_mb"] for row in rows}
    recursion, first = "second order, recursion", "first order"
    return {
        "memory_second_over_first": number(peak[recursion, 1] / peak[first, 1]),
        "memory_tasks": number(peak[recursion, 2] / peak[recursion, 1]),
    }


def _seconds(values: list[float]) -> dict:
    return number(float(np.median(values)), min(values), max(values), len(values), "s")


def bar_rows(numbers: dict) -> list[dict]:
    """Every bar that was measured, with its value and whether it holds."""
    rows = []
    for bar in BARS:
        if bar.number in numbers:
            value = numbers[bar.number]["value"]
            rows.append({"bar": bar.says, "measured": value, "holds": bar.holds(value)})
    return rows
