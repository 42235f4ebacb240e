"""A sweep: its file is checked, a run is named after its question, and Ray does what is missing."""

import itertools
import json
import math
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import nbformat
import psutil
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_sweep import MOODS as CELL
from toy_sweep import PARAMETERS, RECORD, write_notebook, write_sweep
from typer.testing import CliRunner

from mutmeta_lib.app.sweep import Outcome, Run, execute_run, expand, planned, read_sweep, run_sweep
from mutmeta_lib.cli import app
from mutmeta_lib.errors import DataError
from mutmeta_lib.records.record import read_record, write_record

ROOT = Path(__file__).resolve().parents[2]
ONCE = ["fails once", "kills its process once", "kills its kernel once"]
MOODS = ["fine", "fails", "kills its process", *ONCE]


def runs_of(path: Path) -> list[Run]:
    return expand(read_sweep(path))


def command(*arguments: str):
    """The command within this process."""
    return CliRunner().invoke(app, ["sweep", *arguments], env={"COLUMNS": "200", "NO_COLOR": "1"})


INVALID = """
gird: {}                     | 'gird': Extra inputs are not permitted; the keys are notebook, output
notebook: ../notebooks/toi.ipynb | there is no notebook 'toi.ipynb'; did you mean 'toy.ipynb'?
profile: odd                 | there is no parameter 'stops'; did you mean 'steps'?
retries: -1                  | 'retries': Input should be greater than or equal to 0
grid: {rate: []}             | 'grid.rate': List should have at least 1 item
grid: {steps: [1, two]}      | parameter 'steps' got 'two' (str); its default is 3
grid: {rate: [1, 0.5, 1.0]}  | the run of {'rate': 1.0} is there twice
grid: {rate: [.nan]}         | Input should be a finite number
grid: {mood: [2026-11-27]}   | input was not a valid JSON value
grid: {seed: [1]}, seeds: [1] | 'seed' is set twice
parameters: {records_dir: x} | 'records_dir' is set twice
"""


@pytest.mark.parametrize("line", INVALID.strip().splitlines())
def test_what_does_not_fit_is_one_sentence_and_nothing_runs(tmp_path, line):
    content, sentence = line.split(" | ")
    path = write_sweep(tmp_path, **yaml.safe_load(f"{{{content}}}"))
    (tmp_path / "notebooks/params/odd.yml").write_text("toy: {stops: 7}\n")
    done = command(str(path))
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert sentence in done.stderr
    assert not (tmp_path / "sweeps/runs").exists()


def test_the_book_shows_the_committed_sweep():
    page = (ROOT / "book/rerun.md").read_text(encoding="utf-8")
    shown = yaml.safe_load(page.partition("```yaml\n")[2].partition("```")[0])
    committed = ROOT / "notebooks/sweeps/inner_loop.yml"
    assert shown == yaml.safe_load(committed.read_text(encoding="utf-8"))
    assert len(runs_of(committed)) == 4


VALUES = {"rate": st.floats(0, 1), "steps": st.integers(0, 99), "mood": st.sampled_from("abcdef")}
LISTS = {k: st.lists(v, min_size=1, max_size=3, unique=True) for k, v in VALUES.items()}


@settings(max_examples=25)
@given(
    grid=st.fixed_dictionaries({}, optional=LISTS),
    seeds=st.lists(st.integers(0, 9), max_size=3, unique=True),
)
def test_every_combination_is_one_run_with_one_name(grid, seeds):
    with tempfile.TemporaryDirectory() as folder:
        runs = runs_of(write_sweep(Path(folder), grid=grid, seeds=seeds or None))
    axes = grid | ({"seed": seeds} if seeds else {})
    product = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    assert [run.varied for run in runs] == product
    assert [{k: run.parameters[k] for k in run.varied} for run in runs] == product
    assert len({run.record for run in runs}) == math.prod(map(len, axes.values()))


@pytest.mark.parametrize(
    ("one", "same"),
    [
        ({}, {"parameters": {"steps": 3, "rate": 0.5, "profile": "full"}, "retries": 5}),
        ({}, {"profile": "quick", "parameters": {"steps": 3}}),
        ({"parameters": {"rate": 1}}, {"grid": {"rate": [1.0]}}),
        ({"parameters": {"steps": 7}}, {"profile": "quick"}),
    ],
)
def test_one_question_has_one_name_however_it_is_put(tmp_path, one, same):
    names = [runs_of(write_sweep(tmp_path, **content))[0].record.name for content in (one, same)]
    assert names[0] == names[1]
    assert names[0].startswith("toy-")


def test_code_and_data_that_change_rename_and_text_does_not(tmp_path):
    table = tmp_path / "data/fitness/a.csv"
    table.parent.mkdir(parents=True)
    table.write_text("mutant,score\n")
    path = write_sweep(tmp_path, parameters={"data_dir": str(tmp_path / "data")})
    names = [runs_of(path)[0].record]
    (tmp_path / "data/.DS_Store").write_text("made by a file browser")
    notebook = tmp_path / "notebooks/toy.ipynb"
    content = nbformat.read(notebook, as_version=4)
    content.cells[0].source = "# Another title"
    nbformat.write(content, notebook)
    assert runs_of(path)[0].record == names[0]
    for change in (
        lambda: table.write_text("mutant,score\nA1G,1\n"),
        lambda: table.rename(table.with_name("b.csv")),
        lambda: write_notebook(notebook, PARAMETERS, CELL, RECORD + "\nprint('more')"),
        lambda: write_notebook(notebook, PARAMETERS.replace("0.5", "0.6"), CELL, RECORD),
    ):
        change()
        names.append(runs_of(path)[0].record)
    assert len({*names}) == 5


@pytest.fixture(scope="module")
def executed(tmp_path_factory) -> Path:
    """The file of a sweep whose run was done."""
    path = write_sweep(tmp_path_factory.mktemp("executed"), parameters={"rate": 0.25})
    execute_run(runs_of(path)[0])
    return path


def test_a_run_leaves_a_record_and_an_executed_copy_and_nothing_else(executed):
    ((done, outcome),) = planned(read_sweep(executed)).items()
    record, copy = read_record(done.record), done.record.with_suffix(".ipynb")
    assert outcome == Outcome("finished", 1.0, record.hash)
    assert record.numbers["n"]["value"] == 0.75
    assert {*done.record.parent.iterdir()} == {done.record, copy}
    assert "0.25 3 0" in copy.read_text()
    assert str(executed.parent) not in copy.read_text()


@pytest.mark.parametrize(
    "tamper",
    [
        Path.unlink,
        lambda file: file.write_text(file.read_text().replace("0.75", "0.99")),
        lambda file: write_record(replace(read_record(file), parameters={"rate": 0.5}), file),
    ],
)
def test_a_record_that_does_not_read_or_answer_is_not_finished(executed, tamper):
    (file,) = executed.parent.glob("runs/*.json")
    kept = file.read_bytes()
    tamper(file)
    assert [outcome.state for outcome in planned(read_sweep(executed)).values()] == ["waiting"]
    file.write_bytes(kept)


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        # The title, the defaults, the sweep's parameters and x = 1 come before it.
        (["x = 1", "raise ValueError('no luck')"], "cell 4: ValueError: no luck"),
        (["x = 1"], "the notebook wrote 0 records into 'records_dir'; a run of a sweep writes one"),
        (["from pathlib import Path; rate = 0.5", RECORD],
         "its record is of rate = 0.5, the run asks for 0.25; "
         "hand the notebook's parameters on to the experiment"),
    ],
)  # fmt: skip
def test_a_run_that_fails_says_why_and_leaves_no_record(tmp_path, cells, told):
    path = write_sweep(tmp_path, parameters={"rate": 0.25})
    write_notebook(tmp_path / "notebooks/toy.ipynb", PARAMETERS, *cells)
    (run,) = runs_of(path)
    with pytest.raises(DataError) as caught:
        execute_run(run)
    assert str(caught.value) == told
    assert not run.record.exists()


@pytest.fixture(scope="module")
def ray():
    """One Ray for the tests that run something."""
    ray = pytest.importorskip("ray")
    with tempfile.TemporaryDirectory(prefix="mutmeta-", ignore_cleanup_errors=True) as folder:
        quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
        ray.init("local", num_cpus=2, _temp_dir=folder, **quiet)
        yield
        ray.shutdown()


def tries(folder: Path) -> dict[str, int]:
    """How often a run of each mood was begun."""
    return {log.stem: len(log.read_text().splitlines()) for log in folder.glob("*.log")}


def test_what_fails_is_tried_again_then_told_and_the_others_go_on(ray, monkeypatch, tmp_path):
    given = {"parameters": {"scratch": str(tmp_path)}, "grid": {"mood": MOODS}, "retries": 1}
    path = write_sweep(tmp_path, **given)
    done = command(str(path))
    assert done.exit_code == 1, done.output
    index = json.loads((tmp_path / "sweeps/runs/sweep.index.json").read_text())["runs"]
    states = dict.fromkeys(MOODS, "finished") | dict.fromkeys(MOODS[1:3], "failed")
    assert {line["parameters"]["mood"]: line["state"] for line in index} == states
    assert f"{index[1]['run']} failed; cell 3: ValueError: first line\nno luck" in done.stderr
    assert "worker died" in index[2]["error"]
    once_more = dict.fromkeys(MOODS, 2) | {"fine": 1}
    assert tries(tmp_path) == once_more
    for run, outcome in planned(read_sweep(path)).items():
        assert run.record.exists() == (outcome.state == "finished")
    # Once more: only what is not finished, or not whole any more, runs.
    first = runs_of(path)[0].record
    first.write_text(first.read_text().replace("1.5", "9.9"))
    assert command(str(path)).exit_code == 1
    assert tries(tmp_path) == once_more | {"fine": 2, "fails": 4, "kills its process": 4}
    assert "9.9" not in first.read_text()
    # Where everything is finished, Ray is not even imported.
    monkeypatch.setitem(sys.modules, "ray", None)
    done = command(str(write_sweep(tmp_path, **given | {"grid": {"mood": ["fine", *ONCE]}})))
    assert (done.exit_code, done.stdout.count("finished")) == (0, 4), done.output


def wait_for(condition, seconds: float = 60.0) -> None:
    """Wait until something holds, or fail."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.1)


def test_ctrl_c_cancels_what_is_under_way_and_keeps_what_is_finished(ray, tmp_path):
    grid = {"mood": ["fine", "slow"]}
    path = write_sweep(tmp_path, parameters={"scratch": str(tmp_path)}, grid=grid)

    def report(what, done, total):
        if done:
            wait_for((tmp_path / "slow.log").exists)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="finished runs will be skipped next time"):
        run_sweep(read_sweep(path), tmp_path / "index.json", report)
    lines = json.loads((tmp_path / "index.json").read_text())["runs"]
    assert [line["state"] for line in lines] == ["finished", "stopped"]
    kernel = str(tmp_path / "notebooks")
    wait_for(lambda: kernel not in [p.info["cwd"] for p in psutil.process_iter(["cwd"])], 20)


FULL = Mock(init=Mock(side_effect=OSError("no room")), is_initialized=lambda: False)
MISSING = 'a sweep needs Ray, which is not installed; pip install "mutmeta[sweep]"'
STUCK = "Ray does not start (no room); mend what it names"


@pytest.mark.parametrize(("ray", "told"), [(None, MISSING), (FULL, STUCK)])
def test_without_ray_a_sweep_is_one_sentence_and_a_dry_run_runs(monkeypatch, tmp_path, ray, told):
    monkeypatch.setitem(sys.modules, "ray", ray)
    path = write_sweep(tmp_path, grid={"mood": ["fine", "slow"]}, seeds=[3, 4])
    done = command(str(path), "--dry-run")
    assert (done.exit_code, done.stdout.count("waiting")) == (0, 4), done.output
    assert not (tmp_path / "sweeps/runs").exists()
    done = command(str(path))
    assert (done.exit_code, done.stderr) == (2, f"{told}\n")
