"""The machine is described, not named."""

import json
import os
import platform
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mutmeta_lib.records import machine
from mutmeta_lib.records.machine import environment, peak_memory_mb


def test_environment_tells_no_path_and_no_host_name():
    told = json.dumps(environment("auto"))
    private = [socket.gethostname(), platform.node(), os.environ.get("USER", ""), str(Path.cwd())]
    private += [str(Path.home()), str(Path(machine.__file__).parent)]
    assert not [word for word in private if len(word) > 1 and word in told]
    assert not re.search(r'(^|[\s"])[~.]*/\w', told)


def test_environment_tells_what_timings_depend_on():
    told = environment("cpu")
    assert told["python"] == platform.python_version()
    assert told["threads"] == torch.get_num_threads()
    assert told["packages"]["torch"] == torch.__version__
    assert told["packages"]["numpy"] == np.__version__
    assert told["device"].startswith("CPU")


def git(folder, *words):
    subprocess.run(
        ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b.c", *words],
        check=True,
        capture_output=True,
    )


def test_commit_is_unknown_outside_a_repository_and_in_a_foreign_one(tmp_path):
    (tmp_path / "errors.py").write_text("")
    assert machine._commit(tmp_path) == "unknown"
    git(tmp_path, "init")
    assert machine._commit(tmp_path) == "unknown"


def test_commit_says_when_the_library_was_changed(tmp_path):
    (tmp_path / "errors.py").write_text("")
    git(tmp_path, "init")
    git(tmp_path, "add", "errors.py")
    git(tmp_path, "commit", "-m", "a")
    clean = machine._commit(tmp_path)
    assert len(clean) == 40
    (tmp_path / "errors.py").write_text("changed = True")
    assert machine._commit(tmp_path) == clean + "-changed"


def test_without_git_the_commit_is_unknown(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine._commit(tmp_path) == "unknown"


def test_peak_memory_sees_a_large_array_that_is_gone():
    script = """
import numpy as np
from mutmeta_lib.records.machine import peak_memory_mb
before = peak_memory_mb()
ones = np.ones(20_000_000)
del ones
print(peak_memory_mb() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert 150 < float(done.stdout) < 200


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_peak_memory_of_a_device():
    kept = torch.ones(1_000_000, device="cuda")
    assert peak_memory_mb("cuda") >= kept.numel() * 4 / 1e6
