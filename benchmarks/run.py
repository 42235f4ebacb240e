"""Time our engine against learn2learn's loop on this machine, in turns, and print the ratios.

python benchmarks/run.py --quick                                # a minute
python benchmarks/run.py --output benchmarks/results/NAME.json  # a quarter of an hour
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from cases import Case, encoder_case, head_case, made_up_assay, write_esm
from torch.utils.flop_counter import FlopCounterMode

from mutmeta_lib.errors import DataError
from mutmeta_lib.learn.inner import InnerLoop, inner_update
from mutmeta_lib.learn.learn2learn import load_algorithm
from mutmeta_lib.models.encoder import load_encoder
from mutmeta_lib.models.predictor import Predictor, predict
from mutmeta_lib.records.files import check_writable
from mutmeta_lib.records.record import (
    Record,
    environment,
    number,
    peak_memory_mb,
    write_record,
)
from mutmeta_lib.tasks.tasks import encode_assay, make_task

BARS = {
    "head_64_second_ratio": ("head 320-256-128-1, 64 tasks: 5 times learn2learn", 5, np.inf),
    "small_head_64_second_ratio": ("head 320-128-1, 64 tasks: 8 times learn2learn", 8, np.inf),
    "whole_second_ratio": ("all of ESM-2 8M, second order: 1.2 times", 1.2, np.inf),
    "tiny_seconds": ("tiny: 10 labels to 4,750 scores within 2 s", 0, 2),
}
"""Goals that were set before the engine was written: number -> words, lowest, highest."""


def seconds(run: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def matmul_rate(size: int = 1024, rounds: int = 20) -> float:
    """The best rate of a square matrix product on this machine, FLOP/s."""
    left, right = torch.randn(size, size), torch.randn(size, size)
    return 2 * size**3 / min(seconds(lambda: left @ right) for _ in range(rounds))


def time_case(case: Case, rounds: int, rate: float) -> dict:
    """Time both sides in turns, after a first call of each that compares their gradients."""
    difference = case.largest_difference()
    theirs, ours = np.array([[seconds(case.theirs), seconds(case.ours)] for _ in range(rounds)]).T
    with FlopCounterMode(display=False) as counter:
        case.ours()
    ratios = theirs / ours
    return {
        "case": case.name,
        "order": case.order,
        "tasks": case.tasks,
        "residues": case.residues,
        "backend": case.backend,
        "meta_steps_per_s": 1 / float(np.median(ours)),
        "learn2learn_meta_steps_per_s": 1 / float(np.median(theirs)),
        "ratio": float(np.median(ratios)),
        "ratio_low": float(ratios.min()),
        "ratio_high": float(ratios.max()),
        "rounds": rounds,
        "matmul_share": counter.get_total_flops() / float(np.median(ours)) / rate,
        "largest_difference": difference,
    }


def tiny_latency(rounds: int, residues: int = 250, labels: int = 10) -> list[float]:
    """Seconds from ten labels to a score for every single variant, all of ``tiny`` adapted."""
    encoder, assay = load_encoder("tiny"), made_up_assay(residues)
    predictor = Predictor(encoder)
    start = predictor.init(torch.Generator().manual_seed(0))
    order = np.random.default_rng(0).permutation(len(assay))

    def adapt_and_score() -> None:
        encoded = encode_assay(assay, "separator", encoder.vocabulary, encoder.max_tokens)
        task = make_task(encoded, order[:labels], np.arange(len(assay)))
        loop = InnerLoop(0.01, 5, first_order=True)
        adapted = inner_update(predictor.loss, start, task.support, loop)
        predict(predictor, adapted, task.query.tokens)

    return [seconds(adapt_and_score) for _ in range(rounds + 1)][1:]  # the first one warms up


def cases(quick: bool, folder: Path) -> list[tuple[str, Callable[[], Case], int]]:
    """Name, how to make it, rounds."""
    found: list[tuple[str, Callable[[], Case], int]] = []
    for tasks, first in product((4,) if quick else (4, 16, 64), (True, False)):
        name = f"head_{tasks}_{'first' if first else 'second'}"
        found.append((name, partial(head_case, tasks, first), 3 if quick else 9))
        small = partial(head_case, tasks, first, hidden=(128,))
        found.append((f"small_{name}", small, 3 if quick else 9))
    if not quick:
        # Through an encoder the time is proportional to the number of tasks, so two will do.
        write_esm(folder)
        for first in (True, False):
            whole = partial(encoder_case, 2, first, folder)
            found.append((f"whole_{'first' if first else 'second'}", whole, 3))
    return found


def measure(quick: bool, say: Callable[[str], None]) -> Record:
    """Everything in one run, as a record with the tables ``cases`` and ``bars``.

    Raises:
        DataError: learn2learn is missing.

    """
    load_algorithm()  # told now if it is missing, not after the first measurements
    began = time.perf_counter()
    rate = matmul_rate()
    numbers = {"matmul_gflops": number(rate / 1e9, unit="GFLOP/s")}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, make, rounds in cases(quick, Path(folder)):
            say(name)
            row = time_case(make(), rounds, rate)
            rows.append(row)
            interval = (row["ratio"], row["ratio_low"], row["ratio_high"])
            numbers[f"{name}_ratio"] = number(*interval, rounds)
    say("latency")
    found = tiny_latency(1 if quick else 5)
    interval = (float(np.median(found)), min(found), max(found))
    numbers["tiny_seconds"] = number(*interval, len(found), "s")
    return Record(
        experiment="bench",
        profile="quick" if quick else "full",
        parameters={"quick": quick},
        data={},
        encoder={"name": "random weights of ESM-2 8M's shape", "sha256": "none", "provenance": {}},
        environment=environment("cpu"),
        seconds={"total": time.perf_counter() - began},
        peak_memory_mb=peak_memory_mb(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        numbers=numbers,
        tables={"cases": pd.DataFrame(rows), "bars": bar_table(numbers)},
    )


def bar_table(numbers: dict) -> pd.DataFrame:
    """Every bar that was measured, with its value and whether it holds."""
    rows = []
    for name, (words, low, high) in BARS.items():
        if name in numbers:
            value = numbers[name]["value"]
            rows.append({"bar": words, "measured": value, "holds": low <= value <= high})
    return pd.DataFrame(rows, columns=["bar", "measured", "holds"])


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few tasks and rounds, no ESM-2")
    parser.add_argument("--output", type=Path, help="write the record here (json)")
    given = parser.parse_args(arguments)
    try:
        if given.output is not None:
            check_writable(given.output)
        record = measure(given.quick, lambda line: print(line, file=sys.stderr))
    except DataError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    if given.output is not None:
        write_record(record, given.output)
    rate = record.numbers["matmul_gflops"]["value"]
    machine = record.environment
    print(f"{machine['processor']}, {machine['threads']} threads, {rate:.0f} GFLOP/s")
    shown = record.table("cases").drop(columns=["residues", "rounds"])
    for table in (shown, record.table("bars")):
        print("\n" + table.to_string(index=False, float_format="{:.3g}".format))


if __name__ == "__main__":
    main()
