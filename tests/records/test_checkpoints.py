import errno
import os
import resource
import signal
import warnings
from itertools import count
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from mutmeta_lib.errors import DataError
from mutmeta_lib.records.checkpoints import latest_checkpoint, load_checkpoint, save_checkpoint

TENSORS = {"a": torch.arange(3.0), "b/c": torch.zeros(2, 0, 2, dtype=torch.int64)}


def write(path, step, **more):
    tensors = {"weight": torch.full((3,), float(step)), "step": torch.tensor(step)}
    save_checkpoint(path, tensors, {"step": step}, **more)


def read_step(path):
    """The step of the newest good checkpoint, without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = latest_checkpoint(path)
    return None if found is None else found[1]["step"]


def names(folder):
    return sorted(file.name for file in folder.iterdir())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.safetensors"


def test_round_trip_leaves_no_draft(tmp_path):
    path = tmp_path / "deep" / "x.safetensors"
    tensors = TENSORS | {"one": torch.tensor(1), "half": torch.ones(2, dtype=torch.bfloat16)}
    state = {"step": 3, "infinite": float("inf"), "rng": {"x": 2**100}, "text": "é\0\n"}
    save_checkpoint(path, tensors, state)
    for found, found_state in (load_checkpoint(path), latest_checkpoint(path)):
        torch.testing.assert_close(found, tensors, rtol=0, atol=0)
        assert found_state == state
    assert names(path.parent) == ["x.safetensors"]


@pytest.mark.parametrize("keep", [1, 2, 4])
def test_the_last_n_are_kept(path, keep):
    for step in range(6):
        write(path, step, keep=keep)
    kept = {
        "run.safetensors": 5,
        "run.previous1.safetensors": 4,
        "run.previous2.safetensors": 3,
        "run.previous3.safetensors": 2,
    }
    kept = dict(list(kept.items())[:keep])
    assert names(path.parent) == sorted(kept)
    for name, step in kept.items():
        assert load_checkpoint(path.with_name(name))[1] == {"step": step}
    assert read_step(path) == 5


def test_nothing_there_is_nothing_to_go_on_from(path):
    assert latest_checkpoint(path) is None
    with pytest.raises(DataError, match=r"cannot be opened \(No such file"):
        load_checkpoint(path)


def test_every_flipped_bit_is_found(path):
    save_checkpoint(path, TENSORS, {"step": 1})
    whole = path.read_bytes()
    for place in range(len(whole)):
        for bit in range(8):
            flipped = bytearray(whole)
            flipped[place] ^= 1 << bit
            path.write_bytes(flipped)
            with pytest.raises(DataError, match="cannot be read"):
                load_checkpoint(path)


@given(st.data())
def test_a_changed_stretch_is_found_or_changes_nothing(tmp_path_factory, data):
    """Blanks at the end of the header may become other blanks; nothing else may pass."""
    path = tmp_path_factory.getbasetemp() / "stretch.safetensors"
    save_checkpoint(path, TENSORS, {"step": 1})
    whole = path.read_bytes()
    start = data.draw(st.integers(0, len(whole) - 1))
    stretch = data.draw(st.binary(min_size=1, max_size=40))
    path.write_bytes(whole[:start] + stretch + whole[start + len(stretch) :])
    try:
        tensors, state = load_checkpoint(path)
    except DataError:
        return
    torch.testing.assert_close(tensors, TENSORS, rtol=0, atol=0)
    assert state == {"step": 1}


def truncate(path):
    path.write_bytes(path.read_bytes()[:-5])


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def foreign(path):
    save_file({"weight": torch.ones(3)}, path)


def older_version(path):
    save_file({"weight": torch.ones(3)}, path, metadata={"state": "{}"})


DAMAGE = {
    "truncated": (truncate, "not a whole safetensors file"),
    "empty": (lambda path: path.write_bytes(b""), "empty"),
    "text": (lambda path: path.write_text("not a checkpoint"), "not a whole safetensors file"),
    "flipped": (flip, "wrong checksum"),
    "foreign": (foreign, "not a checkpoint of this version"),
    "older": (older_version, "not a checkpoint of this version"),
}


@pytest.mark.parametrize(("damage", "why"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(path, damage, why):
    write(path, 1)
    write(path, 2)
    damage(path)
    bad = path.read_bytes()
    with pytest.warns(UserWarning, match=why) as seen:
        assert latest_checkpoint(path)[1] == {"step": 1}
    assert len(seen) == 1
    sentence = str(seen[0].message)
    assert sentence.startswith(f"{path}: the checkpoint cannot be read")
    assert "going on from the one before it, run.previous1.safetensors" in sentence
    # It is kept for the user, but never again taken for a checkpoint.
    assert path.with_name("run.damaged.safetensors").read_bytes() == bad
    write(path, 3)
    assert read_step(path) == 3
    assert load_checkpoint(path.with_name("run.previous1.safetensors"))[1] == {"step": 1}


@pytest.mark.parametrize(("damage", "why"), DAMAGE.values(), ids=DAMAGE)
def test_without_a_good_one_nothing_is_touched(path, damage, why):
    write(path, 1)
    write(path, 2)
    for file in (path, path.with_name("run.previous1.safetensors")):
        damage(file)
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    with pytest.raises(DataError, match=why) as caught:
        latest_checkpoint(path)
    assert str(caught.value).startswith(f"{path}: the checkpoint cannot be read")
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before


def test_a_missing_newest_one_is_told(path):
    write(path, 1)
    write(path, 2)
    path.unlink()
    with pytest.warns(UserWarning, match=r"newest checkpoint is missing; .*previous1"):
        assert latest_checkpoint(path)[1] == {"step": 1}


class KilledError(BaseException):
    """Like SIGKILL: nothing catches it."""


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("call", ["os.fsync", "os.replace"])
def test_a_kill_at_any_moment_of_saving_leaves_a_good_one(path, monkeypatch, call, after):
    """Killed before or after each system call of a save, at which clean-up does not run either."""
    function = call.split(".")[1]
    original = getattr(os, function)
    for victim in count():
        for step in (1, 2, 3):
            write(path, step, keep=3)
        calls = count()

        def killed(*args, calls=calls, victim=victim):
            if next(calls) != victim:
                return original(*args)
            if after:
                original(*args)
            raise KilledError

        with monkeypatch.context() as patch:
            patch.setattr(call, killed)
            patch.setattr(Path, "unlink", lambda *args, **kwargs: None)
            try:
                write(path, 4, keep=3)
                break
            except KilledError:
                pass
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert latest_checkpoint(path)[1]["step"] in (3, 4)
        write(path, 5, keep=3)
        assert read_step(path) == 5
        assert not [name for name in names(path.parent) if name.endswith(".part")]
    assert victim == {"os.fsync": 2, "os.replace": 3}[call]


def test_a_full_disk_leaves_the_last_good_state(path, monkeypatch):
    write(path, 1)

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(DataError, match=r"cannot be written \(No space left on device\); free"):
            write(path, 2)
    assert names(path.parent) == ["run.safetensors"]
    assert read_step(path) == 1


def test_a_limit_on_file_size_leaves_the_last_good_state(path):
    """The same with a true refusal of the system, in the midst of the file."""
    write(path, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
        with pytest.raises(DataError, match=r"cannot be written \(File too large\)"):
            write(path, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert names(path.parent) == ["run.safetensors"]
    assert read_step(path) == 1


def test_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "folder").write_text("a file")
    path = tmp_path / "folder" / "run.safetensors"
    with pytest.raises(DataError, match="cannot be written"):
        write(path, 1)
    with pytest.raises(DataError, match="folder cannot be used"):
        latest_checkpoint(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everywhere")
@pytest.mark.parametrize("mode", [0o000, 0o500])
def test_a_folder_without_permission(path, mode):
    write(path, 1)
    path.parent.chmod(mode)
    try:
        with pytest.raises(DataError, match=r"cannot be written \(Permission denied\)"):
            write(path, 2)
    finally:
        path.parent.chmod(0o700)
    assert read_step(path) == 1


def test_a_file_that_may_not_be_read_is_not_taken_for_damaged(path, monkeypatch):
    write(path, 1)
    write(path, 2)

    def denied(*args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("mutmeta_lib.records.checkpoints.safe_open", denied)
    with pytest.raises(DataError, match=r"cannot be opened \(Permission denied\)"):
        latest_checkpoint(path)
    assert names(path.parent) == ["run.previous1.safetensors", "run.safetensors"]


def test_other_runs_in_the_folder_are_left_alone(tmp_path):
    write(tmp_path / "maml.safetensors", 1)
    write(tmp_path / "maml.long.safetensors", 7)
    (tmp_path / ".maml.long.safetensors.12.part").write_bytes(save({}))
    assert read_step(tmp_path / "maml.safetensors") == 1
    (tmp_path / "maml.safetensors").unlink()
    assert read_step(tmp_path / "maml.safetensors") is None
    assert ".maml.long.safetensors.12.part" in names(tmp_path)
