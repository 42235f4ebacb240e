"""What a run leaves behind is whole, and only then does it count as finished."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from toy_sweep import MOODS, PARAMETERS, RECORD, write_notebook, write_sweep

from mutmeta_lib.app.sweep import read_sweep
from mutmeta_lib.app.sweep_outcomes import (
    Outcome,
    clear,
    execute_run,
    finished,
    index_path,
    planned,
    write_index,
)
from mutmeta_lib.app.sweep_runs import Run, expand
from mutmeta_lib.errors import DataError
from mutmeta_lib.records.record import read_record, write_record


@pytest.fixture(scope="module")
def executed(tmp_path_factory) -> tuple[Path, Outcome]:
    """A folder with a sweep of one run that was done."""
    folder = tmp_path_factory.mktemp("executed")
    (run,) = expand(read_sweep(write_sweep(folder, parameters={"rate": 0.25})))
    return folder, execute_run(run, 2)


@pytest.fixture
def done(executed, tmp_path) -> Run:
    """A run that was done, in a folder of its own."""
    folder = shutil.copytree(executed[0], tmp_path / "copy")
    (run,) = expand(read_sweep(folder / "sweeps/sweep.yml"))
    return run


def test_a_run_leaves_a_record_and_an_executed_copy_and_nothing_else(executed, done):
    outcome = executed[1]
    record = read_record(done.record)
    assert outcome == Outcome("finished", 2, outcome.seconds, record.hash)
    assert 0 < outcome.seconds < 120
    assert record.numbers["n"]["value"] == 0.75
    assert sorted(p.name for p in done.folder.iterdir()) == [done.executed.name, done.record.name]
    copy = nbformat.read(done.executed, as_version=4)
    nbformat.validate(copy)
    assert "0.25 3 0" in done.executed.read_text()
    assert str(executed[0]) not in done.executed.read_text()


def test_it_counts_as_finished_with_what_is_known_of_it(executed, done):
    assert finished(done) == replace(executed[1], seconds=finished(done).seconds)
    assert planned(read_sweep(done.folder.parent / "sweep.yml")) == [(done, finished(done))]


def change_output(run: Run) -> None:
    run.executed.write_text(run.executed.read_text().replace("0.25 3 0", "0.99 3 0"))


def change_number(run: Run) -> None:
    run.record.write_text(run.record.read_text().replace("0.75", "0.99"))


def recompute_record(run: Run) -> None:
    write_record(replace(read_record(run.record), peak_memory_mb=2.0), run.record)


def other_record(run: Run) -> None:
    write_record(replace(read_record(run.record), parameters={"seed": 1}), run.record)


def other_run(run: Run) -> None:
    run.executed.write_text(run.executed.read_text().replace(run.hash, "0" * 12))


def no_stamp(run: Run) -> None:
    nbformat.write(nbformat.read(run.notebook, as_version=4), run.executed)


@pytest.mark.parametrize(
    "tamper",
    [
        lambda run: run.record.unlink(),
        lambda run: run.executed.unlink(),
        lambda run: os.truncate(run.record, 300),
        lambda run: os.truncate(run.executed, 300),
        lambda run: os.truncate(run.executed, 0),
        lambda run: run.executed.write_text("{}"),
        lambda run: run.executed.write_text("[]"),
        lambda run: run.executed.write_text('{"metadata": {"mutmeta": 3}, "cells": []}'),
        lambda run: run.executed.write_bytes(b"\xff\xfe"),
        change_output,
        change_number,
        recompute_record,
        other_record,
        other_run,
        no_stamp,
    ],
)
def test_tampered(done, tamper: Callable[[Run], None]):
    assert finished(done) is not None
    tamper(done)
    assert finished(done) is None


@pytest.mark.parametrize("change", ["code", "default", "parameter", "data"])
def test_another_question_is_another_run(done, change):
    """The finished one stays where it is."""
    root = done.folder.parents[1]
    parameters = {"rate": 0.5 if change == "parameter" else 0.25}
    path = write_sweep(root, parameters=parameters)
    if change == "code":
        write_notebook(done.notebook, PARAMETERS, MOODS, RECORD + "print('changed')")
    if change == "default":
        write_notebook(done.notebook, PARAMETERS.replace("steps = 3", "steps = 4"), MOODS, RECORD)
    if change == "data":
        (root / "notebooks/demo").mkdir()
        path = write_sweep(root, parameters=parameters | {"data_dir": "./demo"})
    ((run, outcome),) = planned(read_sweep(path))
    assert outcome == Outcome("waiting")
    assert run.name != done.name
    assert finished(done) is not None


def run_of(folder: Path, *cells: str) -> Run:
    path = write_sweep(folder)
    write_notebook(folder / "notebooks/toy.ipynb", PARAMETERS, *cells)
    (run,) = expand(read_sweep(path))
    return run


def test_a_failing_cell_is_an_outcome_that_leaves_nothing(tmp_path):
    run = run_of(tmp_path, "x = 1", "raise ValueError('first line\\nno luck\\n')")
    outcome = execute_run(run, 1)
    assert (outcome.state, outcome.attempts, outcome.error) == ("failed", 1, "no luck")
    # The title, the defaults, the sweep's parameters and x = 1 come before it.
    assert outcome.reason() == f"cell {outcome.cell}: no luck"
    assert outcome.cell == 4
    assert list(run.folder.iterdir()) == []


def test_a_run_must_write_one_record(tmp_path):
    outcome = execute_run(run_of(tmp_path, "x = 1"), 1)
    assert outcome.state == "failed"
    assert outcome.error == (
        "toy.ipynb: the notebook wrote 0 records into 'records_dir'; a run of a sweep writes one"
    )


def test_a_notebook_changed_meanwhile_is_not_run(tmp_path):
    run = run_of(tmp_path, "1 / 0")
    write_notebook(run.notebook, PARAMETERS, RECORD)
    outcome = execute_run(run, 1)
    assert outcome.error == (
        "toy.ipynb: the notebook was changed after the sweep began; start the sweep again"
    )


def test_the_index_has_a_line_for_every_run_and_is_replaced_whole(tmp_path, monkeypatch):
    sweep = read_sweep(write_sweep(tmp_path, parameters={"rate": 1}, seeds=[0, 1]))
    runs = expand(sweep)
    outcomes = {
        runs[0].name: Outcome("finished", 1, 2.5, "ab"),
        runs[1].name: Outcome("failed", 3, 1.0, None, 4, "no luck"),
    }
    written = write_index(sweep, runs, outcomes)
    path = index_path(sweep)
    assert path == tmp_path / "sweeps/runs/sweep.index.json"
    assert json.loads(path.read_text()) == written
    assert written["runs"][1] == {
        "run": runs[1].name,
        "state": "failed",
        "attempts": 3,
        "seconds": 1.0,
        "record": None,
        "cell": 4,
        "error": "no luck",
        "profile": None,
        "parameters": {"rate": 1, "seed": 1},
    }
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_index(sweep, runs[:1], outcomes)
    monkeypatch.undo()
    assert json.loads(path.read_text()) == written
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_clear_removes_what_killed_attempts_left_of_this_run_alone(done):
    for name in (f".{done.name}.abc.part", ".toy-other.abc.part"):
        (done.folder / name).mkdir()
    clear(done)
    assert {p.name for p in done.folder.glob(".*")} == {".toy-other.abc.part"}
    assert finished(done) is not None


def test_a_run_that_is_no_notebook_any_more_is_told(tmp_path):
    run = run_of(tmp_path, "x = 1")
    run.notebook.write_text("{")
    assert "not a Jupyter notebook" in execute_run(run, 1).error
    with pytest.raises(DataError, match="not a Jupyter notebook"):
        planned(read_sweep(tmp_path / "sweeps/sweep.yml"))
