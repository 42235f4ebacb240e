"""What is kept comes back as it was, or is told to be damaged; a kill or a full disk costs nothing.

Checkpoints and both ways of a `Store` are the same kind of file, so they share one list of damages.
"""

import errno
import json
import math
import os
import resource
import signal
import threading
import warnings
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save as save_tensors

from mutmeta_lib.errors import DataError
from mutmeta_lib.records.store import Store, checksum, load, load_newest, save

TENSORS = {"a": torch.arange(3.0), "b/c": torch.zeros(2, 0, 2, dtype=torch.int64)}
QUESTION = {"seed": 0, "data": {"a": "12"}}


def write(path, step):
    save(path, {"weight": torch.full((3,), float(step))}, {"step": step}, keep_previous=True)


def read_step(path):
    found = load_newest(path)
    return None if found is None else found[1]["step"]


def names(folder):
    return sorted(file.name for file in folder.iterdir())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.safetensors"


def refuse(*_):
    raise AssertionError("computed again")


def fill(rows):
    rows[:] = np.arange(rows.size).reshape(rows.shape) / 3


TABLE = torch.from_numpy(np.arange(6, dtype=np.float32).reshape(2, 3) / 3)


def test_round_trip(tmp_path):
    path = tmp_path / "new" / "x.safetensors"
    tensors = TENSORS | {"one": torch.tensor(1), "half": torch.ones(2, dtype=torch.bfloat16)}
    tensors |= {"turned": torch.arange(6).reshape(2, 3).T, "learnt": torch.ones(2).requires_grad_()}
    meta = {"step": 3, "infinite": float("inf"), "rng": {"x": 2**100}, "text": "é\0\n"}
    save(path, tensors, meta)
    for found, found_meta in (load(path), load_newest(path)):
        torch.testing.assert_close(found, tensors, rtol=0, atol=0, check_stride=False)
        assert found_meta == meta
    assert names(path.parent) == ["x.safetensors"]


def test_the_seal_is_a_known_one():
    # A literal: a change of the rule would orphan every checkpoint and every meta-trained start.
    assert checksum(TENSORS, '{"step": 1}').startswith("aee1bfecf6e8")


def test_every_flipped_bit_is_found(path):
    save(path, TENSORS, {"step": 1})
    whole = path.read_bytes()
    for place in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        with pytest.raises(DataError, match="cannot be read"):
            load(path)


@given(st.data())
def test_a_changed_stretch_is_found_or_changes_nothing(tmp_path_factory, data):
    """Blanks at the end of the header may become other blanks; nothing else may pass."""
    path = tmp_path_factory.getbasetemp() / "stretch.safetensors"
    save(path, TENSORS, {"step": 1})
    whole = path.read_bytes()
    start = data.draw(st.integers(0, len(whole) - 1))
    stretch = data.draw(st.binary(min_size=1, max_size=40))
    path.write_bytes(whole[:start] + stretch + whole[start + len(stretch) :])
    try:
        tensors, meta = load(path)
    except DataError:
        return
    torch.testing.assert_close(tensors, TENSORS, rtol=0, atol=0)
    assert meta == {"step": 1}


DAMAGE = {
    "truncated": (lambda whole: whole[:-5], "not a whole safetensors file"),
    "empty": (lambda whole: b"", "not a whole safetensors file"),
    "text": (lambda whole: b"not a checkpoint", "not a whole safetensors file"),
    "flipped": (lambda whole: whole.replace(b"step", b"stap").replace(b"0.5", b"0.7"), "checksum"),
    "foreign": (
        lambda whole: save_tensors({"weight": torch.ones(3)}),
        "not a file of this",
    ),
    "older": (lambda whole: save_tensors({}, {"state": "{}"}), "not a file of this"),
}
damages = pytest.mark.parametrize(("damage", "why"), DAMAGE.values(), ids=DAMAGE)


@damages
def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(path, damage, why):
    write(path, 1)
    write(path, 2)
    bad = damage(path.read_bytes())
    path.write_bytes(bad)
    told = (
        rf"{path}: the file cannot be read \(.*{why}.*the one before it, run.previous.safetensors"
    )
    with pytest.warns(UserWarning, match=told) as seen:
        assert read_step(path) == 1
    assert len(seen) == 1
    # It is kept for the user, but never again taken for a checkpoint.
    assert path.with_name("run.damaged.safetensors").read_bytes() == bad
    write(path, 3)
    assert read_step(path) == 3
    assert load(path.with_name("run.previous.safetensors"))[1] == {"step": 1}


@damages
def test_without_a_good_one_nothing_is_touched(path, damage, why):
    for step in (1, 2):
        write(path, step)
        path.write_bytes(damage(path.read_bytes()))
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    assert len(before) == 2
    with pytest.raises(DataError, match=rf"run\S*: the file cannot be read \(.*{why}.*; restore"):
        load_newest(path)
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before


def test_only_the_newest_and_the_one_before_it_are_kept(path):
    assert load_newest(path) is None
    for step in range(4):
        write(path, step)
    assert names(path.parent) == ["run.previous.safetensors", "run.safetensors"]
    assert read_step(path) == 3
    path.unlink()
    with pytest.warns(UserWarning, match=r"run.safetensors is missing; .*previous"):
        assert read_step(path) == 2


@damages
@pytest.mark.parametrize("way", ["get", "tensor"])
def test_a_damaged_part_is_computed_anew_with_a_warning(tmp_path, way, damage, why):
    store = Store(tmp_path, QUESTION | {"step": 0.5})
    given = {"get": ("x", lambda: [0.5]), "tensor": ("x", (2, 3), fill)}[way]
    first = getattr(store, way)(*given)
    first = first.clone() if way == "tensor" else first
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    bad = damage(whole)
    file.write_bytes(bad if bad != whole else whole[:-1] + b"!")
    with pytest.warns(UserWarning, match=rf"{file}: .*{why}.*; it is computed anew") as seen:
        again = getattr(store, way)(*given)
    assert len(seen) == 1
    assert np.array_equal(again, first)
    assert np.array_equal(getattr(store, way)(*given[:-1], refuse), first)


class KilledError(BaseException):
    """Like SIGKILL: nothing catches it."""


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("call", "calls"), [("os.fsync", 2), ("os.replace", 2)])
def test_a_kill_at_any_moment_of_saving_leaves_a_good_one(path, monkeypatch, call, calls, after):
    """Killed before or after each system call of a save, at which clean-up does not run either."""
    original = getattr(os, call.split(".")[1])
    for victim in count():
        for step in (1, 2, 3):
            write(path, step)
        turn = count()

        def killed(*args, turn=turn, victim=victim):
            if next(turn) != victim:
                return original(*args)
            if after:
                original(*args)
            raise KilledError

        with monkeypatch.context() as patch:
            patch.setattr(call, killed)
            patch.setattr(Path, "unlink", lambda *args, **kwargs: None)
            try:
                write(path, 4)
                break
            except KilledError:
                pass
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert read_step(path) in (3, 4)
        write(path, 5)
        assert read_step(path) == 5
    assert victim == calls


@contextmanager
def full_disk(size=100):
    """A true refusal of the system, in the midst of a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_a_full_disk_leaves_what_was_kept(path):
    write(path, 1)
    store, sized = Store(path.parent, QUESTION), r"cannot be written \(File too large\)"
    with full_disk():
        with pytest.raises(DataError, match=f"{path}: the file {sized}; free some space"):
            write(path, 2)
        with pytest.raises(DataError, match=sized):
            store.get("x", lambda: list(range(99)))
        # A cache is no result: the work goes on without it.
        with pytest.warns(UserWarning, match=rf"x-\S*: .*{sized}; it is held in memory"):
            assert torch.equal(store.tensor("x", (2, 3), fill), TABLE)
    assert names(path.parent) == ["run.safetensors"]
    assert read_step(path) == 1


def test_a_file_in_place_of_the_folder_is_told_before_any_work(tmp_path):
    (tmp_path / "folder").write_text("a file")
    path, store = tmp_path / "folder" / "run.safetensors", Store(tmp_path / "folder", QUESTION)
    for attempt in (
        lambda: write(path, 1),
        lambda: load_newest(path),
        lambda: store.get("x", refuse),
        lambda: store.tensor("x", (2, 3), refuse),
    ):
        with pytest.raises(DataError, match=r"folder.*: the file cannot be written"):
            attempt()


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
    def denied(*args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with pytest.raises(DataError, match=r"cannot be opened \(No such file"):
        load(path)
    write(path, 1)
    write(path, 2)
    monkeypatch.setattr("mutmeta_lib.records.store.safe_open", denied)
    with pytest.raises(DataError, match=r"cannot be opened \(Permission denied\)"):
        load_newest(path)
    assert names(path.parent) == ["run.previous.safetensors", "run.safetensors"]


@given(
    content=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=5,
    ),
    name=st.text(st.characters(codec="utf-8"), max_size=300),
)
def test_a_part_comes_back_as_it_was_first_given(tmp_path_factory, content, name):
    store = Store(tmp_path_factory.mktemp("x"), QUESTION)
    first, second = store.get(name, lambda: content), store.get(name, refuse)
    assert json.dumps(first) == json.dumps(second) == json.dumps(content)


@pytest.mark.parametrize("shape", [(2, 3), (5,), (0, 4)])
def test_a_table_comes_back_and_cannot_change_its_file(tmp_path, shape):
    store = Store(tmp_path, QUESTION)
    expected = Store(None, {}).tensor("x", shape, fill)
    for made in (store.tensor("x", shape, fill), store.tensor("x", shape, refuse)):
        assert (made.dtype, made.shape) == (torch.float32, shape)
        assert torch.equal(made, expected)
        made.zero_()
    assert torch.equal(store.tensor("x", shape, refuse), expected)


def test_whatever_differs_is_another_part(tmp_path):
    folder = tmp_path / "new"
    questions = [QUESTION, {**QUESTION, "seed": 1}, {**QUESTION, "data": {}}, {}]
    asked = [(q, name) for q in questions for name in ["a/b", "a_b", "a b", "A b", "..", ""]]
    for again in (False, True):
        for place, (question, name) in enumerate(asked):
            found = Store(folder, question).get(name, refuse if again else lambda p=place: p)
            assert found == place
    tables = [Store(folder, q).tensor("a b", shape, fill) for q, shape in [({}, (1,)), ({}, (2,))]]
    assert [len(table) for table in tables] == [1, 2]
    assert len(names(folder)) == len(asked) + 2
    assert names(tmp_path) == ["new"]


def test_a_renamed_part_answers_another_question(tmp_path):
    store = Store(tmp_path, QUESTION)
    store.get("x", lambda: "theirs")
    (theirs,) = tmp_path.iterdir()
    store.get("y", lambda: "ours")
    (ours,) = set(tmp_path.iterdir()) - {theirs}
    theirs.replace(ours)
    with pytest.warns(UserWarning, match="answers another question; it is computed anew"):
        assert store.get("y", lambda: "ours") == "ours"


@pytest.mark.parametrize("kept", [True, False])
def test_kept_or_not_the_values_are_those_of_json(tmp_path, kept):
    store = Store(tmp_path if kept else None, QUESTION)
    found = store.get("x", lambda: {"pair": (1, 2.0), "nan": math.nan})
    assert found["pair"] == [1, 2.0]
    assert math.isnan(found["nan"])
    assert bool(names(tmp_path)) == kept


@pytest.mark.parametrize("way", ["get", "tensor"])
def test_work_that_fails_leaves_nothing(tmp_path, way):
    given = {"get": (), "tensor": ((2, 3),)}[way]
    with pytest.raises(AssertionError, match="computed again"):
        getattr(Store(tmp_path, QUESTION), way)("x", *given, refuse)
    assert not names(tmp_path)


@pytest.mark.parametrize("way", ["get", "tensor"])
def test_several_may_finish_the_same_part_at_once(tmp_path, way):
    store, all_at_it, found = Store(tmp_path, QUESTION), threading.Barrier(4), []

    def compute(rows=None):
        all_at_it.wait(timeout=30)
        return [0.5] if rows is None else fill(rows)

    given = {"get": (), "tensor": ((2, 3),)}[way]
    threads = [
        threading.Thread(target=lambda: found.append(getattr(store, way)("x", *given, compute)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names(tmp_path)) == 1
    found.append(getattr(store, way)("x", *given, refuse))
    assert len(found) == 5
    assert all(np.array_equal(one, [0.5] if way == "get" else TABLE) for one in found)
