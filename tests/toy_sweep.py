"""A sweep over a toy notebook: it takes a second, and can fail in every way a run can."""

from pathlib import Path
from typing import Any

import nbformat
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

PARAMETERS = """
profile = "quick"
records_dir = "records"
data_dir = "demo"
rate = 0.5
steps = 3
mood = "fine"
scratch = ""
seed = 0
"""
MOODS = """
import os, signal, time
from pathlib import Path

if scratch:
    log = Path(scratch) / f"{mood}.log"
    with log.open("a") as file:
        file.write(f"{seed}\\n")
    first = len(log.read_text().splitlines()) == 1
    if mood == "fails" or (mood == "fails once" and first):
        raise ValueError("first line\\nno luck")
    if mood == "kills its process" or (mood == "kills its process once" and first):
        os.kill(os.getppid(), signal.SIGKILL)
    if mood == "kills its kernel once" and first:
        os.kill(os.getpid(), signal.SIGKILL)
    if mood == "slow" or mood.startswith("kills its process") and (first or "once" not in mood):
        time.sleep(120)
"""
RECORD = """
from mutmeta_lib.records.record import Record, number, write_record

record = Record(
    experiment="toy", profile=profile, parameters={"rate": rate, "steps": steps, "seed": seed},
    data={}, encoder={}, environment={}, seconds={"all": 1.0}, peak_memory_mb=1.0,
    created="2026-11-23T10:00:00+00:00", numbers={"n": number(rate * steps + seed)}, tables={},
)
write_record(record, Path(records_dir) / profile / "toy.json")
print(rate, steps, seed)
"""


def write_notebook(path: Path, parameters: str = PARAMETERS, *sources: str) -> Path:
    """Write a notebook with one cell of parameters; by default the toy."""
    cells = [
        new_markdown_cell("# Toy"),
        new_code_cell(parameters.strip(), metadata={"tags": ["parameters"]}),
        *map(new_code_cell, sources or (MOODS, RECORD)),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=cells), path)
    return path


def write_sweep(folder: Path, **content: Any) -> Path:
    """Write the toy notebook and a sweep file beside it; keywords add to the file's keys."""
    write_notebook(folder / "notebooks/toy.ipynb")
    (folder / "notebooks/params").mkdir(exist_ok=True)
    (folder / "notebooks/params/quick.yml").write_text("toy: {steps: 7}\nother: {}\n")
    path = folder / "sweeps/sweep.yml"
    path.parent.mkdir(exist_ok=True)
    content = {"notebook": "../notebooks/toy.ipynb", "output": "runs"} | content
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path
