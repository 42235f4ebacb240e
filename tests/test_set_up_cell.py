"""A bare notebook brings what it needs, and only where the library is missing."""

import importlib.util
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import jupytext
import pytest
from set_up_cell import CELL, ROOT, TAGS, put
from test_committed import CHAPTERS
from test_environment import PROJECT

CLONE = ["git", "clone", "-q", "--depth", "1", PROJECT["urls"]["Repository"], "mutmeta"]
INSTALL = [sys.executable, "-m", "pip", "install", "-q", "./mutmeta"]
COPIES = ("notebooks/{}.md", "notebooks/{}.ipynb", "book/runs/full/{}.ipynb")


@pytest.mark.parametrize("name", CHAPTERS)
def test_every_notebook_has_the_cell_behind_its_title_and_putting_it_there_again_changes_nothing(
    name, tmp_path
):
    for path in (ROOT / copy.format(name) for copy in COPIES):
        cell = jupytext.read(path).cells[1]
        found = cell.source, cell.metadata.get("tags"), cell.get("outputs")
        assert found == (CELL, TAGS, []), "run `python scripts/set_up_cell.py`"
        again = tmp_path / path.name
        again.write_bytes(path.read_bytes())
        put(again)
        assert again.read_text("utf-8") == path.read_text("utf-8")


@pytest.mark.parametrize(
    ("installed", "folders", "called", "ends"),
    [
        (False, [], [CLONE, INSTALL], "here/mutmeta/notebooks"),
        (False, ["here/mutmeta/notebooks"], [INSTALL], "here/mutmeta/notebooks"),
        (True, ["here/mutmeta/notebooks"], [], "here/mutmeta/notebooks"),
        (True, [], [], "here"),
        (False, ["mutmeta_lib"], [], "here"),
    ],
    ids=["bare", "cloned", "restarted", "installed", "in a clone without its environment"],
)
def test_it_clones_and_installs_where_nothing_is_and_leaves_all_else_alone(
    tmp_path, monkeypatch, installed, folders, called, ends
):
    calls = []

    def run(command, check):
        assert check
        calls.append(command)
        Path("mutmeta/notebooks").mkdir(parents=True, exist_ok=True)

    for folder in ["here", *folders]:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    monkeypatch.delenv("MUTMETA_SOURCE", raising=False)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: installed or None)
    monkeypatch.setattr(subprocess, "run", run)
    exec(CELL, {})
    assert (calls, Path.cwd()) == (called, (tmp_path / ends).resolve())


def test_in_a_bare_environment_the_library_and_the_records_are_there_afterwards(tmp_path):
    """The packages that Colab has are lent from here, all but the library; no index is asked."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone")
    venv.create(tmp_path / "bare")
    (lent,) = {sysconfig.get_path(kind) for kind in ("purelib", "platlib")}
    (site,) = (tmp_path / "bare").glob("lib/python*/site-packages")
    (site / "lent.pth").write_text(lent)
    asked = "; ".join((
        "import mutmeta_lib.data.folders as f",
        "print(f.__file__, len(f.read_data_dir()), os.listdir('../book/records/full'))",
    ))  # fmt: skip
    (tmp_path / "cell.py").write_text(f"{CELL}\n{asked}\n")
    # pip takes the variable for the value of an option that is called build isolation: 0 is none.
    given = {"MUTMETA_SOURCE": ROOT.as_uri(), "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    options = {"cwd": tmp_path, "env": kept | given, "capture_output": True, "text": True}
    for _ in ("new", "restarted"):
        done = subprocess.run([tmp_path / "bare/bin/python", "cell.py"], **options)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(str(site / "mutmeta_lib"))
        assert "benchmark.json" in done.stdout
