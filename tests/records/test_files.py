"""A file is its old content or its new one, whatever happens; JSON values have one name."""

import json
import math
import os

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mutmeta_lib.records.files import canonical, fingerprint, layout, plain, replacing


def test_old_content_stays_until_the_new_is_whole_and_the_last_of_two_writers_wins(tmp_path):
    path = tmp_path / "new" / "a.txt"
    for text in ("old", "first"):
        with replacing(path) as temporary:
            temporary.write_text(text)
            if text == "first":
                assert path.read_text() == "old"
                with replacing(path) as other:
                    other.write_text("second")
                assert path.read_text() == "second"
    with pytest.raises(TypeError), replacing(path) as temporary:
        temporary.write_text("half") + "way"
    assert path.read_text() == "first"
    assert os.listdir(path.parent) == ["a.txt"]


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
