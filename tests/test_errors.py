import itertools
import pickle

import pytest

from mutmeta_lib.errors import DataError


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ({}, "bad; mend it"),
        ({"file": "a.csv"}, "a.csv: bad; mend it"),
        ({"row": 7}, "row 7: bad; mend it"),
        ({"column": "mutant"}, "column 'mutant': bad; mend it"),
        (
            {"file": "a.csv", "row": 7, "column": "mutant"},
            "a.csv, row 7, column 'mutant': bad; mend it",
        ),
    ],
)
def test_the_sentence_names_what_is_known(place, expected):
    assert str(DataError("bad", "mend it", **place)) == expected


@pytest.mark.parametrize(
    "order", list(itertools.permutations([("file", "a.csv"), ("row", 2), ("column", "score")]))
)
def test_places_may_be_added_in_any_order(order):
    error = DataError("bad", "mend it")
    for key, value in order:
        error = error.at(**{key: value})
    assert str(error) == "a.csv, row 2, column 'score': bad; mend it"


def test_at_leaves_the_first_error_as_it_was():
    first = DataError("bad", "mend it")
    first.at(file="a.csv")
    assert str(first) == "bad; mend it"


def test_a_known_place_is_kept_when_nothing_new_is_said():
    assert DataError("bad", "mend it", row=3).at(file="a.csv").row == 3


def test_it_is_a_value_error_and_survives_pickling_between_processes():
    error = DataError("bad", "mend it", file="a.csv", row=4)
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, ValueError)
    assert str(copy) == str(error)
