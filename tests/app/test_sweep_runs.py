"""A sweep's runs are all combinations, and a run's name changes exactly with what it asks."""

import itertools
import math
import shutil
import tempfile
from pathlib import Path

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_sweep import MOODS, PARAMETERS, RECORD, write_notebook, write_sweep

from mutmeta_lib.app.sweep import read_sweep
from mutmeta_lib.app.sweep_runs import content_hash, expand, named_paths
from mutmeta_lib.data.assays import demo_dir

VALUES = {
    "rate": st.floats(0, 1).map(lambda x: round(x, 3)),
    "steps": st.integers(0, 99),
    "mood": st.sampled_from("abcdef"),
}
GRIDS = st.fixed_dictionaries(
    {},
    optional={
        name: st.lists(values, min_size=1, max_size=3, unique=True)
        for name, values in VALUES.items()
    },
)


@settings(max_examples=25)
@given(grid=GRIDS, seeds=st.lists(st.integers(0, 9), max_size=3, unique=True))
def test_every_combination_is_one_run_with_one_name(grid, seeds):
    with tempfile.TemporaryDirectory() as folder:
        sweep = read_sweep(write_sweep(Path(folder), grid=grid, seeds=seeds or None))
        runs = expand(sweep)
        again = expand(sweep)
    axes = grid | ({"seed": seeds} if seeds else {})
    combinations = [
        dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())
    ]
    assert [run.varied for run in runs] == combinations
    assert [run.parameters for run in runs] == combinations
    assert len({run.name for run in runs}) == len(runs) == math.prod(map(len, axes.values()))
    assert runs == again


def test_grid_overrides_parameters_override_the_profile(tmp_path):
    path = write_sweep(tmp_path, profile="quick", parameters={"rate": 1}, grid={"mood": ["a", "b"]})
    first, second = expand(read_sweep(path))
    assert first.parameters == {"steps": 7, "rate": 1.0, "mood": "a"}
    assert isinstance(first.parameters["rate"], float)
    assert second.parameters["mood"] == "b"
    (only,) = expand(read_sweep(write_sweep(tmp_path, profile="quick", parameters={"steps": 2})))
    assert only.parameters == {"steps": 2}


def name(folder: Path, **content) -> str:
    path = folder / "sweeps/sweep.yml"
    if content or not path.exists():
        path = write_sweep(folder, **content)
    (run,) = expand(read_sweep(path))
    return run.name


def test_the_name_is_that_of_the_question(tmp_path):
    plain = name(tmp_path)
    assert plain.startswith("toy-")
    # A default spelt out, whole numbers for decimals, and what cannot change a result.
    assert name(tmp_path, parameters={"steps": 3}) == plain
    assert name(tmp_path, parameters={"rate": 0.5, "profile": "full"}) == plain
    assert name(tmp_path, retries=5, cpus_per_run=2) == plain
    assert name(tmp_path, output="elsewhere") == plain
    assert name(tmp_path, parameters={"rate": 1}) == name(tmp_path, grid={"rate": [1.0]})
    assert name(tmp_path, parameters={"steps": 4}) != plain
    assert name(tmp_path, profile="quick") != plain


def test_what_varies_always_tells_runs_apart(tmp_path):
    runs = expand(read_sweep(write_sweep(tmp_path, grid={"profile": ["quick", "full"]})))
    assert len({run.name for run in runs}) == 2


def test_code_renames_and_text_does_not(tmp_path):
    before = name(tmp_path)
    notebook = tmp_path / "notebooks/toy.ipynb"
    content = nbformat.read(notebook, as_version=4)
    content.cells[0].source = "# Another title"
    nbformat.write(content, notebook)
    assert name(tmp_path) == before
    write_notebook(notebook, PARAMETERS, MOODS, RECORD + "\nprint('more')")
    changed = name(tmp_path)
    assert changed != before
    write_notebook(notebook, PARAMETERS.replace("rate = 0.5", "rate = 0.6"), MOODS, RECORD)
    assert name(tmp_path) not in (before, changed)


def test_data_that_change_rename(tmp_path):
    data = tmp_path / "data"
    (data / "fitness").mkdir(parents=True)
    (data / "fitness/a.csv").write_text("mutant,score\n")
    content = {"parameters": {"data_dir": str(data)}}
    first = name(tmp_path, **content)
    assert name(tmp_path, **content) == first
    (data / ".DS_Store").write_text("made by a file browser")
    assert name(tmp_path, **content) == first
    (data / "fitness/a.csv").write_text("mutant,score\nA1G,1\n")
    second = name(tmp_path, **content)
    (data / "fitness/a.csv").rename(data / "fitness/b.csv")
    assert len({first, second, name(tmp_path, **content)}) == 3


def test_named_paths(tmp_path):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "a.csv").write_text("x")
    assert named_paths("data_dir", "demo", tmp_path) == [demo_dir()]
    assert named_paths("encoder", "tiny", tmp_path) == [tmp_path / "tiny"]
    assert named_paths("encoder", "facebook/esm2", tmp_path) == []
    assert named_paths("table", "a.csv", tmp_path) == [tmp_path / "a.csv"]
    assert named_paths("tables", ["a.csv", "b.csv"], tmp_path) == [tmp_path / "a.csv"]
    for value in ("tiny", "", ".", "/", 3, None, ["tiny"], "x" * 5000, "a\0b"):
        assert named_paths("mood", value, tmp_path) == []


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_content_hash_is_of_the_content_alone(tmp_path, kind):
    one, two = tmp_path / "one", tmp_path / "two"
    if kind == "file":
        one.write_bytes(b"abc")
        shutil.copy(one, two)
    else:
        one.mkdir()
        (one / "x").write_bytes(b"abc")
        shutil.copytree(one, two)
    assert content_hash(one) == content_hash(two)
    (two if kind == "file" else two / "x").write_bytes(b"abd")
    assert content_hash(one) != content_hash(two)
