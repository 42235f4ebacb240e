"""A file is its old content or its new one, whatever happens; JSON values have one name."""

import json
import math
import os

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mutmeta_lib.errors import DataError
from mutmeta_lib.records import files
from mutmeta_lib.records.files import canonical, fingerprint, layout, plain, replacing


def write(path, text, then=lambda: None):
    with replacing(path) as temporary:
        temporary.write_text(text)
        then()


def test_the_old_content_stays_until_the_new_is_whole_and_of_two_writers_the_last_one_wins(
    tmp_path,
):
    path = tmp_path / "new" / "a.txt"
    write(path, "old")

    def other():
        assert path.read_text() == "old"
        write(path, "second")
        assert path.read_text() == "second"

    write(path, "first", other)
    assert path.read_text() == "first"
    assert os.listdir(path.parent) == ["a.txt"]


@pytest.mark.parametrize("before", [[], ["a.txt"]])
@pytest.mark.parametrize("failing", ["block", "os.fsync", "os.replace"])
def test_a_full_disk_changes_nothing(tmp_path, monkeypatch, before, failing):
    path = tmp_path / "a.txt"
    for _ in before:
        write(path, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    if failing != "block":
        monkeypatch.setattr(failing, full)
    told = rf"{path}: the file cannot be written \(No space left on device\); free some space"
    with pytest.raises(DataError, match=told):
        write(path, "new", full if failing == "block" else lambda: None)
    assert os.listdir(tmp_path) == before
    assert not before or path.read_text() == "old"


@pytest.mark.parametrize("place", ["file/a.txt", "file/deeper/a.txt", "folder"])
def test_a_place_that_cannot_be_written_to_is_told(tmp_path, place):
    (tmp_path / "file").write_text("")
    files.check_writable(tmp_path / "folder" / "a.txt")
    assert os.listdir(tmp_path / "folder") == []
    with pytest.raises(DataError, match=f"{place}: (the file cannot be written|this is a folder)"):
        files.check_writable(tmp_path / place)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=12,
)


@given(VALUES)
def test_layout_is_json_of_the_plain_value_which_is_plain_already(value):
    made = plain(value)
    assert json.loads(layout(made)) == made == plain(made) == json.loads(canonical(made))


@pytest.mark.parametrize(
    ("value", "made"),
    [
        (-math.inf, None), (np.float32("nan"), None), (pd.NA, None), (np.int64(3), 3),
        (np.array([[1.5, np.nan]]), [[1.5, None]]), ((True, np.bool_(False)), [True, False]),
        (
            pd.DataFrame({"method": ["maml", None], "n": [1, 2], "x": [0.5, np.nan]}),
            {"columns": ["method", "n", "x"], "rows": [["maml", 1, 0.5], [None, 2, None]]},
        ),
    ],
)  # fmt: skip
def test_numpy_and_pandas_become_json(value, made):
    assert json.dumps(plain({"a": value})) == json.dumps({"a": made})


@pytest.mark.parametrize("value", [print, {1: "a"}, {"a": object()}, [1, {2, 3}]])
def test_what_json_cannot_hold_is_refused(value):
    with pytest.raises(TypeError):
        plain(value)


def test_a_fingerprint_depends_on_the_value_alone():
    assert fingerprint({"b": 1.0, "a": [2]}) == fingerprint({"a": [2.0], "b": 1})
    assert fingerprint((1, 1e300)) == fingerprint([1, int(1e300)])
    assert len({fingerprint({"a": value}) for value in (1, 2, 1.5, True, "1", None, [1])}) == 7


def test_each_row_of_a_table_has_its_line():
    text = layout({"é": 1, "t": {"columns": ["a"], "rows": [[1, 2], [3, 4]]}})
    rows = ['  "columns": ["a"],', '  "rows": [', "   [1, 2],", "   [3, 4]", "  ]", " }", "}"]
    assert text.splitlines() == ["{", ' "é": 1,', ' "t": {', *rows]
