"""What is kept comes back as it was, or is told to be damaged; a kill costs nothing."""

import json
import os
import resource
import signal
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
PARTS = {"get": lambda: [0.5, 7], "tensor": lambda: np.array([[0.5, 7]], np.float32)}


def write(path, step):
    save(path, {"weight": torch.full((3,), float(step))}, {"step": step})


def read_step(path):
    return load_newest(path)[1]["step"]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.safetensors"


def refuse(*_):
    raise AssertionError("computed again")


def test_round_trip(tmp_path):
    path = tmp_path / "new" / "x.safetensors"
    tensors = TENSORS | {"one": torch.tensor(1), "half": torch.ones(2, dtype=torch.bfloat16)}
    tensors |= {"turned": torch.arange(6).reshape(2, 3).T, "learnt": torch.ones(2).requires_grad_()}
    meta = {"step": 3, "infinite": float("inf"), "rng": {"x": 2**100}, "text": "é\0\n"}
    save(path, tensors, meta)
    for found, found_meta in (load(path), load_newest(path)):
        torch.testing.assert_close(found, tensors, rtol=0, atol=0, check_stride=False)
        assert found_meta == meta
        found["a"].zero_()  # the file does not change
    assert os.listdir(path.parent) == ["x.safetensors"]
    # A literal: a change of the rule would orphan every checkpoint and every meta-trained start.
    assert checksum(TENSORS, '{"step": 1}').startswith("aee1bfecf6e8")


def test_a_flipped_bit_is_found_in_every_byte(path):
    save(path, TENSORS, {"step": 1})
    whole = path.read_bytes()
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        with pytest.raises(DataError, match="cannot be read"):
            load(path)


def flip(whole):
    return whole[:-1] + bytes([whole[-1] ^ 1]) if whole[-1:] != b" " else whole.replace(b"7", b"8")


DAMAGE = {
    "truncated": (lambda whole: whole[:-5], "not a whole safetensors file"),
    "text": (lambda whole: b"not a checkpoint", "not a whole safetensors file"),
    "flipped": (flip, "wrong checksum"),
    "foreign": (lambda whole: save_tensors({"weight": torch.ones(3)}), "not of this version"),
    "older": (lambda whole: save_tensors({}, {"state": "{}"}), "not of this version"),
}
damages = pytest.mark.parametrize(("damage", "why"), DAMAGE.values(), ids=DAMAGE)


@damages
def test_a_damaged_checkpoint_is_refused(path, damage, why):
    assert load_newest(path) is None
    for step in (1, 2):
        write(path, step)
        assert read_step(path) == step
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=rf"{path}: the file cannot be read \(.*{why}.*; restore"):
        load_newest(path)


@damages
@pytest.mark.parametrize("way", PARTS)
def test_a_damaged_part_is_computed_anew_with_a_warning(tmp_path, way, damage, why):
    ask = getattr(Store(tmp_path, QUESTION), way)
    ask("x", PARTS[way])
    (file,) = tmp_path.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    with pytest.warns(UserWarning, match=rf"{file}: .*{why}.*; it is computed anew") as seen:
        assert np.array_equal(ask("x", PARTS[way]), PARTS[way]())
    assert len(seen) == 1
    assert np.array_equal(ask("x", refuse), PARTS[way]())


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_kill_at_any_moment_of_saving_leaves_a_good_one(path, monkeypatch, call, after):
    original = getattr(os, call)

    def killed(*args):
        if after:
            original(*args)
        raise SystemExit  # nothing catches it

    write(path, 1)
    with monkeypatch.context() as patch:
        patch.setattr(os, call, killed)
        patch.setattr(Path, "unlink", lambda *args, **kwargs: None)  # nor is anything cleaned up
        with pytest.raises(SystemExit):
            write(path, 2)
    assert read_step(path) == (2 if (call, after) == ("replace", True) else 1)
    write(path, 3)
    assert read_step(path) == 3


def test_a_full_disk_leaves_what_was_kept(path):
    """A true refusal of the system, in the midst of a file."""
    write(path, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    told = r"the file cannot be written \(.*File too large.*\)"
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
        with pytest.raises(DataError, match=f"{path}: {told}; free some space"):
            write(path, 2)
        for way, compute in PARTS.items():  # the work goes on, and its result is used once
            with pytest.warns(UserWarning, match=rf"x\S*: {told}; it is used once"):
                found = getattr(Store(path.parent, QUESTION), way)("x", compute)
            assert np.array_equal(found, compute())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert os.listdir(path.parent) == ["run.safetensors"]
    assert read_step(path) == 1


def test_a_folder_that_cannot_be_used_is_told_before_any_work(tmp_path):
    (tmp_path / "file").write_text("a file")
    path, store = tmp_path / "file" / "deep" / "run.safetensors", Store(tmp_path / "file", QUESTION)
    attempts = [lambda: write(path, 1), lambda: load_newest(path)]
    attempts += [lambda way=way: getattr(store, way)("x", refuse) for way in PARTS]
    for attempt in attempts:
        with pytest.raises(DataError, match=r"file.*: the file cannot be written"):
            attempt()
    with pytest.raises(DataError, match="this is a folder"):
        load_newest(tmp_path)
    with pytest.raises(DataError, match=r"the file cannot be opened \(No such file"):
        load(tmp_path / "other")


JSON = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
JSON |= st.lists(JSON, max_size=3) | st.dictionaries(st.text(), JSON, max_size=3)


@given(content=JSON, name=st.text(st.characters(codec="utf-8"), max_size=300))
def test_a_part_comes_back_as_it_was_first_given(tmp_path_factory, content, name):
    store = Store(tmp_path_factory.mktemp("x"), QUESTION)
    found = [store.get(name, lambda: content), store.get(name, refuse)]
    found += [Store(None, QUESTION).get(name, lambda: content)]
    assert {*map(json.dumps, found)} == {json.dumps(content)}


@pytest.mark.parametrize("array", [np.ones((2, 3), np.float32), np.ones((0, 4)), torch.arange(3)])
def test_an_array_comes_back_as_it_was_first_given(tmp_path, array):
    kept, nowhere = Store(tmp_path, QUESTION), Store(None, {})
    for store, compute in ((kept, lambda: array), (kept, refuse), (nowhere, lambda: array)):
        assert torch.equal(store.tensor("x", compute), torch.as_tensor(array))


def test_whatever_differs_is_another_part(tmp_path):
    folder = tmp_path / "new"
    questions = [QUESTION, {**QUESTION, "seed": 1}, {**QUESTION, "data": {}}, {}]
    names = ["a/b", "a_b", "a b", "A b", "..", "", "n" * 300]
    asked = [(question, name) for question in questions for name in names]
    for again in (False, True):
        for place, (question, name) in enumerate(asked):
            found = Store(folder, question).get(name, refuse if again else lambda p=place: p)
            assert found == place
    assert Store(folder, QUESTION).tensor("a b", lambda: np.ones(2)).tolist() == [1, 1]
    assert len(os.listdir(folder)) == len(asked) + 1
    assert os.listdir(tmp_path) == ["new"]
    first, other, *_ = folder.glob("nnn*")
    first.replace(other)
    with pytest.warns(UserWarning, match="the file answers another question; it is computed anew"):
        assert "anew" in [Store(folder, q).get(name, lambda: "anew") for q, name in asked]
