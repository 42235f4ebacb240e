"""Every study and experiment gives the tables it gave."""

import json

import pandas as pd
import pytest
from golden_studies import EXPERIMENTS, FOLDER, STUDIES, plain, tables
from pandas.testing import assert_frame_equal


def test_every_experiment_on_bundled_data_has_tables():
    assert {path.stem for path in FOLDER.glob("*.json")} == {*STUDIES, *EXPERIMENTS}


@pytest.mark.parametrize("name", [*STUDIES, *EXPERIMENTS])
def test_tables_are_as_they_were(name):
    found, wanted = tables(name), json.loads((FOLDER / f"{name}.json").read_text())
    assert set(found) == set(wanted)
    for table in wanted:
        both = [
            pd.DataFrame(told["rows"], columns=told["columns"])
            for told in (plain(found[table]), wanted[table])
        ]
        # The last places of a number depend on the processor.
        assert_frame_equal(*both, rtol=1e-3, atol=2e-4, check_dtype=False, obj=table)
