"""The gain formula by hand, its intervals by cluster, and the verdicts of the criteria."""

import numpy as np
import pandas as pd
import pytest

from mutmeta_lib.errors import DataError
from mutmeta_lib.study.gains import group_mean, paired_difference, paired_gain, verdict


def table(ours, theirs, clusters=None):
    names = [f"a{place}" for place in range(len(ours))]
    clusters = list(range(len(ours))) if clusters is None else clusters
    rows = [("maml", *row) for row in zip(names, clusters, ours, strict=True)]
    rows += [("other", *row) for row in zip(names, clusters, theirs, strict=True)]
    return pd.DataFrame(rows, columns=["method", "assay", "cluster", "mse"])


def test_the_gain_is_one_minus_the_geometric_mean_ratio():
    # Ratios 1/2 and 1/8: their geometric mean is 1/4.
    assert paired_gain(table([1, 1], [2, 8]), "mse", "maml", "other")["mean"] == 0.75


def test_a_ratio_and_its_inverse_cancel():
    found = paired_gain(table([3, 1], [1, 3]), "mse", "maml", "other")
    assert found["mean"] == pytest.approx(0)
    assert found["low"] < 0 < found["high"]


def test_units_of_an_assay_do_not_matter():
    plain = paired_gain(table([1, 2, 3], [2, 2, 5]), "mse", "maml", "other")
    scaled = paired_gain(table([100, 2, 3], [200, 2, 5]), "mse", "maml", "other")
    assert scaled == pytest.approx(plain)


def test_assays_of_one_cluster_are_resampled_together():
    # Two clusters of like assays: alone each is certain, so bounds are the two cluster gains.
    ours, theirs = [1, 1, 1, 4, 4, 4], [2, 2, 2, 2, 2, 2]
    found = paired_gain(table(ours, theirs, [0, 0, 0, 1, 1, 1]), "mse", "maml", "other")
    assert found["n_units"] == 2
    assert (found["low"], found["high"]) == pytest.approx((-1.0, 0.5))
    apart = paired_gain(table(ours, theirs), "mse", "maml", "other")
    assert apart["high"] - apart["low"] < found["high"] - found["low"]


def test_one_cluster_has_no_interval():
    found = paired_gain(table([1, 2], [2, 3], [0, 0]), "mse", "maml", "other")
    assert np.isnan([found["low"], found["high"]]).all()


def test_an_error_that_is_not_defined_is_left_out():
    found = paired_gain(table([1, np.nan, 1], [2, 1, 2]), "mse", "maml", "other")
    assert found["n_assays"] == 2
    assert found["mean"] == 0.5


def test_errors_that_have_no_logarithm_are_refused():
    with pytest.raises(DataError, match="is not positive"):
        paired_gain(table([0, 1], [1, 1]), "mse", "maml", "other")


def test_unpaired_and_repeated_assays_are_refused():
    both = table([1, 2], [1, 2])
    with pytest.raises(DataError, match="not tested on the same assays"):
        paired_gain(both.drop(index=0), "mse", "maml", "other")
    with pytest.raises(DataError, match="several rows for assay a0"):
        paired_difference(pd.concat([both, both.head(1)]), "mse", "maml", "other")
    with pytest.raises(DataError, match="no method 'gp'"):
        paired_gain(both, "mse", "maml", "gp")


def test_differences_and_means_agree():
    both = table([1.0, 3.0, 2.0], [0.5, 1.0, 2.5])
    difference = paired_difference(both, "mse", "maml", "other")["mean"]
    means = [group_mean(both[both["method"] == name], "mse")["mean"] for name in ("maml", "other")]
    assert difference == pytest.approx(means[0] - means[1])


def bounds(low, high, units=9, mean=None):
    mean = (low + high) / 2 if mean is None else mean
    return {"mean": mean, "low": low, "high": high, "n_assays": units, "n_units": units}


@pytest.mark.parametrize(
    ("gain", "difference", "expected"),
    [
        (bounds(0.1, 0.4), bounds(0.0, 0.2), "reproduced"),
        (bounds(0.1, 0.2), bounds(0.0, 0.2), "partly"),
        (bounds(0.1, 0.4), bounds(-0.2, 0.0), "partly"),
        (bounds(-0.1, 0.2), bounds(0.0, 0.2), "not reproduced"),
        (bounds(-0.1, 0.4), bounds(0.0, 0.2), "not reproduced, not excluded"),
        (bounds(-0.4, -0.1), bounds(0.0, 0.2), "not reproduced"),
        (bounds(0.1, 0.4, units=5), bounds(0.0, 0.2), "not testable here"),
        (bounds(np.nan, np.nan, units=6, mean=0.3), bounds(0.0, 0.2), "not testable here"),
    ],
)
def test_verdicts_follow_the_written_criteria(gain, difference, expected):
    assert verdict(0.29, gain, difference) == expected
