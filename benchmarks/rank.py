"""Time `mutmeta rank` as a user starts it: whole processes, their seconds and their memory.

python benchmarks/rank.py --encoder ESM2_8M_FOLDER --output benchmarks/results/NAME.json  # a minute
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from mutmeta_lib.data.variants import AMINO_ACIDS
from mutmeta_lib.models.encoder import load_encoder
from mutmeta_lib.records.record import Record, environment, number, write_record
from mutmeta_lib.study.study import describe_encoder

CASES = {
    "no encoder": (250, 10, "singles", ()),
    "no encoder, with a report": (250, 10, "singles", ("--report", "report.html")),
    "ESM-2 8M": (250, 10, "singles", ("--model", "esm2-8m")),
    "2,000 residues, 10,000 of up to 10 substitutions": (2000, 10, "many.csv", ()),
}
"""What is timed: residues, labels, candidates and options, on a protein that is made up."""


def write_inputs(folder: Path, residues: int, labels: int) -> None:
    """A made-up wild type, measured singles of it, and 10,000 candidates of 1 to 10 changes."""
    rng = np.random.default_rng(0)
    wild_type = "".join(rng.choice(list(AMINO_ACIDS), residues))

    def changed(n: int) -> str:
        places = np.sort(rng.choice(residues, n, replace=False))
        to = (rng.choice([a for a in AMINO_ACIDS if a != wild_type[i]]) for i in places)
        return ":".join(f"{wild_type[i]}{i + 1}{one}" for i, one in zip(places, to, strict=True))

    (folder / "wt.fasta").write_text(f">made up\n{wild_type}\n")
    rows = [f"{changed(1)},{rng.normal():.4f}" for _ in range(labels)]
    (folder / "mine.csv").write_text("\n".join(["mutant,score", *rows]) + "\n")
    many = [changed(n) for n in rng.integers(1, 11, 10_000)]
    (folder / "many.csv").write_text("\n".join(["mutant", *many]) + "\n")


RANK = ("-m", "mutmeta_lib.cli", "rank", "wt.fasta", "mine.csv", "-o", "ranked.csv")


def run_once(folder: Path, command: Sequence[str]) -> dict[str, float]:
    """Wall-clock and processor seconds, and the peak of memory in MB, of one whole process."""
    began = time.perf_counter()
    with (folder / "said.txt").open("w") as said:
        process = subprocess.Popen([sys.executable, *command], cwd=folder, stdout=said, stderr=said)
        _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit((folder / "said.txt").read_text())
    spent = used.ru_utime + used.ru_stime
    return {"seconds": wall, "processor_seconds": spent, "peak_mb": used.ru_maxrss / 1024}


def measure(encoder: str, rounds: int) -> pd.DataFrame:
    """The median of some rounds of every case that the encoder, if one is given, allows.

    The first is a process that imports torch and ends: how fast the machine is, and the least that
    a ranking can take.
    """
    with tempfile.TemporaryDirectory() as folder:
        nothing = "-c", "import torch"
        rows = pd.DataFrame([run_once(Path(folder), nothing) for _ in range(rounds)])
    found = [{"case": "torch imported, nothing ranked", **rows.median()}]
    for name, (residues, labels, candidates, options) in CASES.items():
        if "esm2-8m" in options and not encoder:
            continue
        given = ["--candidates", candidates, *options]
        given += ["--encoder", encoder] if "esm2-8m" in options else []
        with tempfile.TemporaryDirectory() as folder:
            write_inputs(Path(folder), residues, labels)
            rows = pd.DataFrame([run_once(Path(folder), (*RANK, *given)) for _ in range(rounds)])
        found.append({"case": name, "residues": residues, "labels": labels, **rows.median()})
    return pd.DataFrame(found)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print the table, and write the record if that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", default="", help="directory of ESM-2 8M; without it, no case")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", help="write the record here")
    asked, began = parser.parse_args(arguments), time.perf_counter()
    encoder = str(Path(asked.encoder).absolute()) if asked.encoder else ""
    table = measure(encoder, asked.rounds)
    print(table.round(2).to_string(index=False))
    if asked.output:
        none = {"name": "none", "sha256": "", "provenance": {}}
        record = Record(
            experiment="ranking_time",
            profile="full",
            parameters={"rounds": asked.rounds},
            data={},
            encoder=describe_encoder(load_encoder(encoder)) if encoder else none,
            environment=environment("cpu"),
            seconds={"total": round(time.perf_counter() - began, 3)},
            peak_memory_mb=float(table["peak_mb"].max()),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            numbers={"slowest": number(float(table["seconds"].max()), unit="seconds")},
            tables={"cases": table.round(3)},
        )
        write_record(record, asked.output)


if __name__ == "__main__":
    main()
