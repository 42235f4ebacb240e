"""Every experiment gives the tables it gave."""

import pytest
from golden_studies import FOLDER, STUDIES, differences, golden, run, timeless

from mutmeta_lib.app.experiments import EXPERIMENTS


def test_every_experiment_on_bundled_data_has_tables():
    assert {path.stem for path in FOLDER.glob("*.json")} == set(STUDIES)
    assert set(EXPERIMENTS) - set(STUDIES) == {"audit"}  # reads the public repository's files


@pytest.mark.parametrize("name", STUDIES)
def test_tables_are_as_they_were(name):
    found, wanted = timeless(run(name)), golden(name)
    assert set(found) == set(wanted)
    told = {table: differences(found[table], wanted[table]) for table in wanted}
    assert {table: words for table, words in told.items() if words} == {}
