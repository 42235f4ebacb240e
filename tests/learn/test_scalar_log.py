import math
import sys

import pytest

from mutmeta_lib.errors import DataError
from mutmeta_lib.learn.scalar_log import scalar_log


def read(folder):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    names = events.Tags()["scalars"]
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in names}


def write(folder, steps, **more):
    with scalar_log(folder, **more) as log:
        for step in steps:
            log(step, {"loss": step / 2, "validation": math.nan if step % 2 else 1.0})


def test_what_was_taken_is_read_back(tmp_path):
    write(tmp_path / "logs", (1, 2, 3))
    assert read(tmp_path / "logs") == {
        "loss": [(1, 0.5), (2, 1.0), (3, 1.5)],
        "validation": [(2, 1.0)],
    }


def test_steps_done_again_after_a_kill_are_shown_once(tmp_path):
    write(tmp_path, (1, 2, 3))
    write(tmp_path, (3, 4), first_step=3)
    assert [step for step, _ in read(tmp_path)["loss"]] == [1, 2, 3, 4]


def test_without_a_folder_nothing_is_needed_or_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    write(None, (1, 2))
    assert not list(tmp_path.iterdir())


def test_without_tensorboard_one_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(DataError, match=r"not installed.*mutmeta\[tensorboard\]"):
        write(tmp_path, (1,))


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path):
    pytest.importorskip("tensorboard")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="folder of logs cannot be written to"):
        write(tmp_path / "file" / "logs", (1,))
