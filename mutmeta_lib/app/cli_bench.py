"""The command ``mutmeta bench``: the engine against learn2learn's loop, with its bars."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from mutmeta_lib.app.console import out, say_progress


def bench_command(
    quick: Annotated[bool, typer.Option(help="A minute in the place of a quarter hour.")] = False,
    output: Annotated[Path | None, typer.Option(help="Write the record here (json).")] = None,
) -> None:
    """Time the engine against learn2learn's loop on this machine, and print the bars."""
    from mutmeta_lib.app.bench.report import bench
    from mutmeta_lib.records.drafts import check_writable
    from mutmeta_lib.records.record import write_record

    if output is not None:
        check_writable(output)
    record = bench(quick=quick, progress=say_progress)
    if output is not None:
        write_record(record, output)
    console = out()
    rate = record.numbers["matmul_gflops"]["value"]
    environment = record.environment
    cases = Table(
        "case", "order", "tasks", "residues", "backend", "meta-steps/s", "learn2learn",
        "ratio (lowest to highest)", "of matmul rate",
        title=f"{environment['processor']}, {environment['threads']} threads, {rate:.0f} GFLOP/s",
    )  # fmt: skip
    for row in record.table("cases").itertuples():
        cases.add_row(
            row.case,
            row.order,
            str(row.tasks),
            str(row.residues),
            row.backend,
            f"{row.meta_steps_per_s:.3g}",
            f"{row.learn2learn_meta_steps_per_s:.3g}",
            f"{row.ratio:.2f} ({row.ratio_low:.2f} to {row.ratio_high:.2f})",
            f"{row.matmul_share:.0%}",
        )
    console.print(cases)
    memory = Table("one meta-gradient", "tasks", "peak of tensors, MB")
    for row in record.table("memory").itertuples():
        memory.add_row(row.what, str(row.tasks), f"{row.peak_mb:.0f}")
    console.print(memory)
    bars = Table("bar", "measured", "holds")
    for row in record.table("bars").itertuples():
        bars.add_row(row.bar, f"{row.measured:.3g}", "yes" if row.holds else "no")
    console.print(bars)
