"""A sweep: its file is checked, a run is named after its question, and Ray does what is missing."""

import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_sweep import MOODS as CELL
from toy_sweep import PARAMETERS, RECORD, write_notebook, write_sweep
from typer.testing import CliRunner

from mutmeta_lib.app import sweep as module
from mutmeta_lib.app.sweep import (
    Outcome,
    Run,
    execute_run,
    expand,
    finished,
    named_paths,
    read_sweep,
)
from mutmeta_lib.cli import app
from mutmeta_lib.data.folders import demo_dir
from mutmeta_lib.errors import DataError
from mutmeta_lib.records.record import read_record, write_record

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200", "NO_COLOR": "1"}

SWEEP = [sys.executable, "-m", "mutmeta_lib.cli", "sweep"]
QUIET = {"include_dashboard": False, "log_to_driver": False, "_node_ip_address": "127.0.0.1"}
ONCE = ["fails once", "kills its process once", "kills its kernel once"]
MOODS = ["fine", "fails", "kills its process", *ONCE]


def told(path: Path) -> str:
    """What keeps a sweep file from being run, without the file."""
    try:
        (problem,) = module.problems(read_sweep(path))
    except DataError as error:
        problem = error
    return str(problem).removeprefix(str(path)).lstrip(":, ")


def runs_of(path: Path) -> list[Run]:
    sweep = read_sweep(path)
    assert not list(module.problems(sweep))
    return expand(sweep)


def run_of(path: Path) -> Run:
    (run,) = runs_of(path)
    return run


@pytest.mark.parametrize(
    ("content", "varied"),
    [
        ({}, [{}]),
        (dict.fromkeys(("parameters", "grid", "seeds", "profile")), [{}]),
        ({"seeds": [0, 1]}, [{"seed": 0}, {"seed": 1}]),
        ({"seeds": {"steps": [4]}}, [{"steps": 4}]),
        ({"grid": {"rate": [1, 0.5]}, "seeds": [2]}, [{"rate": r, "seed": 2} for r in (1, 0.5)]),
        ({"cpus_per_run": 0.5, "gpus_per_run": 2.0, "retries": 0}, [{}]),
        ({"profile": "quick", "parameters": {"steps": 9}}, [{}]),
    ],
)
def test_valid(tmp_path, content, varied):
    path = write_sweep(tmp_path, **content)
    assert [run.varied for run in runs_of(path)] == varied
    sweep = read_sweep(path)
    assert "retries" in content or (sweep.retries, sweep.cpus_per_run) == (2, 1)


INVALID = """
gird: {}                     | there is no key 'gird'; did you mean 'grid'?
notebook:                    | 'notebook' is missing; write an .ipynb file, relative to this file
notebook: ../notebooks/toi.ipynb | there is no notebook 'toi.ipynb'; did you mean 'toy.ipynb'?
profile: quik                | there is no profile 'quik'; did you mean 'quick'?
retries: -1                  | 'retries' is -1; write a whole number, 0 or more
cpus_per_run: 0              | 'cpus_per_run' is 0; write a number above 0, whole above 1
gpus_per_run: 1.5            | 'gpus_per_run' is 1.5; write a number, whole above 1
parameters: [1]              | 'parameters' is [1]; write 'name: value' lines
grid: {rate: []}             | 'grid' is {'rate': []}; write 'name: [value, value]' lines
seeds: 2                     | 'seeds' is 2; write [0, 1], or the parameter's name and such a list
seeds: {seed: [1], steps: [2]} | 'seeds' is {'seed': [1], 'steps': [2]}
seeds: {sead: [0]}           | seeds.sead: there is no parameter 'sead'; did you mean 'seed'?
parameters: {step: 3}        | parameters.step: there is no parameter 'step'; did you mean 'steps'?
grid: {steps: [1, two]}      | grid.steps: parameter 'steps' got 'two' (text); its default is 3
grid: {rate: [1, 0.5, 1.0]}  | grid.rate: 1.0 is there twice; leave one out
grid: {rate: [.nan]}         | grid.rate: nan is no value of a record; write numbers, text
grid: {seed: [1], rate: [2]}, seeds: [1] | seeds.seed: it is set by grid.seed; leave one of them out
parameters: {records_dir: x} | parameters.records_dir: it is set by the sweep itself
"""


@pytest.mark.parametrize("line", INVALID.strip().splitlines())
def test_invalid(tmp_path, line):
    content, sentence = line.split(" | ")
    assert sentence in told(write_sweep(tmp_path, **yaml.safe_load(f"{{{content}}}")))


def test_the_notebook_and_the_profile_are_asked_as_well(tmp_path):
    path = write_sweep(tmp_path, profile="quick")
    (tmp_path / "notebooks/params/quick.yml").write_text("toy: {stops: 7}\n")
    assert "there is no parameter 'stops'" in told(path)
    path = write_sweep(tmp_path)
    write_notebook(tmp_path / "notebooks/toy.ipynb", PARAMETERS.replace("records_dir", "place"))
    assert "there is no parameter 'records_dir'; add it and write the record there" in told(path)


def test_the_book_shows_the_committed_sweep():
    page = (ROOT / "book/rerun.md").read_text(encoding="utf-8")
    shown = yaml.safe_load(page.partition("```yaml\n")[2].partition("```")[0])
    committed = ROOT / "notebooks/sweeps/inner_loop.yml"
    assert shown == yaml.safe_load(committed.read_text(encoding="utf-8"))
    assert len(runs_of(committed)) == 4


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
    return run_of(path).name


def test_the_name_is_that_of_the_question(tmp_path):
    first = name(tmp_path)
    assert first.startswith("toy-")
    # A default spelt out, whole numbers for decimals, and what cannot change a result.
    for same in (
        {"parameters": {"steps": 3, "rate": 0.5, "profile": "full"}},
        {"retries": 5, "cpus_per_run": 2, "output": "elsewhere"},
    ):
        assert name(tmp_path, **same) == first
    assert name(tmp_path, parameters={"rate": 1}) == name(tmp_path, grid={"rate": [1.0]}) != first
    assert name(tmp_path, profile="quick") == name(tmp_path, parameters={"steps": 7}) != first
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
    write_notebook(notebook, PARAMETERS, CELL, RECORD + "\nprint('more')")
    changed = name(tmp_path)
    write_notebook(notebook, PARAMETERS.replace("rate = 0.5", "rate = 0.6"), CELL, RECORD)
    assert len({before, changed, name(tmp_path)}) == 3


def test_data_that_change_rename(tmp_path):
    table = tmp_path / "data/fitness/a.csv"
    table.parent.mkdir(parents=True)
    table.write_text("mutant,score\n")
    names = [name(tmp_path, parameters={"data_dir": str(tmp_path / "data")})]
    (tmp_path / "data/.DS_Store").write_text("made by a file browser")
    assert name(tmp_path) == names[0]
    table.write_text("mutant,score\nA1G,1\n")
    names.append(name(tmp_path))
    table = table.rename(table.with_name("b.csv"))
    names += [name(tmp_path), name(tmp_path, parameters={"mood": str(table)})]
    table.write_text("mutant,score\nA1G,2\n")
    names.append(name(tmp_path))  # a file that is named counts as well
    assert len({*names}) == 5


def test_named_paths(tmp_path):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "a.csv").write_text("x")
    assert named_paths("data_dir", "demo", tmp_path) == [demo_dir()]
    assert named_paths("encoder", "tiny", tmp_path) == [tmp_path / "tiny"]
    assert named_paths("encoder", "facebook/esm2", tmp_path) == []
    assert named_paths("tables", ["a.csv", "b.csv"], tmp_path) == [tmp_path / "a.csv"]
    for value in ("tiny", "", ".", "/", 3, None, ["tiny"], "x" * 5000, "a\0b"):
        assert named_paths("mood", value, tmp_path) == []


@pytest.fixture(scope="module")
def executed(tmp_path_factory) -> Path:
    """A folder with a sweep of one run that was done."""
    folder = tmp_path_factory.mktemp("executed")
    execute_run(run_of(write_sweep(folder, parameters={"rate": 0.25})))
    return folder


@pytest.fixture
def done(executed, tmp_path) -> Run:
    """A run that was done, in a folder of its own."""
    return run_of(shutil.copytree(executed, tmp_path / "copy") / "sweeps/sweep.yml")


def test_a_run_leaves_a_record_and_an_executed_copy_and_nothing_else(executed, done):
    record, copy = read_record(done.file(".json")), done.file(".ipynb")
    assert finished(done) == Outcome("finished", 1.0, record.hash)
    assert record.numbers["n"]["value"] == 0.75
    assert {p.name for p in done.folder.iterdir()} == {done.name + ".json", done.name + ".ipynb"}
    nbformat.validate(nbformat.read(copy, as_version=4))
    assert "0.25 3 0" in copy.read_text()
    assert str(executed) not in copy.read_text()
    # Another question is another run; this one stays where it is.
    path = write_sweep(done.folder.parents[1], parameters={"rate": 0.5})
    assert [*module.planned(read_sweep(path)).values()] == [Outcome("waiting")]
    assert finished(done) is not None


@pytest.mark.parametrize(
    "tamper",
    [
        Path.unlink,
        lambda file: os.truncate(file, 300),
        lambda file: file.write_text(file.read_text().replace("0.75", "0.99")),
        lambda file: write_record(replace(read_record(file), parameters={"rate": 0.5}), file),
    ],
)
def test_a_record_that_does_not_read_or_answer_is_not_finished(done, tamper):
    assert finished(done) is not None
    tamper(done.file(".json"))
    assert finished(done) is None


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        # The title, the defaults, the sweep's parameters and x = 1 come before it.
        (["x = 1", "raise ValueError('first line\\nno luck\\n')"], "cell 4: no luck"),
        (["x = 1"], "the notebook wrote 0 records into 'records_dir'; a run of a sweep writes one"),
        (["from pathlib import Path; rate = 0.5", RECORD],
         "its record is of rate = 0.5, the run asks for 0.25; "
         "hand the notebook's parameters on to the experiment"),
    ],
)  # fmt: skip
def test_a_run_that_fails_says_why_and_leaves_nothing(tmp_path, cells, told):
    path = write_sweep(tmp_path, parameters={"rate": 0.25})
    write_notebook(tmp_path / "notebooks/toy.ipynb", PARAMETERS, *cells)
    run = run_of(path)
    with pytest.raises(DataError) as caught:
        execute_run(run)
    assert str(caught.value) == told
    assert list(run.folder.iterdir()) == []


def test_a_notebook_changed_meanwhile_is_not_run(done):
    write_notebook(done.notebook, PARAMETERS, RECORD)
    with pytest.raises(DataError, match="changed after the sweep began; start the sweep again"):
        execute_run(done)
    done.notebook.write_text("{")
    with pytest.raises(DataError, match="not a Jupyter"):
        execute_run(done)


@pytest.fixture(scope="module")
def ray():
    """One Ray for the tests that do not start their own."""
    ray = pytest.importorskip("ray")
    with tempfile.TemporaryDirectory(prefix="mutmeta-", ignore_cleanup_errors=True) as folder:
        ray.init("local", num_cpus=2, logging_level="ERROR", _temp_dir=folder, **QUIET)
        yield
        ray.shutdown()


def tries(folder: Path, mood: str) -> int:
    """How often a run of this mood was begun."""
    log = folder / f"{mood}.log"
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_what_fails_is_tried_again_then_told_and_the_others_go_on(ray, tmp_path):
    given = {"parameters": {"scratch": str(tmp_path)}, "grid": {"mood": MOODS}, "retries": 1}
    sweep = read_sweep(write_sweep(tmp_path, **given))
    reports: list[tuple] = []
    results = module.run_sweep(sweep, lambda *told: reports.append(told))
    outcomes = {run.varied["mood"]: outcome for run, outcome in results.items()}
    states = dict.fromkeys(MOODS, "finished") | dict.fromkeys(MOODS[1:3], "failed")
    assert {mood: outcome.state for mood, outcome in outcomes.items()} == states
    assert outcomes["fails"].error == "cell 3: no luck"
    told = "the process of the run died (WorkerCrashedError)"
    assert outcomes["kills its process"].error == told
    once_more = dict.fromkeys(MOODS, 2) | {"fine": 1}
    assert {mood: tries(tmp_path, mood) for mood in MOODS} == once_more
    assert reports == [("runs", ended, 6) for ended in range(6)]
    index = json.loads(sweep.index.read_text())
    assert [line["state"] for line in index["runs"]] == list(states.values())
    assert index["runs"][1]["parameters"] == {"scratch": str(tmp_path), "mood": "fails"}
    for run, outcome in results.items():
        left = {run.file(suffix).exists() for suffix in (".json", ".ipynb")}
        assert left == {outcome.state == "finished"}
    assert not list(sweep.index.parent.glob(".*"))

    # Once more: only what is not finished, or not whole any more, runs.
    first = next(iter(results)).file(".json")
    first.write_text(first.read_text().replace("1.5", "9.9"))
    again = {run.varied["mood"]: outcome.state for run, outcome in module.run_sweep(sweep).items()}
    assert again == states
    more = {"fine": 2, "fails": 4, "kills its process": 4}
    assert {mood: tries(tmp_path, mood) for mood in MOODS} == once_more | more
    assert "9.9" not in first.read_text()


@pytest.mark.parametrize("key", ["cpus_per_run", "gpus_per_run"])
def test_what_no_machine_has_is_refused(ray, tmp_path, key):
    with pytest.raises(DataError, match=f"{key} is 5000, but no machine has more than "):
        module.run_sweep(read_sweep(write_sweep(tmp_path, **{key: 5000})))
    assert not (tmp_path / "sweeps/runs").exists()


def test_the_command_is_quiet_and_skips_what_is_finished(tmp_path):
    pytest.importorskip("ray")
    scratch = {"scratch": str(tmp_path)}
    path = write_sweep(tmp_path, parameters=scratch, grid={"mood": ["fine", "fails once"]})
    given = {"capture_output": True, "text": True, "env": ENVIRONMENT, "cwd": tmp_path}
    done = subprocess.run([*SWEEP, str(path)], **given)
    assert (done.returncode, done.stderr) == (0, "")
    table, told = done.stdout.splitlines()[:-1], done.stdout.splitlines()[-1]
    assert {line[0] for line in table} == set("┏┃┡│└"), "Ray's words are kept back"
    assert done.stdout.count("finished") == tries(tmp_path, "fails once") == 2
    assert told == "index of the runs: sweeps/runs/sweep.index.json"
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "sweeps/runs").glob("toy-*")}
    assert len(before) == 4

    # Everything is finished, so Ray is not even imported.
    code = "import sys; sys.modules['ray'] = None; from mutmeta_lib.cli import app; app()"
    again = subprocess.run([sys.executable, "-c", code, "sweep", str(path)], **given)
    assert again.returncode == 0, again.stderr
    assert {p: p.stat().st_mtime_ns for p in before} == before


def wait_for(condition, seconds: float = 60.0) -> None:
    """Wait until something holds, or fail."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.1)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="reads /proc")
def test_ctrl_c_cancels_cleanly(tmp_path):
    pytest.importorskip("ray")
    # Now and then Ray 2.60 aborts over a check of its own when a task ends while it is cancelled.
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        code, told, index = interrupted_sweep(folder)
        if "a bug in Ray" not in told:
            break
    assert code == 130, told
    assert "of 3 runs are finished, and will be skipped next time" in told.splitlines()[-1]
    assert "Traceback" not in told
    states = {run["state"] for run in json.loads(index.read_text())["runs"]}
    assert states == {"finished", "stopped"}
    assert not list(index.parent.glob(".*.part"))
    wait_for(lambda: not kernels(folder), 20)


def test_ctrl_c_cancels_what_runs_on_a_ray_that_goes_on(ray, tmp_path):
    grid = {"mood": ["fine", "slow"]}
    sweep = read_sweep(write_sweep(tmp_path, parameters={"scratch": str(tmp_path)}, grid=grid))

    def report(what, done, total):
        if done:
            wait_for(lambda: tries(tmp_path, "slow"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="1 of 2 runs are finished"):
        module.run_sweep(sweep, report)
    wait_for(lambda: not kernels(tmp_path), 20)


def interrupted_sweep(folder: Path) -> tuple[int, str, Path]:
    """Press Ctrl-C when one run is finished and one under way: exit code, stderr and index."""
    grid = {"mood": ["fine", "slow", "fine too"]}
    path = write_sweep(folder, parameters={"scratch": str(folder)}, grid=grid)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    pipes |= {"env": ENVIRONMENT, "start_new_session": True}
    process = subprocess.Popen([*SWEEP, str(path)], **pipes)
    index = folder / "sweeps/runs/sweep.index.json"
    try:
        wait_for(lambda: index.exists() and '"finished"' in index.read_text())
        wait_for(lambda: tries(folder, "slow"))
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, told, index


def kernels(folder: Path) -> list[Path]:
    """Processes that work in the toy's folder (its kernels), but for those that have ended."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            working = os.readlink(process / "cwd") == str(folder / "notebooks")
            if working and "State:\tZ" not in (process / "status").read_text():
                found.append(process)
        except OSError:
            continue  # it ended, or belongs to somebody else
    return found


def command(*arguments: str):
    """The command within this process."""
    return CliRunner().invoke(app, ["sweep", *arguments], env={"COLUMNS": "200", "NO_COLOR": "1"})


def test_a_missing_ray_is_one_sentence_and_a_dry_run_needs_none(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    path = write_sweep(tmp_path, grid={"mood": ["fine", "slow"]}, seeds=[3, 4])
    done = command(str(path))
    told = 'a sweep needs Ray, which is not installed; pip install "mutmeta[sweep]"\n'
    assert (done.exit_code, done.stderr) == (2, told)
    done = command(str(path), "--dry-run")
    assert done.exit_code == 0, done.stderr
    rows = [line.split("│")[2:5] for line in done.stdout.splitlines() if "toy-" in line]
    assert [" ".join(map(str.strip, row)) for row in rows] == [
        f"{mood} {seed} waiting" for mood in ("fine", "slow") for seed in (3, 4)
    ]
    assert not (tmp_path / "sweeps/runs").exists()


def test_the_command_tells_what_is_wrong_and_every_failed_run(monkeypatch, tmp_path):
    path = write_sweep(tmp_path, grid={"step": [1], "mod": ["fine"]})
    done = command(str(path))
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        f"{path}: grid.step: there is no parameter 'step'; did you mean 'steps'?",
        f"{path}: grid.mod: there is no parameter 'mod'; did you mean 'mood'?",
        "2 problems found",
    ]
    path = write_sweep(tmp_path, seeds=[0, 1])
    first, second = expand(read_sweep(path))
    results = {first: Outcome("failed", error="no luck"), second: Outcome("finished", 2.0, "abc")}
    monkeypatch.setattr(module, "run_sweep", lambda sweep, report: results)
    done = command(str(path))
    assert (done.exit_code, done.stderr) == (1, f"{first.name} failed; no luck\n")
    assert "abc" in done.stdout


@pytest.mark.parametrize(
    ("address", "why"),
    [(None, "no room"), ("auto", "no room"), ("[::1]:1", ""), ("ray://127.0.0.1:1", "")],
)
def test_a_ray_that_does_not_start_is_one_sentence(monkeypatch, tmp_path, address, why):
    """Here it is private: no dashboard, nothing reported, and no folder of its own is left."""
    ray = pytest.importorskip("ray")
    asked: dict = {}

    def init(**settings):
        asked.update(settings)
        assert Path(settings.get("_temp_dir", "/")).is_dir()
        raise OSError("first line\nno room")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "init", init)
    if address:
        monkeypatch.setenv("RAY_ADDRESS", address)
    done = command(str(write_sweep(tmp_path, retries=3)))
    where = f"at RAY_ADDRESS={address}" if address else "on this machine"
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith(f"Ray {where} cannot be used ({why}")
    assert bool(asked) == bool(why), "an address that does not answer is not tried"
    if address is None:
        assert asked.items() >= (QUIET | {"address": "local"}).items()
        assert asked["_system_config"] == {"task_oom_retries": 3}, "or it would try for ever"
        assert not Path(asked["_temp_dir"]).exists()
        assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
