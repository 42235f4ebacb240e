"""Put one first code cell into every notebook and its executed copy, so that a bare one runs."""

from pathlib import Path

import jupytext
import nbformat

ROOT = Path(__file__).resolve().parents[1]
CELL = """\
# Where the library is missing, as on Colab, this brings it, the notebooks' data and the records.
import importlib.util, os, subprocess, sys

if importlib.util.find_spec("mutmeta_lib") is None and not os.path.isdir("../mutmeta_lib"):
    source = os.environ.get("MUTMETA_SOURCE", "https://github.com/mutmeta/mutmeta")
    if not os.path.isdir("mutmeta"):
        subprocess.run(["git", "clone", "-q", "--depth", "1", source, "mutmeta"], check=True)
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "./mutmeta"], check=True)
if os.path.isdir("mutmeta/notebooks"):  # also after the runtime was restarted
    os.chdir("mutmeta/notebooks")"""
TAGS = ["setup", "remove-cell"]


def put(path: Path) -> None:
    """Make it the cell behind the title, and number the cells that ran anew; outputs stay."""
    notebook = jupytext.read(path)
    cells = [c for c in notebook.cells if "setup" not in c.metadata.get("tags", [])]
    made = nbformat.v4.new_code_cell(CELL, id="set-up", metadata={"tags": TAGS})
    notebook.cells = [cells[0], made, *cells[1:]]
    ran = [c for c in notebook.cells if c.cell_type == "code" and c.source.strip()]
    for count, cell in enumerate(ran, start=1):
        for one in (cell, *cell.outputs):
            if one is cell or one.output_type == "execute_result":
                one.execution_count = count
    jupytext.write(notebook, path)


if __name__ == "__main__":
    for folder in ("notebooks", "book/runs/full"):
        for path in sorted((ROOT / folder).glob("[0-9]*.*")):
            put(path)
