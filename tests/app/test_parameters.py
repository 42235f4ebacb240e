"""Parameters are checked against the notebook's own defaults before anything runs."""

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_notebook

from mutmeta_lib.app.parameters import (
    check_parameters,
    default_parameters,
    parse_defaults,
    parse_value,
    profile_parameters,
    read_profile,
)
from mutmeta_lib.errors import DataError

DEFAULTS = """
encoder = "tiny"
shots = [
    0,
    5,
]
rate = 0.01
seeds: int = 3
second_order = True
ids = None
"""


@pytest.fixture
def notebook(tmp_path):
    cell = new_code_cell(DEFAULTS, metadata={"tags": ["parameters"]})
    path = tmp_path / "05_curves.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("seeds = 99"), cell]), path)
    return path


def test_defaults_are_read_from_the_tagged_cell_without_running_it(notebook):
    assert default_parameters(notebook) == {
        "encoder": "tiny",
        "shots": [0, 5],
        "rate": 0.01,
        "seeds": 3,
        "second_order": True,
        "ids": None,
    }


def test_a_computed_default_is_refused():
    with pytest.raises(DataError, match="'n' is not a plain value"):
        parse_defaults("n = len('abc')")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({}, {}),
        ({"rate": 1}, {"rate": 1.0}),
        ({"shots": []}, {"shots": []}),
        ({"shots": [1, 10]}, {"shots": [1, 10]}),
        ({"ids": ["a"]}, {"ids": ["a"]}),
        ({"ids": None, "encoder": "dir/esm2"}, {"ids": None, "encoder": "dir/esm2"}),
    ],
)
def test_fitting_values_pass(notebook, given, kept):
    checked = check_parameters(notebook, given)
    assert checked == kept
    assert [type(v) for v in checked.values()] == [type(v) for v in kept.values()]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"shot": [1]}, "no parameter 'shot'; did you mean 'shots'"),
        ({"zzz": 1}, "it has encoder, shots, rate"),
        ({"seeds": 2.5}, "'seeds' got 2.5 (decimal number)"),
        ({"seeds": True}, "'seeds' got True (true or false)"),
        ({"second_order": 1}, "its default is True"),
        ({"rate": "1e-3"}, "'rate' got '1e-3' (text)"),
        ({"rate": True}, "decimal number"),
        ({"shots": 5}, "list of whole number"),
        ({"shots": [5, "x"]}, "'shots'"),
        ({"encoder": None}, "(nothing)"),
    ],
)
def test_unfitting_values_are_refused_in_one_sentence(notebook, given, told):
    with pytest.raises(DataError) as caught:
        check_parameters(notebook, given)
    assert told in str(caught.value)
    assert str(caught.value).startswith("05_curves.ipynb: ")


@given(
    st.one_of(
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.booleans(),
        st.lists(st.integers()),
    )
)
def test_what_python_writes_the_command_line_reads(value):
    assert parse_value(repr(value), None) == value


@given(st.text())
def test_text_stays_text_where_the_default_is_text(text):
    assert parse_value(text, "tiny") == text


def test_profiles(tmp_path, notebook):
    params = tmp_path / "params"
    params.mkdir()
    (params / "quick.yml").write_text("05_curves:\n  seeds: 1\n06_timing:\n")
    assert read_profile(params / "quick.yml") == {"05_curves": {"seeds": 1}, "06_timing": {}}
    assert profile_parameters(notebook, "quick") == {"seeds": 1}
    with pytest.raises(DataError, match="no profile 'quik'; choose one of quick"):
        profile_parameters(notebook, "quik")
    with pytest.raises(DataError, match="no entry for '07_other'"):
        profile_parameters(notebook.with_name("07_other.ipynb"), "quick")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: [1,\nb: 2\n", "row 3: this is not valid YAML"),
        ("- a\n", "maps notebooks"),
        ("05_curves: 3\n", "'05_curves' is not a mapping"),
    ],
)
def test_broken_profiles(tmp_path, text, told):
    path = tmp_path / "quick.yml"
    path.write_text(text)
    with pytest.raises(DataError, match=told):
        read_profile(path)


def test_missing_and_broken_notebooks(tmp_path, notebook):
    with pytest.raises(DataError, match=r"did you mean 05_curves\.ipynb"):
        default_parameters(tmp_path / "05_curve.ipynb")
    broken = tmp_path / "broken.ipynb"
    for text in ("not a notebook", "[]", "{}", "null", '{"cells": 3}', '{"cells": [3]}', "é"):
        broken.write_text(text, encoding="latin-1")
        with pytest.raises(DataError, match="not a Jupyter notebook"):
            default_parameters(broken)
