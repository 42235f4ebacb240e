import json
import math
import warnings

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mutmeta_lib.errors import DataError
from mutmeta_lib.records.pieces import Pieces

QUESTION = {"seed": 0, "data": {"a": "12"}}


class Work:
    """Counts how often it is done."""

    def __init__(self, content):
        self.content, self.times = content, 0

    def __call__(self):
        self.times += 1
        return self.content


def quiet(pieces, name, work):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return pieces.get(name, work)


@given(
    content=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=5,
    ),
    name=st.text(st.characters(codec="utf-8"), min_size=1, max_size=20),
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_piece_comes_back_as_it_was_first_given(tmp_path_factory, content, name):
    pieces, work = Pieces(tmp_path_factory.mktemp("x"), QUESTION), Work(content)
    first, second = quiet(pieces, name, work), quiet(pieces, name, work)
    assert work.times == 1
    assert json.dumps(first) == json.dumps(second) == json.dumps(content)


def test_names_that_differ_are_files_that_differ(tmp_path):
    pieces = Pieces(tmp_path / "deep", QUESTION)
    names = ["a/b", "a_b", "a b", "..", "a%2Fb"]
    for name in names:
        assert quiet(pieces, name, Work(name)) == name
    assert [quiet(pieces, name, Work("again")) for name in names] == names
    assert len(list((tmp_path / "deep").iterdir())) == len(names)
    assert [file.name for file in tmp_path.iterdir()] == ["deep"]


@pytest.mark.parametrize("folder", [True, False])
def test_kept_or_not_the_values_are_those_of_json(tmp_path, folder):
    pieces = Pieces(tmp_path if folder else None, QUESTION)
    found = quiet(pieces, "x", Work({"pair": (1, 2.0), "nan": math.nan}))
    assert found["pair"] == [1, 2.0]
    assert math.isnan(found["nan"])
    assert bool(list(tmp_path.iterdir())) == folder


@pytest.mark.parametrize("other", [{**QUESTION, "seed": 1}, {**QUESTION, "data": {}}, {}])
def test_a_piece_of_another_question_is_computed_anew_with_a_warning(tmp_path, other):
    quiet(Pieces(tmp_path, other), "x", Work("theirs"))
    with pytest.warns(UserWarning, match=r"x.json.*other parameters, data or version; it is comp"):
        assert Pieces(tmp_path, QUESTION).get("x", Work("ours")) == "ours"
    assert quiet(Pieces(tmp_path, QUESTION), "x", Work("again")) == "ours"


def test_a_renamed_piece_is_of_another_question(tmp_path):
    quiet(Pieces(tmp_path, QUESTION), "x", Work("theirs"))
    (tmp_path / "x.json").rename(tmp_path / "y.json")
    with pytest.warns(UserWarning, match="belongs to other"):
        assert Pieces(tmp_path, QUESTION).get("y", Work("ours")) == "ours"


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda text: text[:-1], "cannot be read"),
        (lambda text: "", "cannot be read"),
        (lambda text: text.replace("0.25", "0.35"), "wrong checksum"),
        (lambda text: "[1]", "not one of ours"),
        (lambda text: '{"content": 1}', "not one of ours"),
    ],
)
def test_a_damaged_piece_is_computed_anew_with_a_warning(tmp_path, damage, told):
    pieces, file = Pieces(tmp_path, QUESTION), tmp_path / "x.json"
    quiet(pieces, "x", Work([0.25]))
    file.write_text(damage(file.read_text()))
    work = Work([0.25])
    with pytest.warns(UserWarning, match=told) as seen:
        assert pieces.get("x", work) == [0.25]
    assert (len(seen), work.times) == (1, 1)
    assert quiet(pieces, "x", work) == [0.25]
    assert work.times == 1


def test_work_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError):
        Pieces(tmp_path, QUESTION).get("x", lambda: 1 / 0)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_run_left_half_written_is_removed(tmp_path):
    (tmp_path / ".x.json.123.part").write_text("{")
    assert quiet(Pieces(tmp_path, QUESTION), "x", Work(1)) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="a finished part of the run cannot be kept"):
        Pieces(tmp_path / "file" / "folder", QUESTION).get("x", Work(1))
