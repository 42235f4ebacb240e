"""Parameters are checked before anything runs, and an executed copy names no place of a machine."""

import ast
import re
from pathlib import Path

import nbformat
import papermill
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_sweep import write_notebook

from mutmeta_lib.app.notebooks import (
    check_parameters,
    default_parameters,
    parse_defaults,
    parse_value,
    profile_parameters,
    read_yaml,
    run_notebook,
    scrub,
)
from mutmeta_lib.errors import DataError

ROOT = Path(__file__).resolve().parents[2]
DEFAULTS = """
encoder = "tiny"
shots = [0, 5]
rate = 0.01
seeds: int = 3
ids = None
pairs = [["a"]]
"""
BODY = """
import os, sys, tempfile, warnings
print(os.getcwd(), sys.executable, tempfile.gettempdir() + "/x", encoder)
print(f"rate {rate} after {seeds} seeds in {os.path.basename(os.getcwd())}")
warnings.warn("from a cell")
"""


@pytest.fixture
def notebook(tmp_path):
    path = write_notebook(tmp_path / "notebooks/01_a.ipynb", DEFAULTS, BODY)
    content = nbformat.read(path, as_version=4)
    content.cells.insert(0, nbformat.v4.new_code_cell("seeds = 99"))  # has no tag
    nbformat.write(content, path)
    (path.parent / "params").mkdir()
    (path.parent / "params/quick.yml").write_text(
        "01_a:\n  seeds: 7\n  rate: 0.25\n02_b:\n03_c: 3\n"
    )
    return path


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_papermill_finds_the_same_parameters_in_every_chapter(path):
    found = papermill.inspect_notebook(path).items()
    assert default_parameters(path) == {k: ast.literal_eval(v["default"]) for k, v in found}


@pytest.mark.parametrize(
    ("source", "defaults"),
    [
        ("rate = 0.5  # as in lr=0.5", {"rate": 0.5}),
        ("sites = [\n  '#1',\n  '#2',\n]", {"sites": ["#1", "#2"]}),
        ("ids: list[str] | None = None", {"ids": None}),
        ("a = b = 3\nc: int\nprint(a)\na += 1", {"a": 3, "b": 3}),
        ("", {}),
    ],
)
def test_lines_that_papermill_loses_are_read(source, defaults):
    assert parse_defaults(source) == defaults


def test_a_cell_that_computes_is_refused():
    for source, told in (("n = len('a')", "'n' is computed"), ("%time", "not lines of Python")):
        with pytest.raises(DataError, match=f"x.ipynb: .*{told}; write a literal"):
            parse_defaults(source, file="x.ipynb")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"rate": 1}, {"rate": 1.0}),
        ({"shots": (1, 10)}, {"shots": [1, 10]}),
        ({"pairs": [["a", "b"], []]}, {"pairs": [["a", "b"], []]}),
        ({"ids": None, "encoder": "dir/esm2"}, {"ids": None, "encoder": "dir/esm2"}),
    ],
)
def test_fitting_values_pass(notebook, given, kept):
    assert repr(check_parameters(notebook, given)) == repr(kept), "equal, and of the same types"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"shot": [1]}, "there is no parameter 'shot'; did you mean 'shots'?"),
        ({"seeds": 2.5}, "'seeds' got 2.5 (float); its default is 3"),
        ({"seeds": True}, "'seeds' got True (bool)"),
        ({"shots": 5}, "'shots' got 5 (int); its default is [0, 5]"),
        ({"shots": [5, "x"]}, "'shots' got 'x' (str)"),
        ({"pairs": [["a", 3]]}, "'pairs' got 3"),
        ({"encoder": None}, "'encoder' got None"),
    ],
)
def test_unfitting_values_are_refused_in_one_sentence(notebook, given, told):
    with pytest.raises(DataError, match=f"^01_a.ipynb: .*{re.escape(told)}"):
        check_parameters(notebook, given)


LISTS = st.lists(st.integers())
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)


@given(NUMBERS | st.booleans() | st.none() | LISTS | st.lists(NUMBERS))
def test_what_python_writes_the_command_line_reads(value):
    assert parse_value(repr(value), None) == value


@given(LISTS)
def test_lists_need_no_brackets_and_text_stays_text(value):
    assert parse_value(",".join(map(str, value)), [1]) == value
    assert parse_value(repr(value), "tiny") == repr(value)
    assert parse_value("1e-3,2E+1,.5,1.e2", [0.1]) == [0.001, 20.0, 0.5, 100.0]


def test_profiles(notebook):
    assert profile_parameters(notebook, "quick") == {"seeds": 7, "rate": 0.25}
    assert profile_parameters(notebook.with_name("02_b.ipynb"), "quick") == {}
    with pytest.raises(DataError, match="no profile 'quik'; did you mean 'quick'"):
        profile_parameters(notebook, "quik")
    for name in ("07_other", "03_c"):
        with pytest.raises(DataError, match=f"no 'name: value' lines for '{name}'; add '{name}:'"):
            profile_parameters(notebook.with_name(f"{name}.ipynb"), "quick")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"a: [1,\nb: 2\n", "row 3: this is not valid YAML; mend the syntax"),
        (b"- a\n", "this is no mapping; write 'name: value' lines"),
        (b"a: {n: 1}\nb:\n  n: 1\n  n: 2\n", "row 4: 'n' is written twice; keep one of them"),
        (b"a: !!python/object:os.system {}\n", "row 1: this is not valid YAML"),
        (b"a: \xff\n", "this is not valid YAML"),
        (None, "there is no such file; give the path of a .yml"),
    ],
)
def test_broken_yaml(tmp_path, content, told):
    path = tmp_path / "sweep.yml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=f"^{path}(, |: ){re.escape(told)}"):
        read_yaml(path)


def test_missing_and_broken_notebooks(tmp_path, notebook):
    with pytest.raises(DataError, match=r"did you mean '01_a\.ipynb'"):
        default_parameters(notebook.with_name("01_aa.ipynb"))
    broken = tmp_path / "broken.ipynb"
    for text in ("not a notebook", "[]", "{}", "null", '{"cells": 3}', '{"cells": [3]}', "é"):
        broken.write_text(text, encoding="latin-1")
        with pytest.raises(DataError, match="not a Jupyter notebook"):
            default_parameters(broken)


def test_profile_then_parameters_and_no_path_of_this_machine(notebook, tmp_path):
    output = tmp_path / "runs/quick/01_a.ipynb"
    parameters = {"rate": 1, "encoder": str(tmp_path / "measurements"), "ids": "/"}
    assert run_notebook(notebook, output, parameters, profile="quick") == output
    text = output.read_text()
    for place in (str(tmp_path), str(Path.home()), "/tmp/", "ipykernel_", str(Path.cwd())):
        assert place not in text
    copy = nbformat.read(output, as_version=4)
    printed = "".join(o.get("text", "") for c in copy.cells for o in c.get("outputs", []))
    for words in ("rate 1.0 after 7 seeds in notebooks", "measurements", "from a cell"):
        assert words in printed
    assert copy.metadata.papermill.input_path == "01_a.ipynb"
    assert copy.metadata.papermill.parameters["seeds"] == 7
    assert [c for c in copy.cells if {"execution", "papermill"} & set(c.metadata)] == []
    assert [p.name for p in output.parent.iterdir()] == ["01_a.ipynb"]
    nbformat.validate(copy)


def test_scrub_replaces_whole_components_only():
    paths = {"/home/ada": "~", "/home/ada/mutmeta": "..", "/usr": "<python>"}
    before = ["/home/ada/mutmeta/x.csv and /home/ada/y, not /home/adam", "https://a.org/home/ada"]
    before += ["see /usr/lib", {"text": "File <b>/home/ada/z</b>", "image/png": "iVBO/usr/+"}, 3]
    after = ["../x.csv and ~/y, not /home/adam", "https://a.org/home/ada"]
    after += ["see <python>/lib", {"text": "File <b>~/z</b>", "image/png": "iVBO/usr/+"}, 3]
    assert scrub(before, paths) == after
