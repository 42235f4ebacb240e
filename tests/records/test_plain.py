"""Plain values: JSON, canonical and legible."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mutmeta_lib.records.plain import canonical, fingerprint, layout, plain

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=12,
)


@given(values)
def test_layout_is_json_of_the_plain_value(value):
    assert json.loads(layout(plain(value))) == plain(value)


@given(values)
def test_plain_twice_is_plain_once(value):
    assert plain(plain(value)) == plain(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan"), pd.NA])
def test_no_number_is_none(value):
    assert plain(value) is None


def test_numpy_and_pandas_become_python():
    made = plain({"a": np.int64(3), "b": np.array([[1.5, np.nan]]), "c": (True, np.bool_(False))})
    assert made == {"a": 3, "b": [[1.5, None]], "c": [True, False]}
    assert [type(x) for x in (made["a"], made["c"][1])] == [int, bool]
    frame = pd.DataFrame({"method": ["maml", None], "n": [1, 2], "x": [0.5, np.nan]})
    assert plain(frame) == {
        "columns": ["method", "n", "x"],
        "rows": [["maml", 1, 0.5], [None, 2, None]],
    }


@pytest.mark.parametrize("value", [print, {1: "a"}, {"a": object()}, [1, {2, 3}]])
def test_what_json_cannot_hold_is_refused(value):
    with pytest.raises(TypeError):
        plain(value)


def test_order_of_keys_and_whole_floats_do_not_change_the_fingerprint():
    assert canonical({"b": 1.0, "a": [2]}) == canonical({"a": [2.0], "b": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
    assert fingerprint({"a": True}) != fingerprint({"a": 1})
    assert fingerprint({"a": "1"}) != fingerprint({"a": 1})


def test_each_row_of_a_table_has_its_line():
    text = layout({"columns": ["a", "b"], "rows": [[1, 2], [3, 4]]})
    assert "\n  [1, 2],\n  [3, 4]\n" in text
