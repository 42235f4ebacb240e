"""Large assays for the dependence on the number of labels."""

from mutmeta_lib.study.speed_sizes import size_assays


def test_only_the_named_assays_are_read_and_cut():
    (assay,) = size_assays("demo", ["GB1_NISTHAL2019_on_WT"], 50)
    assert (assay.id, len(assay)) == ("GB1_NISTHAL2019_on_WT", 50)


def test_no_names_mean_no_assays():
    assert size_assays("demo", [], 50) == []
