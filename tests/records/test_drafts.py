"""A file is its old content or its new content, whatever happens in between."""

import os

import pytest

from mutmeta_lib.records.drafts import draft_of


def write(path, text, *, fail=False):
    with draft_of(path) as draft:
        draft.write_text(text)
        if fail:
            raise ZeroDivisionError


def test_the_old_content_stays_until_the_new_is_whole(tmp_path):
    path = tmp_path / "folder" / "a.txt"
    write(path, "old")
    with draft_of(path) as draft:
        draft.write_text("ne")
        assert path.read_text() == "old"
        draft.write_text("new")
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["a.txt"]


def test_a_block_that_fails_changes_nothing(tmp_path):
    path = tmp_path / "a.txt"
    with pytest.raises(ZeroDivisionError):
        write(path, "new", fail=True)
    assert os.listdir(tmp_path) == []
    write(path, "old")
    with pytest.raises(ZeroDivisionError):
        write(path, "new", fail=True)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("call", ["os.fsync", "os.replace"])
def test_a_full_disk_leaves_the_old_content(tmp_path, monkeypatch, call):
    path = tmp_path / "a.txt"
    write(path, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(call, full)
    with pytest.raises(OSError, match="No space"):
        write(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]
