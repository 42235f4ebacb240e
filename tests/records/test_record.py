"""Records: what is written is what is read, changes are noticed, questions have stable names."""

import json
import os
import platform
import re
import socket
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mutmeta_lib.errors import DataError
from mutmeta_lib.records import record as module
from mutmeta_lib.records.record import (
    Record,
    commit_of,
    describe,
    environment,
    name_record,
    number,
    read_record,
    recorded_parameters,
    result,
    write_record,
)

BASE = {
    "experiment": "few_shot",
    "profile": "quick",
    "parameters": {"shots": (0, 1, 5), "seeds": 2, "device": "cpu"},
    "data": {"GB1": "ab" * 32},
    "encoder": {"name": "tiny", "sha256": "cd" * 32},
    "environment": {"device": "CPU, some processor", "threads": 2},
    "seconds": {"adapt": 1.5},
    "peak_memory_mb": 312.5,
    "created": "2026-11-23T10:00:00+00:00",
    "numbers": {"maml_5_spearman": number(0.1 + 0.2, 0.2, 0.4, 24)},
    "tables": {"results": pd.DataFrame({"method": ["maml", "mean"], "mse": [np.nan, 1 / 3]})},
}


def make(**changes) -> Record:
    return Record(**{**BASE, **changes})


@pytest.fixture
def path(tmp_path):
    """A record that was written."""
    write_record(make(), tmp_path / "new" / "r.json")
    return tmp_path / "new" / "r.json"


def test_round_trip_is_exact(path):
    assert read_record(path) == make()
    assert read_record(path).numbers["maml_5_spearman"]["value"] == 0.1 + 0.2


def test_table_comes_back_as_a_frame(path):
    frame = pd.DataFrame(
        {"method": ["maml", "mean"], "shots": [0, 5], "mse": [np.nan, 1 / 3], "low": [np.nan] * 2}
    )
    write_record(make(tables={"results": frame}), path)
    pd.testing.assert_frame_equal(read_record(path).table("results"), frame)
    with pytest.raises(KeyError, match="results"):
        make().table("resluts")


def test_no_nan_is_written(path):
    write_record(make(peak_memory_mb=float("nan")), path)
    json.loads(path.read_text(), parse_constant=pytest.fail)
    assert read_record(path).peak_memory_mb is None


CHANGED = [
    ("0.30000000000000004", "0.9", "the content was changed"),
    ('"n": 24', '"n": 240', "the content was changed"),
    ("0.3333333333333333", "0.5", "the content was changed"),
    ("2026-11-23", "2026-11-24", "the content was changed"),
    ("some processor", "a faster processor", "the content was changed"),
    ('"seeds": 2', '"seeds": 20', "the content was changed"),
    ('"profile": "quick"', '"profile": "full"', "the content was changed"),
    ("ab" * 32, "ba" * 32, "the content was changed"),
    (make().hash, "0" * 12, "the stored hash is not that of the parameters"),
    ('"profile"', '"remark"', r"not a record \(missing or unknown: profile, remark\)"),
    ('"profile": "quick",', '"profile"', "row 6: not a record"),
]
FOREIGN = [
    (b'{\n "a": 1,\n', "row 3"),
    (b"[1]", "missing or unknown"),
    (b'{"experiment": "a"}', "parameters"),
    (b"", "row 1"),
    (b"\xff\xfe", "UTF-8"),
]


@pytest.mark.parametrize(("old", "new", "said"), CHANGED)
def test_a_changed_file_is_noticed(path, old, new, said):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(DataError, match=rf"r\.json.*{said}"):
        read_record(path)


@pytest.mark.parametrize(("content", "said"), FOREIGN)
def test_what_is_not_a_record_is_refused_and_left_alone(path, content, said):
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"r\.json.*{said}"):
        result(Experiment(), {}, path, recompute=False)
    assert path.read_bytes() == content


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.json: there is no such record"):
        read_record(tmp_path / "nowhere.json")


HASHED = {
    "experiment": "timing",
    "parameters": {"shots": (0, 1, 5), "seeds": 3, "device": "cpu"},
    "data": {"GB1": "ee" * 32},
    "encoder": {"name": "tiny", "sha256": "ff" * 32},
}
NOT_HASHED = {
    "profile": "full",
    "environment": {"device": "another"},
    "seconds": {"adapt": 9.0},
    "peak_memory_mb": 1.0,
    "created": "2027-01-01T00:00:00+00:00",
    "numbers": {},
    "tables": {},
}


@pytest.mark.parametrize(("field", "value"), [*HASHED.items(), *NOT_HASHED.items()])
def test_the_hash_depends_on_the_question_alone_and_the_digest_on_everything(field, value):
    changed = make(**{field: value})
    assert (changed.hash != make().hash) == (field in HASHED)
    assert changed.digest != make().digest
    assert set(HASHED) | set(NOT_HASHED) == set(BASE)


def test_hash_and_digest_are_known(path):
    # Literals: a change of the rule would orphan every committed record.
    assert make().hash == "7630e283e7cd"
    assert make().digest == "7ac7c284f407"
    assert json.loads(path.read_text())["content_sha256"].startswith(make().digest)
    assert name_record(read_record(path)) == f"few_shot@quick {make().digest}"


@given(st.permutations(list(BASE["parameters"].items())))
def test_hash_does_not_depend_on_the_order_of_parameters(items):
    assert make(parameters=dict(items)).hash == make().hash


def test_a_record_keeps_its_own_copy():
    shots = [0, 1]
    record = make(parameters={"shots": shots})
    shots.append(5)
    assert record.parameters == {"shots": [0, 1]}
    with pytest.raises(FrozenInstanceError):
        record.profile = "full"


def test_what_makes_no_sense_is_refused():
    with pytest.raises(DataError, match="'yesterday' is not a date and time"):
        make(created="yesterday")
    with pytest.raises(ValueError, match="upside down"):
        number(0.5, 0.6, 0.4)
    assert number(float("nan"), 0.5, 0.5)["value"] is None


class Experiment:
    """Counts its runs; a stand-in for the real ones."""

    def __init__(self):
        self.runs = 0

    def __call__(self, *, shots=(0, 1), seeds=2, profile="full", progress=None) -> Record:
        arguments = {name: value for name, value in locals().items() if name != "self"}
        self.runs += 1
        return make(parameters=recorded_parameters(arguments), profile=profile)


@pytest.mark.parametrize(
    ("asked", "loaded"),
    [
        ({}, True),
        ({"seeds": 2}, True),
        ({"shots": [0, 1]}, True),
        ({"profile": "quick", "progress": print}, True),
        ({"seeds": 3}, False),
        ({"shots": [0, 1, 5]}, False),
    ],
)
def test_result_compares_parameters_completed_with_defaults(tmp_path, asked, loaded):
    experiment, path = Experiment(), tmp_path / "r.json"
    first, _ = result(experiment, {}, path, recompute=False)
    found, was_loaded = result(partial(experiment, progress=print), asked, path, recompute=False)
    assert was_loaded is loaded
    assert (found == first) is loaded
    assert experiment.runs == (1 if loaded else 2)
    assert read_record(path).parameters["seeds"] == asked.get("seeds", 2)
    assert result(experiment, asked, path, recompute=True)[1] is False
    with pytest.raises(TypeError, match="sedes"):
        result(experiment, {"sedes": 3}, path, recompute=False)


def test_recorded_parameters_name_no_place_of_one_machine():
    given = {"data_dir": "/home/ada/data/mine", "encoder": "/models/esm2/", "shots": (0, 1)}
    kept = {"data_dir": "mine", "encoder": "esm2", "shots": [0, 1]}
    assert recorded_parameters({**given, "progress": print, "workers": 4}) == kept


def test_describe_is_one_sentence_with_date_device_and_duration():
    assert describe(make(), loaded=True) == (
        f"Record few_shot@quick {make().digest}: loaded; "
        "computed on 2026-11-23 on CPU, some processor (2 threads) in 1.5 s."
    )
    bare = replace(make(), environment={})
    assert describe(bare, loaded=False) == (
        f"Record few_shot@quick {bare.digest}: computed just now on an unknown device in 1.5 s."
    )


def test_the_environment_tells_what_timings_depend_on_and_names_no_machine():
    told = environment("auto")
    assert told["python"] == platform.python_version()
    assert told["threads"] == torch.get_num_threads()
    assert told["packages"]["torch"] == torch.__version__
    assert told["device"].startswith("CPU") != torch.cuda.is_available()
    text = json.dumps(told)
    private = [socket.gethostname(), platform.node(), os.environ.get("USER", ""), str(Path.cwd())]
    private += [str(Path.home()), str(Path(module.__file__).parent)]
    assert not [word for word in private if len(word) > 1 and word in text]
    assert not re.search(r'(^|[\s"])[~.]*/\w', text)


def git(folder, *words):
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    command = ["git", "-C", str(folder), *who, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_is_that_of_the_library(tmp_path, monkeypatch):
    (tmp_path / "errors.py").write_text("")
    assert commit_of(tmp_path) == "unknown"  # no repository
    git(tmp_path, "init")
    assert commit_of(tmp_path) == "unknown"  # somebody else's
    git(tmp_path, "add", "errors.py")
    git(tmp_path, "commit", "-m", "a")
    clean = git(tmp_path, "rev-parse", "HEAD")
    assert commit_of(tmp_path) == clean
    (tmp_path / "errors.py").write_text("changed = True")
    assert commit_of(tmp_path) == f"{clean}-changed"
    own = Path(module.__file__).parents[1]
    assert environment()["commit"] == commit_of(own)
    assert (own / "errors.py").exists()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit_of(tmp_path) == "unknown"  # no git


def test_peak_memory_sees_a_large_array_that_is_gone():
    script = """
import sys
import numpy as np
from mutmeta_lib.records.record import peak_memory_mb, read_record
assert "torch" not in sys.modules, "a page that only reads records does not need it"
before = peak_memory_mb()
ones = np.ones(20_000_000)
del ones
print(peak_memory_mb() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert 150 < float(done.stdout) < 200
