"""Rows with an interval over clusters, and the numbers made of them."""

import numpy as np
import pandas as pd
import pytest

from mutmeta_lib.study.estimates import bootstrap_mean
from mutmeta_lib.study.intervals import interval_row, mean_number, row_number

VALUES, CLUSTERS = pd.Series([0.1, 0.5, 0.2, 0.9]), pd.Series(["x", "x", "y", "z"])


def test_a_row_is_the_bootstrap_over_clusters_with_its_counts():
    row = interval_row(VALUES, CLUSTERS)
    assert (row["mean"], row["low"], row["high"]) == bootstrap_mean(VALUES, CLUSTERS)
    assert row["low"] < row["mean"] < row["high"]
    assert (row["n_assays"], row["n_proteins"]) == (4, 3)


def test_values_that_are_not_defined_are_not_counted():
    some = VALUES.where(CLUSTERS != "z")
    assert interval_row(some, CLUSTERS) == interval_row(VALUES[:3], CLUSTERS[:3])


def test_no_interval_over_one_cluster():
    row = interval_row(VALUES[:2], CLUSTERS[:2])
    assert row["mean"] == pytest.approx(0.3)
    assert np.isnan([row["low"], row["high"]]).all()


def test_a_number_says_the_assays_and_the_unit():
    row = interval_row(VALUES, CLUSTERS)
    made = row_number(row, "s")
    assert made == mean_number(VALUES, CLUSTERS, "s")
    assert (made["value"], made["n"], made["unit"]) == (row["mean"], 4, "s")
    assert row_number(row)["unit"] == "Spearman"
