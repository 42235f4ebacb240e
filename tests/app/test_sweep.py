"""A sweep file is read whole, and a run's name changes exactly with what the run asks."""

import itertools
import math
import tempfile
from pathlib import Path

import nbformat
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_sweep import MOODS, PARAMETERS, RECORD, write_notebook, write_sweep

from mutmeta_lib.app.sweep import expand, named_paths, read_sweep
from mutmeta_lib.data.folders import demo_dir

ROOT = Path(__file__).resolve().parents[2]


def told(path: Path) -> list[str]:
    """The problems, without the file that each of them must name."""
    problems = [str(problem) for problem in read_sweep(path)[1]]
    assert all(problem.startswith(str(path)) for problem in problems)
    return [problem.removeprefix(str(path)).lstrip(":, ") for problem in problems]


def runs_of(path: Path):
    sweep, problems = read_sweep(path)
    assert problems == []
    return expand(sweep)


def test_everything_left_out_or_empty_has_its_default(tmp_path):
    empty = dict.fromkeys(("parameters", "grid", "seeds", "profile", "address"))
    for content in ({}, empty):
        sweep, problems = read_sweep(write_sweep(tmp_path, **content))
        assert problems == []
        assert sweep.place(sweep.notebook) == tmp_path / "notebooks/toy.ipynb"
        assert sweep.index == tmp_path / "sweeps/runs/sweep.index.json"
        assert (sweep.profile, sweep.parameters, sweep.grid, sweep.seeds) == (None, {}, {}, {})
        resources = (sweep.retries, sweep.cpus_per_run, sweep.gpus_per_run, sweep.address)
        assert resources == (2, 1, 0, None)


@pytest.mark.parametrize(
    ("content", "varied"),
    [
        ({"seeds": [0, 1]}, [{"seed": 0}, {"seed": 1}]),
        ({"seeds": {"steps": [4]}}, [{"steps": 4}]),
        ({"grid": {"rate": [1, 0.5]}, "seeds": [2]}, [{"rate": r, "seed": 2} for r in (1, 0.5)]),
        ({"cpus_per_run": 0.5, "gpus_per_run": 2.0, "retries": 0}, [{}]),
        ({"profile": "quick", "parameters": {"steps": 9}, "address": "head:6379"}, [{}]),
    ],
)
def test_valid(tmp_path, content, varied):
    assert [run.varied for run in runs_of(write_sweep(tmp_path, **content))] == varied


INVALID = """
gird: {}                     | there is no key 'gird'; did you mean 'grid'?
notebook:                    | 'notebook' is missing; write an .ipynb file, relative to this file
output:                      | 'output' is missing; write a folder, relative to this file
notebook: 3                  | 'notebook' is 3; write an .ipynb file
notebook: ../notebooks/toi.ipynb | notebook '../notebooks/toi.ipynb': there is no notebook
profile: quik                | profile 'quik': there is no profile 'quik'; did you mean 'quick'?
retries: -1                  | 'retries' is -1; write a whole number, 0 or more
retries: yes                 | 'retries' is True; write a whole number, 0 or more
cpus_per_run: 0              | 'cpus_per_run' is 0; write a number above 0, whole above 1
gpus_per_run: 1.5            | 'gpus_per_run' is 1.5; write a number, whole above 1
address: 6379                | 'address' is 6379; write host:port, or null for this machine
address: nowhere             | 'address' is 'nowhere'; write host:port
parameters: [1]              | 'parameters' is [1]; write 'name: value' lines
grid: {rate: 1}              | 'grid' is {'rate': 1}; write 'name: [value, value]' lines
grid: {rate: []}             | 'grid' is {'rate': []}; write 'name: [value, value]' lines
grid: {1: [2]}               | 'grid' is {1: [2]}; write 'name: [value, value]' lines
seeds: 2                     | 'seeds' is 2; write [0, 1], or the parameter's name and such a list
seeds: []                    | 'seeds' is []
seeds: {seed: [1], steps: [2]} | 'seeds' is {'seed': [1], 'steps': [2]}
seeds: {sead: [0]}           | seeds.sead: there is no parameter 'sead'; did you mean 'seed'? (
parameters: {step: 3}        | parameters.step: there is no parameter 'step'; did you mean 'steps'?
grid: {steps: [1, two]}      | grid.steps: parameter 'steps' got 'two' (text); its default is 3
grid: {rate: [1, 0.5, 1.0]}  | grid.rate: 1.0 is there twice; leave one out
seeds: [3, 3]                | seeds.seed: 3 is there twice; leave one out
grid: {rate: [.nan]}         | grid.rate: nan is no value of a record; write numbers, text
grid: {seed: [1], rate: [2]}, seeds: [1] | seeds.seed is set by grid.seed; leave one of them out
parameters: {records_dir: x} | parameters.records_dir is set by the sweep itself
"""


@pytest.mark.parametrize("line", INVALID.strip().splitlines())
def test_invalid(tmp_path, line):
    content, sentence = line.split(" | ")
    (found,) = told(write_sweep(tmp_path, **yaml.safe_load(f"{{{content}}}")))
    assert found.startswith(sentence)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"notebook: [", "row 1: this is not valid YAML; mend the syntax"),
        (b"- a\n", "this is no mapping; write 'name: value' lines"),
        (b"output: a\ngrid:\n  rate: [1]\n  rate: [2]\n", "row 4: 'rate' is written twice; keep"),
        (b"output: !!python/object:os.system {}\n", "row 1: this is not valid YAML"),
        (b"output: \xff\n", "this is not valid YAML"),
        (b"", "'notebook' is missing"),
        (None, "there is no such file; give the path of a .yml"),
    ],
)
def test_not_a_mapping(tmp_path, content, sentence):
    path = tmp_path / "sweep.yml"
    if content is not None:
        path.write_bytes(content)
    assert told(path)[0].startswith(sentence)


def test_all_problems_are_told_at_once(tmp_path):
    grid = {"steps": [0.5], "mod": ["a"]}
    wrong = write_sweep(tmp_path, retries="many", notebook=3, gird={})
    assert [sentence.split(";")[0] for sentence in told(wrong)] == [
        "'notebook' is 3",
        "'retries' is 'many'",
        "there is no key 'gird'",
    ]
    path = write_sweep(tmp_path, grid=grid, profile="quick")
    (tmp_path / "notebooks/params/quick.yml").write_text("toy: {stops: 7}\n")
    notebook = tmp_path / "notebooks/toy.ipynb"
    write_notebook(notebook, PARAMETERS.replace("records_dir", "place"))
    assert [sentence.split(";")[0] for sentence in told(path)] == [
        "notebook 'toy.ipynb' has no parameter 'records_dir'",
        "profile 'quick': there is no parameter 'stops'",
        "grid.steps: parameter 'steps' got 0.5 (decimal number)",
        "grid.mod: there is no parameter 'mod'",
    ]


def test_exponents_are_numbers(tmp_path):
    path = write_sweep(tmp_path)
    path.write_text(path.read_text() + "grid: {rate: [1e-3, 2E+1, .5, 1.e2]}\n")
    assert [run.parameters["rate"] for run in runs_of(path)] == [0.001, 20.0, 0.5, 100.0]


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks/sweeps").glob("*.yml")), ids=str)
def test_committed_sweeps_are_sound(path):
    assert len(runs_of(path)) == 4


def test_the_book_shows_the_committed_sweep():
    page = (ROOT / "book/rerun.md").read_text(encoding="utf-8")
    shown = yaml.safe_load(page.partition("```yaml\n")[2].partition("```")[0])
    committed = ROOT / "notebooks/sweeps/inner_loop.yml"
    assert shown == yaml.safe_load(committed.read_text(encoding="utf-8"))


VALUES = {
    "rate": st.floats(0, 1).map(lambda x: round(x, 3)),
    "steps": st.integers(0, 99),
    "mood": st.sampled_from("abcdef"),
}
LISTS = {k: st.lists(v, min_size=1, max_size=3, unique=True) for k, v in VALUES.items()}


@settings(max_examples=25)
@given(
    grid=st.fixed_dictionaries({}, optional=LISTS),
    seeds=st.lists(st.integers(0, 9), max_size=3, unique=True),
)
def test_every_combination_is_one_run_with_one_name(grid, seeds):
    with tempfile.TemporaryDirectory() as folder:
        path = write_sweep(Path(folder), grid=grid, seeds=seeds or None)
        runs, again = runs_of(path), runs_of(path)
    axes = grid | ({"seed": seeds} if seeds else {})
    product = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    assert [run.varied for run in runs] == [run.parameters for run in runs] == product
    assert len({run.name for run in runs}) == math.prod(map(len, axes.values()))
    assert [run.name for run in again] == [run.name for run in runs]


def test_grid_overrides_parameters_override_the_profile(tmp_path):
    path = write_sweep(tmp_path, profile="quick", parameters={"rate": 1}, grid={"mood": ["a", "b"]})
    first, second = runs_of(path)
    assert repr(first.parameters) == "{'steps': 7, 'rate': 1.0, 'mood': 'a'}"
    assert second.parameters["mood"] == "b"
    (only,) = runs_of(write_sweep(tmp_path, profile="quick", parameters={"steps": 2}))
    assert only.parameters == {"steps": 2}


def name(folder: Path, **content) -> str:
    path = folder / "sweeps/sweep.yml"
    if content or not path.exists():
        path = write_sweep(folder, **content)
    (run,) = runs_of(path)
    return run.name


def test_the_name_is_that_of_the_question(tmp_path):
    plain = name(tmp_path)
    assert plain.startswith("toy-")
    # A default spelt out, whole numbers for decimals, and what cannot change a result.
    for same in (
        {"parameters": {"steps": 3}},
        {"parameters": {"rate": 0.5, "profile": "full"}},
        {"retries": 5, "cpus_per_run": 2},
        {"output": "elsewhere"},
    ):
        assert name(tmp_path, **same) == plain
    assert name(tmp_path, parameters={"rate": 1}) == name(tmp_path, grid={"rate": [1.0]}) != plain
    assert name(tmp_path, profile="quick") == name(tmp_path, parameters={"steps": 7}) != plain
    # What varies always tells runs apart.
    varied = runs_of(write_sweep(tmp_path, grid={"profile": ["quick", "full"]}))
    assert len({run.name for run in varied}) == 2


def test_code_renames_and_text_does_not(tmp_path):
    before = name(tmp_path)
    notebook = tmp_path / "notebooks/toy.ipynb"
    content = nbformat.read(notebook, as_version=4)
    content.cells[0].source = "# Another title"
    nbformat.write(content, notebook)
    assert name(tmp_path) == before
    write_notebook(notebook, PARAMETERS, MOODS, RECORD + "\nprint('more')")
    changed = name(tmp_path)
    write_notebook(notebook, PARAMETERS.replace("rate = 0.5", "rate = 0.6"), MOODS, RECORD)
    assert len({before, changed, name(tmp_path)}) == 3


def test_data_that_change_rename(tmp_path):
    data = tmp_path / "data"
    (data / "fitness").mkdir(parents=True)
    (data / "fitness/a.csv").write_text("mutant,score\n")
    content = {"parameters": {"data_dir": str(data)}}
    first = name(tmp_path, **content)
    (data / ".DS_Store").write_text("made by a file browser")
    assert name(tmp_path, **content) == first
    (data / "fitness/a.csv").write_text("mutant,score\nA1G,1\n")
    second = name(tmp_path, **content)
    (data / "fitness/a.csv").rename(data / "fitness/b.csv")
    third = name(tmp_path, **content)
    assert len({first, second, third}) == 3
    file = tmp_path / "a.txt"
    file.write_text("x")
    fourth = name(tmp_path, parameters={"mood": str(file)})
    file.write_text("y")
    assert name(tmp_path, parameters={"mood": str(file)}) != fourth, "a file that is named counts"


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
