"""A notebook runs with its parameters, and the executed copy names no place of this machine."""

import json
from pathlib import Path

import nbformat
import papermill
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from mutmeta_lib.app.run import machine_paths, run_notebook, scrub
from mutmeta_lib.errors import DataError

BODY = """
import os, sys, tempfile, warnings
print(os.getcwd(), sys.executable, tempfile.gettempdir() + "/x", data_dir)
print(f"rate {rate} after {steps} steps in {os.path.basename(os.getcwd())}")
warnings.warn("from a cell")
"""


def write(path: Path, *sources: str) -> Path:
    first = new_code_cell(sources[0], metadata={"tags": ["parameters"]})
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=[first, *map(new_code_cell, sources[1:])]), path)
    return path


@pytest.fixture
def notebook(tmp_path):
    path = write(tmp_path / "notebooks/01_a.ipynb", "rate = 0.5\nsteps = 3\ndata_dir = ''", BODY)
    (path.parent / "params").mkdir()
    (path.parent / "params/quick.yml").write_text("01_a:\n  steps: 7\n  rate: 0.25\n")
    return path


def test_profile_then_parameters_and_no_path_of_this_machine(notebook, tmp_path):
    secret = tmp_path / "measurements"
    output = tmp_path / "runs/quick/01_a.ipynb"
    parameters = {"rate": 1, "data_dir": str(secret)}
    assert run_notebook(notebook, output, parameters, profile="quick") == output
    text = output.read_text()
    for place in (str(tmp_path), str(Path.home()), "/tmp/", "ipykernel_", str(Path.cwd())):
        assert place not in text
    copy = nbformat.read(output, as_version=4)
    printed = "".join(o.get("text", "") for c in copy.cells for o in c.get("outputs", []))
    assert "rate 1.0 after 7 steps in notebooks" in printed
    assert "measurements" in printed
    assert "from a cell" in printed
    assert copy.metadata.papermill.input_path == "01_a.ipynb"
    assert copy.metadata.papermill.parameters["steps"] == 7
    assert [c for c in copy.cells if {"execution", "papermill"} & set(c.metadata)] == []
    assert [p.name for p in output.parent.iterdir()] == ["01_a.ipynb"]
    nbformat.validate(copy)


def test_a_wrong_parameter_runs_nothing(notebook, tmp_path):
    output = tmp_path / "runs/01_a.ipynb"
    with pytest.raises(DataError, match="did you mean 'steps'"):
        run_notebook(notebook, output, {"step": 3})
    assert not output.parent.exists()


def test_a_failing_cell_leaves_the_older_copy_alone(tmp_path):
    notebook = write(tmp_path / "n/02_b.ipynb", "n = 0", "1 / n")
    output = tmp_path / "out.ipynb"
    output.write_text("older")
    with pytest.raises(papermill.PapermillExecutionError, match="ZeroDivisionError"):
        run_notebook(notebook, output)
    assert output.read_text() == "older"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["n", "out.ipynb"]


def test_scrub_replaces_whole_components_only():
    paths = {"/home/ada": "~", "/home/ada/mutmeta": "..", "/usr": "<python>"}
    before = {
        "a": "/home/ada/mutmeta/x.csv and /home/ada/y, not /home/adam",
        "b": ["https://a.org/home/ada", "see /usr/lib", "File <b>/home/ada/z</b>"],
        "image/png": "iVBO/usr/+",
        "n": 3,
    }
    assert scrub(before, paths) == {
        "a": "../x.csv and ~/y, not /home/adam",
        "b": ["https://a.org/home/ada", "see <python>/lib", "File <b>~/z</b>"],
        "image/png": "iVBO/usr/+",
        "n": 3,
    }


def test_machine_paths_know_absolute_parameters_but_never_the_root(tmp_path):
    paths = machine_paths(tmp_path / "n/a.ipynb", {"d": "/data/mine", "e": "tiny", "root": "/"})
    assert paths["/data/mine"] == "mine"
    assert "/" not in paths
    assert "tiny" not in json.dumps(paths)
