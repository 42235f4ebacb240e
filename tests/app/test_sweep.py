"""A sweep file is read whole, and every problem in it is told with its key."""

from pathlib import Path

import pytest
import yaml
from toy_sweep import PARAMETERS, write_notebook, write_sweep

from mutmeta_lib.app.sweep import read_sweep, sweep_problems
from mutmeta_lib.app.sweep_runs import expand
from mutmeta_lib.errors import DataError

ROOT = Path(__file__).resolve().parents[2]


def told(path: Path) -> list[str]:
    """The problems, without the file that each of them must name."""
    problems = [str(problem) for problem in sweep_problems(path)]
    assert all(problem.startswith(str(path)) for problem in problems)
    return [problem.removeprefix(str(path)).lstrip(":, ") for problem in problems]


def test_everything_left_out_has_its_default(tmp_path):
    sweep = read_sweep(write_sweep(tmp_path))
    assert sweep.notebook == tmp_path / "notebooks/toy.ipynb"
    assert sweep.output == tmp_path / "sweeps/runs"
    assert (sweep.profile, sweep.parameters, sweep.axes) == (None, {}, {})
    assert (sweep.retries, sweep.cpus_per_run, sweep.gpus_per_run, sweep.address) == (2, 1, 0, None)


@pytest.mark.parametrize(
    ("content", "axes"),
    [
        ({}, {}),
        ({"parameters": None, "grid": None, "seeds": None, "profile": None}, {}),
        ({"seeds": [0, 1]}, {"seed": [0, 1]}),
        ({"seeds": {"steps": [4]}}, {"steps": [4]}),
        ({"grid": {"rate": [1, 0.5]}, "seeds": [2]}, {"rate": [1, 0.5], "seed": [2]}),
        ({"cpus_per_run": 0.5, "gpus_per_run": 2.0, "retries": 0}, {}),
        ({"profile": "quick", "parameters": {"steps": 9}, "address": "head:6379"}, {}),
    ],
)
def test_valid(tmp_path, content, axes):
    path = write_sweep(tmp_path, **content)
    assert told(path) == []
    assert read_sweep(path).axes == axes


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"gird": {}}, "there is no key 'gird'; did you mean 'grid'?"),
        ({"notebook": None}, "'notebook' is missing; write an .ipynb file, relative to this file"),
        ({"output": None}, "'output' is missing; write a folder, relative to this file"),
        ({"notebook": 3}, "'notebook' is 3; write an .ipynb file, relative to this file"),
        (
            {"notebook": "../notebooks/toi.ipynb"},
            "notebook '../notebooks/toi.ipynb': there is no such notebook; did you mean toy.ipynb?",
        ),
        (
            {"profile": "quik"},
            "profile 'quik': there is no profile 'quik'; choose one of quick",
        ),
        ({"retries": -1}, "'retries' is -1; write a whole number, 0 or more"),
        ({"retries": True}, "'retries' is True; write a whole number, 0 or more"),
        ({"cpus_per_run": 0}, "'cpus_per_run' is 0; write a number above 0, whole above 1"),
        ({"gpus_per_run": 1.5}, "'gpus_per_run' is 1.5; write a number, whole above 1"),
        ({"address": 6379}, "'address' is 6379; write host:port, or null for this machine"),
        ({"parameters": [1]}, "'parameters' is [1]; write 'name: value' lines"),
        ({"grid": {"rate": 1}}, "'grid' is {'rate': 1}; write 'name: [value, value]' lines"),
        ({"grid": {"rate": []}}, "'grid' is {'rate': []}; write 'name: [value, value]' lines"),
        ({"grid": {1: [2]}}, "'grid.1' is no name of a parameter; write a name"),
        (
            {"seeds": 2},
            "'seeds' is 2; write whole numbers, [0, 1], or the parameter's name and them",
        ),
        (
            {"seeds": {"repeat": [0]}},
            "seeds: toy.ipynb has no parameter 'repeat'; name the one that is its seed, "
            "'seeds: {name: [0, 1]}', or leave seeds out",
        ),
        (
            {"parameters": {"step": 3}},
            "parameters.step: there is no parameter 'step'; did you mean 'steps'?",
        ),
        (
            {"grid": {"steps": [1, "two"]}},
            "grid.steps: parameter 'steps' got 'two' (text); its default is 3 (whole number)",
        ),
        (
            {"grid": {"rate": ["1e-3"]}},
            "grid.rate: parameter 'rate' got '1e-3' (text); its default is 0.5 (decimal number); "
            "YAML takes 1e-3 for text, write 1.0e-03",
        ),
        ({"grid": {"rate": [1, 0.5, 1.0]}}, "'grid.rate' holds 1.0 twice; leave one out"),
        ({"seeds": [3, 3]}, "'seeds.seed' holds 3 twice; leave one out"),
        (
            {"grid": {"rate": [float("nan")]}},
            "'grid.rate' holds nan; write numbers, text, lists, true or false",
        ),
        (
            {"parameters": {"rate": 1}, "grid": {"rate": [1]}},
            "'grid.rate' is set by 'parameters.rate'; leave one of them out",
        ),
        (
            {"grid": {"seed": [1]}, "seeds": [1]},
            "'seeds.seed' is set by 'grid.seed'; leave one of them out",
        ),
        (
            {"parameters": {"records_dir": "x"}},
            "'parameters.records_dir' is set by the sweep itself; leave it out",
        ),
    ],
)
def test_invalid(tmp_path, content, sentence):
    path = write_sweep(tmp_path, **content)
    assert told(path) == [sentence]
    with pytest.raises(DataError) as caught:
        read_sweep(path)
    assert str(caught.value) == f"{path}: {sentence}"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("notebook: [", "row 1: this is not valid YAML; mend the syntax"),
        ("- a\n", "a sweep is 'key: value' lines; begin with notebook and output"),
        ("", "a sweep is 'key: value' lines; begin with notebook and output"),
        ("output: a\ngrid:\n  rate: [1]\n  rate: [2]\n", "row 4: 'rate' is written twice; "
         "keep one of them"),
        ("output: !!python/object:os.system {}\n", "row 1: this is not valid YAML; mend the "
         "syntax"),
    ],
)  # fmt: skip
def test_not_a_mapping(tmp_path, text, sentence):
    path = tmp_path / "sweep.yml"
    path.write_text(text)
    assert told(path) == [sentence]


def test_files_that_cannot_be_read(tmp_path):
    missing, binary = tmp_path / "a.yml", tmp_path / "b.yml"
    binary.write_bytes(b"output: \xff\n")
    assert told(missing) == ["there is no such sweep file; give the path of a .yml file"]
    assert told(binary) == ["this is not UTF-8 text; save it as UTF-8"]


def test_all_problems_are_told_at_once(tmp_path):
    path = write_sweep(
        tmp_path, retries="many", grid={"steps": [0.5], "mod": ["a"]}, seeds={"nought": [0]}
    )
    assert [sentence.split(";")[0] for sentence in told(path)] == [
        "'retries' is 'many'",
        "seeds: toy.ipynb has no parameter 'nought'",
        "grid.steps: parameter 'steps' got 0.5 (decimal number)",
        "grid.mod: there is no parameter 'mod'",
    ]


def test_a_profile_that_does_not_fit_is_told(tmp_path):
    path = write_sweep(tmp_path, profile="quick")
    profile = tmp_path / "notebooks/params/quick.yml"
    profile.write_text("toy: {stops: 7}\n")
    assert told(path) == [
        "profile 'quick': there is no parameter 'stops'; did you mean 'steps'?"
    ]  # fmt: skip
    profile.write_text("other: {}\n")
    assert told(path) == [
        "profile 'quick': the profile has no entry for 'toy'; "
        "add a line 'toy:' (it may be empty)"
    ]  # fmt: skip


def test_a_notebook_must_let_its_record_be_placed(tmp_path):
    path = write_sweep(tmp_path)
    write_notebook(tmp_path / "notebooks/toy.ipynb", PARAMETERS.replace("records_dir", "place"))
    assert told(path) == [
        "notebook 'toy.ipynb' has no parameter 'records_dir'; "
        "add it and write the record there, so that every run keeps its own"
    ]


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks/sweeps").glob("*.yml")), ids=str)
def test_committed_sweeps_are_sound(path):
    assert told(path) == []
    assert len(expand(read_sweep(path))) == 4


def test_the_book_shows_the_committed_sweep():
    page = (ROOT / "book/rerun.md").read_text(encoding="utf-8")
    shown = yaml.safe_load(page.partition("```yaml\n")[2].partition("```")[0])
    committed = ROOT / "notebooks/sweeps/inner_loop.yml"
    assert shown == yaml.safe_load(committed.read_text(encoding="utf-8"))
