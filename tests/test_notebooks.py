"""The committed notebooks: pairs in step, run in order, without errors, naming no machine."""

import json
import re
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from mutmeta_lib.app.notebooks import (
    check_parameters,
    default_parameters,
    profile_parameters,
    read_yaml,
)

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "notebooks"
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
CHAPTERS = [
    Path(chapter["file"]).name
    for part in TOC["parts"]
    for chapter in part["chapters"]
    if chapter["file"].startswith("book/runs/")
]
WRITTEN = sorted({path.stem for kind in ("md", "ipynb") for path in FOLDER.glob(f"[0-9]*.{kind}")})
EXECUTED = sorted((ROOT / "book/runs/quick").glob("*.ipynb"))
PLACE = re.compile(
    r"(?<![\w.:/~<>)\]-])/(?:home|root|work|tmp|Users|usr|opt|mnt|private|var|srv|content)/|"
    r"\b[A-Z]:\\\\?Users|file://"
)


def texts(value: Any, key: str = "") -> list[str]:
    """Every text in a notebook except base64 pictures."""
    if isinstance(value, str):
        return [] if key.startswith("image/png") else [value]
    if isinstance(value, dict):
        return [text for name, item in value.items() for text in texts(item, name)]
    return [text for item in value for text in texts(item)] if isinstance(value, list) else []


def faults(notebook: nbformat.NotebookNode) -> list[str]:
    """What is wrong with an executed notebook, in words."""
    found = []
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    counts = [cell.execution_count for cell in code]
    if counts != list(range(1, len(code) + 1)):
        found.append(f"execution counts are {counts}")
    outputs = [output for cell in code for output in cell.outputs]
    if any(output.output_type == "error" for output in outputs):
        found.append("a cell ended in an error")
    if any(output.get("name") == "stderr" for output in outputs):
        found.append("a cell wrote to standard error")
    if sum("parameters" in cell.metadata.get("tags", []) for cell in code) != 1:
        found.append("there is not one cell tagged parameters")
    first = notebook.cells[0] if notebook.cells else None
    if first is None or first.cell_type != "markdown" or not first.source.startswith("# "):
        found.append("it does not begin with a title")
    places = [match[0] for text in texts(notebook) for match in PLACE.finditer(text)]
    if places:
        found.append(f"it names a place of a machine: {places[0]}")
    return found


def step(notebook: nbformat.NotebookNode) -> list[tuple[str, str, list[str]]]:
    """What must be the same in both halves of a pair."""
    return [
        (cell.cell_type, cell.source, sorted(cell.metadata.get("tags", [])))
        for cell in notebook.cells
    ]


def test_every_chapter_is_a_pair_and_every_pair_a_chapter():
    assert WRITTEN == CHAPTERS
    for name in CHAPTERS:
        assert (FOLDER / f"{name}.md").is_file()
        assert (FOLDER / f"{name}.ipynb").is_file()


@pytest.mark.parametrize("folder", ["notebooks", "book/runs/full"])
@pytest.mark.parametrize("name", WRITTEN)
def test_committed_notebook_is_sound_and_in_step_with_its_text(name, folder):
    notebook = nbformat.read(ROOT / folder / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert faults(notebook) == []
    if folder == "notebooks":
        assert step(notebook) == step(jupytext.read(FOLDER / f"{name}.md")), "run `make notebooks`"


@pytest.mark.parametrize("profile", ["quick", "full"])
@pytest.mark.parametrize("name", WRITTEN)
def test_profiles_fit_the_parameters_of_every_notebook(profile, name):
    entries = read_yaml(FOLDER / "params" / f"{profile}.yml")
    assert set(entries) == set(CHAPTERS)
    notebook = FOLDER / f"{name}.ipynb"
    checked = check_parameters(notebook, profile_parameters(notebook, profile))
    if profile == "quick":
        # The committed notebook shows its defaults, and the book calls them the quick profile.
        assert checked.items() <= default_parameters(notebook).items()


@pytest.mark.parametrize("path", EXECUTED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_executed_copy_names_no_place_of_a_machine(path):
    found = [text for text in texts(json.loads(path.read_text())) if PLACE.search(text)]
    assert found == []


def sound() -> nbformat.NotebookNode:
    cells = [
        new_markdown_cell("# Title"),
        new_code_cell("n = 1", execution_count=1, metadata={"tags": ["parameters"]}),
        new_code_cell("n", execution_count=2, outputs=[new_output("stream", text="1")]),
    ]
    return new_notebook(cells=cells)


def test_a_sound_notebook_has_no_faults_and_addresses_are_no_places():
    assert faults(sound()) == []
    for text in ("https://a.org/home/x", "and/or", "a </root> b", "src/var/x"):
        assert not PLACE.search(text)


@pytest.mark.parametrize(
    ("output", "told"),
    [
        (new_output("error", ename="E", evalue="", traceback=[]), "error"),
        (new_output("stream", name="stderr", text="Warning"), "standard error"),
        (new_output("stream", text="saved /home/ada/x.csv"), "/home/"),
        (new_output("display_data", {"text/html": "<a title='/tmp/x'>"}), "/tmp/"),
    ],
)
def test_a_bad_output_is_a_fault(output, told):
    notebook = sound()
    notebook.cells[2].outputs = [output]
    (found,) = faults(notebook)
    assert told in found


def test_order_title_and_parameters_are_checked():
    notebook = sound()
    notebook.cells[2].execution_count = 3
    notebook.cells[1].metadata.tags = []
    notebook.cells[0].source = "Title"
    assert len(faults(notebook)) == 3
