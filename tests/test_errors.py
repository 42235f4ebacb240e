"""One sentence per error: what, where, and the mend."""

import itertools
import pickle

import pytest

from mutmeta_lib.errors import DataError

PLACES = {"file": "a.csv", "row": 7, "column": "mutant"}
TOLD = {"file": "a.csv", "row": "row 7", "column": "column 'mutant'"}


@pytest.mark.parametrize("n", range(4))
def test_the_sentence_names_what_is_known_in_whatever_order_it_came(n):
    for order in itertools.permutations(PLACES, n):
        first = error = DataError("bad", "mend it")
        for name in order:
            error = error.at(**{name: PLACES[name]})
        made = DataError("bad", "mend it", **{name: PLACES[name] for name in order})
        expected = ": ".join(filter(None, [", ".join(TOLD[x] for x in TOLD if x in order), "bad"]))
        # Errors come back from other processes pickled.
        told = {str(e) for e in (error, made, pickle.loads(pickle.dumps(made)))}
        assert told == {f"{expected}; mend it"}
        assert str(first) == "bad; mend it"
        assert isinstance(error, ValueError)
