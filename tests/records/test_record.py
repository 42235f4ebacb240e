"""Records: what is written is what is read, changes are noticed, questions have stable names."""

import json
import os
import platform
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import mutmeta_lib
from mutmeta_lib.errors import DataError
from mutmeta_lib.records.record import (
    Record,
    commit_of,
    describe,
    environment,
    name_record,
    number,
    read_record,
    write_record,
)

TABLE = pd.DataFrame(
    {"method": ["maml", "mean"], "shots": [0, 5], "mse": [np.nan, 1 / 3], "low": [np.nan] * 2}
)
BASE = {
    "experiment": "few_shot",
    "profile": "quick",
    "parameters": {"shots": (0, 1, 5), "seeds": 2, "device": "cpu"},
    "data": {"GB1": "ab" * 32},
    "encoder": {"name": "tiny", "sha256": "cd" * 32},
    "environment": {"device": "CPU, some processor", "threads": 2},
    "seconds": {"adapt": 1.5},
    "peak_memory_mb": float("nan"),
    "created": "2026-11-23T10:00:00+00:00",
    "numbers": {"maml_5_spearman": number(0.1 + 0.2, 0.2, 0.4, 24)},
    "tables": {"results": TABLE},
}


def make(**changes) -> Record:
    return Record(**{**BASE, **changes})


@pytest.fixture
def path(tmp_path):
    write_record(make(), tmp_path / "new" / "r.json")
    return tmp_path / "new" / "r.json"


def test_round_trip_is_exact(path):
    found = read_record(path)
    assert found == make()
    assert found.numbers["maml_5_spearman"]["value"] == 0.1 + 0.2
    assert found.peak_memory_mb is None
    pd.testing.assert_frame_equal(found.table("results"), TABLE)
    json.loads(path.read_text(), parse_constant=pytest.fail)  # NaN is no JSON
    with pytest.raises(KeyError, match="results"):
        found.table("resluts")


CHANGED, FOREIGN = "the content was changed", r"not a record \(missing or unknown: "


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("0.30000000000000004", "0.9", CHANGED), ('"n": 24', '"n": 240', CHANGED),
        ("2026-11-23", "2026-11-24", CHANGED), (make().hash, "0" * 12, CHANGED),
        ('"profile"', '"remark"', FOREIGN + "profile, remark"),
        ("(?s).*", "[1]", FOREIGN), ('"profile": "quick",', "{", r"not a record \(Expecting"),
        ("(?s)few.*", "\udcff", r"not a record \('utf-8' codec"),
    ],
)  # fmt: skip
def test_a_changed_or_foreign_file_is_refused_and_left_alone(path, old, new, said):
    text, changes = re.subn(old, new, path.read_text(), count=1)
    assert changes
    path.write_bytes(text.encode(errors="surrogateescape"))
    before = path.read_bytes()
    with pytest.raises(DataError, match=rf"r\.json.*{said}"):
        read_record(path)
    assert path.read_bytes() == before


def test_the_hash_depends_on_the_question_alone_and_the_digest_on_everything(path):
    other = {name: {} for name in BASE} | {"experiment": "timing", "profile": "full"}
    other |= {"peak_memory_mb": 1.0, "created": "2027-01-01T00:00:00+00:00"}
    other["encoder"] = {"name": "tiny", "sha256": "ff" * 32}
    asking = {name for name in BASE if make(**{name: other[name]}).hash != make().hash}
    assert asking == {"experiment", "parameters", "data", "encoder"}
    assert len({make(**{name: other[name]}).digest for name in BASE} | {make().digest}) == 12
    # Literals: a change of the rule would orphan every committed record.
    record = make(parameters=dict(reversed(BASE["parameters"].items())))
    assert (record.hash, record.digest) == ("7630e283e7cd", "095769238fdf")
    assert name_record(read_record(path)) == f"few_shot@quick {record.digest}"


def test_what_makes_no_sense_is_refused(tmp_path):
    with pytest.raises(ValueError, match="upside down"):
        number(0.5, 0.6, 0.4)
    with pytest.raises(DataError, match=r"nowhere\.json: there is no such record"):
        read_record(tmp_path / "nowhere.json")


def test_describe_is_one_sentence_with_date_device_and_duration():
    then = "loaded; computed on 2026-11-23 on CPU, some processor (2 threads) in 1.5 s."
    assert describe(make(), loaded=True) == f"Record few_shot@quick {make().digest}: {then}"
    one = describe(make(environment={"device": "H100", "threads": 1}), loaded=False)
    assert one.endswith(": computed just now on H100 (1 thread) in 1.5 s.")


def test_the_environment_tells_what_timings_depend_on_and_names_no_machine():
    told = environment("auto")
    assert told["threads"] == torch.get_num_threads()
    assert told["packages"]["torch"] == torch.__version__
    assert told["device"].startswith("CPU") != torch.cuda.is_available()
    private = [socket.gethostname(), platform.node(), os.environ.get("USER", ""), str(Path.home())]
    assert not [word for word in private if len(word) > 1 and word in json.dumps(told)]
    assert not re.search(r'(^|[\s"])[~.]*/\w', json.dumps(told))


def test_the_commit_is_that_of_the_library(tmp_path, monkeypatch):
    def git(*words):
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        command = ["git", "-C", str(tmp_path), *who, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    (tmp_path / "errors.py").write_text("")
    git("init")
    assert commit_of(tmp_path) == "unknown"  # somebody else's
    git("add", "errors.py")
    git("commit", "-m", "a")
    assert commit_of(tmp_path) == git("rev-parse", "HEAD")
    (tmp_path / "errors.py").write_text("changed = True")
    assert commit_of(tmp_path) == git("rev-parse", "HEAD") + "-changed"
    assert environment()["commit"] == commit_of(Path(mutmeta_lib.__file__).parent)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit_of(tmp_path) == "unknown"  # no git


def test_peak_memory_sees_a_large_array_that_is_gone():
    code = """
import sys, numpy
from mutmeta_lib.records.record import peak_memory_mb
before = peak_memory_mb()
numpy.ones(20_000_000)
print(peak_memory_mb() - before, "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    gained, torch_is_there = done.stdout.split()
    assert 150 < float(gained) < 200
    assert torch_is_there == "False", "a page that only reads records does not need torch"
