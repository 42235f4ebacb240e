"""One sentence per error: what, where, and the mend."""

import itertools
import pickle

import pytest

from mutmeta_lib.errors import DataError

PLACES = {"file": "a.csv", "row": 7, "column": "mutant"}


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ((), "bad; mend it"),
        (("file",), "a.csv: bad; mend it"),
        (("row",), "row 7: bad; mend it"),
        (("column",), "column 'mutant': bad; mend it"),
        (("file", "row", "column"), "a.csv, row 7, column 'mutant': bad; mend it"),
    ],
)
def test_the_sentence_names_what_is_known_in_whatever_order_it_came(named, expected):
    assert str(DataError("bad", "mend it", **{name: PLACES[name] for name in named})) == expected
    for order in itertools.permutations(named):
        first = error = DataError("bad", "mend it")
        for name in order:
            error = error.at(**{name: PLACES[name]})
        assert str(error) == expected
        assert str(first) == "bad; mend it"


def test_a_known_place_is_kept_when_nothing_new_is_said():
    assert DataError("bad", "mend it", row=3).at(file="a.csv").row == 3


def test_it_is_a_value_error_and_survives_pickling_between_processes():
    error = DataError("bad", "mend it", file="a.csv", row=4)
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, ValueError)
    assert str(copy) == str(error)
