"""Sweeps on a real Ray: retries, killed processes, skipping, Ctrl-C, and no word too many."""

import builtins
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from toy_sweep import write_sweep
from typer.testing import CliRunner

from mutmeta_lib.app.sweep import read_sweep
from mutmeta_lib.app.sweep_ray import run_sweep
from mutmeta_lib.cli import app
from mutmeta_lib.errors import DataError
from mutmeta_lib.records.record import read_record

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200", "NO_COLOR": "1"}
COMMAND = [sys.executable, "-m", "mutmeta_lib.cli", "sweep"]
MOODS = ["fine", "fails", "fails once", "kills its process once", "kills its kernel once"]


@pytest.fixture(scope="module")
def ray(tmp_path_factory) -> Iterator[None]:
    """One Ray for the tests that do not start their own."""
    ray = pytest.importorskip("ray")
    import tempfile

    with tempfile.TemporaryDirectory(prefix="mutmeta-", ignore_cleanup_errors=True) as folder:
        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            object_store_memory=100 * 10**6,
            _node_ip_address="127.0.0.1",
            _temp_dir=folder,
        )
        yield
        ray.shutdown()


def tries(folder: Path, mood: str) -> int:
    """How often a run of this mood was begun."""
    log = folder / f"{mood}.log"
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_what_fails_is_tried_again_then_told_and_the_others_go_on(ray, tmp_path):
    path = write_sweep(
        tmp_path, parameters={"scratch": str(tmp_path)}, grid={"mood": MOODS}, retries=1
    )
    sweep = read_sweep(path)
    lines: list[str] = []
    results = run_sweep(sweep, progress=lines.append)
    outcomes = {run.varied["mood"]: outcome for run, outcome in results}
    assert {mood: (o.state, o.attempts) for mood, o in outcomes.items()} == {
        "fine": ("finished", 1),
        "fails": ("failed", 2),
        "fails once": ("finished", 2),
        "kills its process once": ("finished", 2),
        "kills its kernel once": ("finished", 2),
    }
    assert outcomes["fails"].reason() == "cell 3: no luck"
    assert any("the process of the run died (WorkerCrashedError)" in line for line in lines)
    assert {mood: tries(tmp_path, mood) for mood in MOODS} == dict.fromkeys(MOODS[1:], 2) | {
        "fine": 1
    }
    index = json.loads((sweep.output / "sweep.index.json").read_text())
    assert [(line["state"], line["attempts"]) for line in index["runs"]] == [
        (outcome.state, outcome.attempts) for _, outcome in results
    ]
    for run, outcome in results:
        assert run.record.exists() == run.executed.exists() == (outcome.state == "finished")
        if outcome.state == "finished":
            assert read_record(run.record).hash == outcome.record
    assert not list(sweep.output.glob("*.part"))
    assert not list(sweep.output.glob(".*.part"))

    # Once more: only what is not finished, or not whole any more, runs.
    first = results[0][0]
    first.record.write_text(first.record.read_text().replace("1.5", "9.9"))
    again = {run.varied["mood"]: outcome.state for run, outcome in run_sweep(sweep)}
    assert again == {mood: outcome.state for mood, outcome in outcomes.items()}
    assert {mood: tries(tmp_path, mood) for mood in MOODS} == {
        "fine": 2,
        "fails": 4,
        "fails once": 2,
        "kills its process once": 2,
        "kills its kernel once": 2,
    }
    assert "9.9" not in first.record.read_text()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"cpus_per_run": 5000}, "cpus_per_run is 5000, but no machine has more than 2"),
        ({"gpus_per_run": 5000}, "gpus_per_run is 5000, but no machine has more than "),
    ],
)
def test_what_no_machine_has_is_refused(ray, tmp_path, content, sentence):
    with pytest.raises(DataError) as caught:
        run_sweep(read_sweep(write_sweep(tmp_path, **content)))
    assert sentence in str(caught.value)
    assert not (tmp_path / "sweeps/runs").exists()


def test_the_command_is_quiet_and_skips_what_is_finished(tmp_path):
    pytest.importorskip("ray")
    path = write_sweep(tmp_path, grid={"steps": [2, 3]})
    done = subprocess.run(
        [*COMMAND, str(path)], capture_output=True, text=True, env=ENVIRONMENT, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    told = done.stderr.splitlines()
    assert len(told) == 2, done.stderr
    assert told[0].startswith("1 of 2: toy-")
    assert told[1].startswith("2 of 2: toy-")
    assert done.stdout.count("finished") == 2
    assert "index of the runs: sweeps/runs/sweep.index.json" in done.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["notebooks", "sweeps"]
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "sweeps/runs").glob("toy-*")}
    assert len(before) == 4

    # Everything is finished, so Ray is not even imported.
    code = (
        "import sys; from mutmeta_lib.cli import app; app(['sweep', sys.argv[1]], "
        "standalone_mode=False); print('ray' in sys.modules)"
    )
    again = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, env=ENVIRONMENT
    )
    assert again.stdout.splitlines()[-1] == "False", again.stderr
    assert {p: p.stat().st_mtime_ns for p in before} == before


def wait_for(condition, seconds: float = 60.0) -> None:
    """Wait until something holds, or fail."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.1)


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


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


def interrupted_sweep(folder: Path) -> tuple[int, str, Path]:
    """Press Ctrl-C when one run is finished and one under way: exit code, stderr and index."""
    grid = {"mood": ["fine", "slow", "fine too"]}
    path = write_sweep(folder, parameters={"scratch": str(folder)}, grid=grid, cpus_per_run=1)
    process = subprocess.Popen(
        [*COMMAND, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        start_new_session=True,
    )
    index = folder / "sweeps/runs/sweep.index.json"
    try:
        wait_for(
            lambda: tries(folder, "slow") and index.exists() and '"finished"' in index.read_text()
        )
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, told, index


def kernels(folder: Path) -> list[int]:
    """Processes that work in the toy's folder: its kernels."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(entry / "cwd") == str(folder / "notebooks"):
                found.append(int(entry.name))
        except OSError:
            continue  # it ended, or belongs to somebody else
    return [pid for pid in found if alive(pid)]


def without_ray(monkeypatch) -> None:
    """Make Ray look as if it were not installed."""
    real = builtins.__import__

    def missing(name, *arguments, **keywords):
        if name == "ray" or name.startswith("ray."):
            raise ImportError(f"No module named '{name}'", name="ray")
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", missing)


def command(*arguments: str):
    """The command within this process."""
    return CliRunner().invoke(app, ["sweep", *arguments], env={"COLUMNS": "200", "NO_COLOR": "1"})


def test_a_missing_ray_is_one_sentence_and_starts_nothing(monkeypatch, tmp_path):
    path = write_sweep(tmp_path)
    without_ray(monkeypatch)
    done = command(str(path))
    assert done.exit_code == 2
    assert done.stderr == (
        'a sweep needs Ray, which is not installed; pip install "mutmeta[sweep]"\n'
    )
    assert not (tmp_path / "sweeps/runs").exists()


def test_a_dry_run_lists_the_runs_and_needs_no_ray(monkeypatch, tmp_path):
    path = write_sweep(tmp_path, grid={"mood": ["fine", "slow"]}, seeds=[3, 4])
    without_ray(monkeypatch)
    done = command(str(path), "--dry-run")
    assert done.exit_code == 0, done.stderr
    rows = [line.split("│") for line in done.stdout.splitlines() if "toy-" in line]
    assert [[cell.strip() for cell in row[2:5]] for row in rows] == [
        ["fine", "3", "waiting"],
        ["fine", "4", "waiting"],
        ["slow", "3", "waiting"],
        ["slow", "4", "waiting"],
    ]
    assert not (tmp_path / "sweeps/runs").exists()


def test_every_problem_of_the_file_is_told_and_nothing_starts(tmp_path):
    path = write_sweep(tmp_path, retries=-1, grid={"step": [1]})
    done = command(str(path))
    assert done.exit_code == 2
    assert done.stderr.splitlines() == [
        f"{path}: 'retries' is -1; write a whole number, 0 or more",
        f"{path}: grid.step: there is no parameter 'step'; did you mean 'steps'?",
        "2 problems found",
    ]
    assert done.stdout == ""


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "nowhere", "a:b"])
def test_a_cluster_that_does_not_answer_is_one_sentence(monkeypatch, tmp_path, address):
    ray = pytest.importorskip("ray")
    path = write_sweep(tmp_path, address=address)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    began = time.monotonic()
    done = command(str(path))
    assert done.exit_code == 2
    assert done.stderr == (
        f"no Ray cluster answers at '{address}'; write host:port of its head node\n"
    )
    assert time.monotonic() - began < 12


def test_a_failed_sweep_ends_with_exit_code_1(monkeypatch, tmp_path):
    from mutmeta_lib.app import sweep_ray
    from mutmeta_lib.app.sweep_outcomes import Outcome, planned

    path = write_sweep(tmp_path, seeds=[0, 1])
    (first, _), (second, _) = planned(read_sweep(path))
    results = [
        (first, Outcome("failed", 3, 1.0, None, 4, "no luck")),
        (second, Outcome("finished", 1, 2.0, "abcdef")),
    ]
    monkeypatch.setattr(sweep_ray, "run_sweep", lambda sweep, progress: results)
    done = command(str(path))
    assert done.exit_code == 1
    assert done.stderr == f"{first.name} failed 3 times; cell 4: no luck\n"
    assert "abcdef" in done.stdout


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        (None, "Ray on this machine cannot be used (no room); mend what it names\n"),
        (
            "auto",
            "Ray at 'auto' cannot be used (no room); "
            "start it with the same Python, Ray and RAY_AUTH_MODE, or mend the address\n",
        ),
    ],
)
def test_a_ray_that_does_not_start_is_one_sentence(monkeypatch, tmp_path, address, sentence):
    ray = pytest.importorskip("ray")

    def init(**settings):
        raise OSError("first line\nno room")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "init", init)
    done = command(str(write_sweep(tmp_path, address=address)))
    assert (done.exit_code, done.stderr) == (2, sentence)


def test_ray_here_is_private_and_quiet_and_cleans_up(monkeypatch, tmp_path):
    """No dashboard, no address but this machine's own, nothing reported, no folder left."""
    ray = pytest.importorskip("ray")
    asked: dict = {}

    def init(**settings):
        asked.update(settings)
        assert Path(settings["_temp_dir"]).is_dir()
        raise RuntimeError("enough")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "init", init)
    assert command(str(write_sweep(tmp_path))).exit_code == 2
    folder = Path(asked["_temp_dir"])
    assert not folder.exists()
    assert not folder.is_relative_to(Path(__file__).resolve().parents[2])
    assert (asked["address"], asked["_node_ip_address"]) == ("local", "127.0.0.1")
    assert asked["include_dashboard"] is asked["log_to_driver"] is False
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
