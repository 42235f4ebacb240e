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
    for order in itertools.permutations(named):
        first = error = DataError("bad", "mend it")
        for name in order:
            error = error.at(**{name: PLACES[name]})
        made = DataError("bad", "mend it", **{name: PLACES[name] for name in named})
        # Errors come back from other processes pickled.
        assert {str(e) for e in (error, made, pickle.loads(pickle.dumps(made)))} == {expected}
        assert str(first) == "bad; mend it"
        assert isinstance(error, ValueError)
