"""From one assay of a protein to another, on the bundled data."""

import numpy as np
import pytest

from mutmeta_lib.app.experiments import protocols_experiment

SMALL = dict(
    per_protein=4,
    pair_cap=40,
    shots=(0, 5, 10),
    seeds=1,
    meta_steps=2,
    tasks_per_step=2,
    support=4,
    query=4,
    inner_steps=1,
    adapt_steps=2,
    source_steps=3,
    tuning_tasks=2,
    profile="quick",
)


@pytest.fixture(scope="module")
def record():
    return protocols_experiment(**SMALL)


def test_pairs_are_taken_both_ways_and_not_learned_from(record):
    pairs, results = record.table("pairs"), record.table("results")
    ways = set(zip(results["a"], results["assay"], strict=True))
    both = list(zip(pairs["a"], pairs["b"], strict=True))
    assert ways == {*both, *((b, a) for a, b in both)}
    assert pairs["cluster"].nunique() == 1


def test_every_method_predicts_the_same_rows(record):
    results = record.table("results")
    assert (results.groupby(["a", "assay", "shots"])["n_query"].nunique() == 1).all()
    assert (results.groupby(["a", "assay", "shots"]).size() == 7).all()


def test_what_a_says_needs_no_label_of_b(record):
    wide = record.table("results").pivot(
        index=["a", "assay"], columns=["method", "shots"], values="spearman"
    )
    for k in (5, 10):
        np.testing.assert_array_equal(wide["scores_a", k], wide["scores_a", 0])
    np.testing.assert_array_equal(wide["ridge_a", 0], wide["scores_a", 0])
    np.testing.assert_array_equal(wide["ridge", 0], 0)


def test_numbers_are_the_tables_numbers(record):
    results = record.table("results")
    cell = results[(results["method"] == "maml") & (results["shots"] == 5)]
    assert record.numbers["maml_5"]["value"] == pytest.approx(cell["spearman"].mean(), abs=1e-4)
    assert record.numbers["undefined"]["value"] == 0
