"""Every study and experiment gives the tables it gave."""

import pytest
from golden_studies import EXPERIMENTS, FOLDER, STUDIES, differences, golden, run, timeless


def test_every_experiment_on_bundled_data_has_tables():
    assert {path.stem for path in FOLDER.glob("*.json")} == {*STUDIES, *EXPERIMENTS}


@pytest.mark.parametrize("name", [*STUDIES, *EXPERIMENTS])
def test_tables_are_as_they_were(name):
    found, wanted = timeless(run(name)), golden(name)
    assert set(found) == set(wanted)
    told = {table: differences(found[table], wanted[table]) for table in wanted}
    assert {table: words for table, words in told.items() if words} == {}
