"""Means, pairing and bookkeeping of the tables."""

import numpy as np
import pandas as pd
import pytest

from mutmeta_lib.errors import DataError
from mutmeta_lib.study.bootstrap import bootstrap_mean
from mutmeta_lib.study.summaries import compare, summarise


def simulated(n_assays=30, n_seeds=3, gain=0.1, methods=("maml", "ridge"), shots=(0, 10), rng=0):
    """Assays differ a lot, seeds little, and ``maml`` gains a bit on all of them."""
    rng = np.random.default_rng(rng)
    ease = rng.normal(0.4, 0.3, n_assays)
    return pd.DataFrame(
        {
            "method": method,
            "assay": f"assay{a:02}",
            "protein": f"protein{a // 5}",
            "property": ("stability", "fitness")[a % 2],
            "seed": seed,
            "shots": k,
            "spearman": ease[a] + 0.01 * k + gain * (method == "maml") + rng.normal(0, 0.05),
        }
        for a in range(n_assays)
        for seed in range(n_seeds)
        for k in shots
        for method in methods
    )


def test_mean_interval_and_counts():
    table = simulated()
    made = summarise(table, "spearman", seed=5)
    assert list(made.columns) == [
        *["method", "shots", "mean", "low", "high"],
        *["n_assays", "n_proteins", "n_effective_proteins", "n_undefined"],
    ]
    assert made[["method", "shots"]].to_numpy().tolist() == [
        ["maml", 0],
        ["maml", 10],
        ["ridge", 0],
        ["ridge", 10],
    ]
    cell = table[(table["method"] == "ridge") & (table["shots"] == 10)]
    expected = bootstrap_mean(cell.groupby("assay")["spearman"].mean().to_numpy(), seed=5)
    row = made.iloc[3]
    assert (row["mean"], row["low"], row["high"]) == expected
    assert (row["n_assays"], row["n_proteins"], row["n_undefined"]) == (30, 6, 0)
    assert row["n_effective_proteins"] == pytest.approx(6)


def test_seeds_are_averaged_before_assays_are_counted():
    # One assay with many seeds weighs no more than one with a single seed.
    table = pd.DataFrame(
        {
            "method": "maml",
            "shots": 5,
            "assay": ["a"] * 9 + ["b"],
            "protein": "p",
            "seed": [*range(9), 0],
            "spearman": [0.0] * 9 + [1.0],
        }
    )
    made = summarise(table, "spearman").iloc[0]
    assert made["mean"] == 0.5
    assert (made["low"], made["high"]) == (0.0, 1.0)


def test_resampling_proteins_keeps_the_mean_and_widens_the_interval():
    table = simulated(n_assays=60)
    by_protein = np.random.default_rng(0).normal(0, 0.5, 12)
    table["spearman"] += by_protein[table["protein"].str[7:].astype(int)]
    assays, proteins = (summarise(table, "spearman", unit=unit) for unit in ("assay", "protein"))
    np.testing.assert_allclose(assays["mean"], proteins["mean"])
    assert (proteins["high"] - proteins["low"] > 1.5 * (assays["high"] - assays["low"])).all()


def test_one_assay_has_no_interval():
    for made in (
        summarise(simulated(n_assays=1), "spearman"),
        compare(simulated(n_assays=1), "spearman", "maml", "ridge"),
        summarise(simulated(n_assays=5), "spearman", unit="protein"),
    ):
        assert made["mean"].notna().all()
        assert made[["low", "high"]].isna().all(axis=None)


def test_undefined_values_are_counted_not_averaged():
    table = simulated()
    table.loc[table["shots"] == 0, "spearman"] = np.nan
    partly = (table["assay"] == "assay00") & (table["seed"] == 0)
    table.loc[partly, "spearman"] = np.nan
    for made, methods in (
        (summarise(table, "spearman"), 2),
        (compare(table, "spearman", "maml", "ridge"), 1),
    ):
        none, some = made[made["shots"] == 0], made[made["shots"] == 10]
        assert none["mean"].isna().all()
        assert (none["n_assays"] == 0).all()
        assert (none["n_undefined"] == 90).all()
        assert some["mean"].notna().all()
        assert (some["n_assays"] == 30).all()
        assert (some["n_undefined"] == 1).all()
        assert len(none) == methods


def test_the_order_of_rows_does_not_matter():
    table = simulated()
    shuffled = table.sample(frac=1, random_state=0)
    for call in (
        lambda t: summarise(t, "spearman", by=("shots", "method")),
        lambda t: compare(t, "spearman", "maml", "ridge"),
    ):
        one, other = call(table), call(shuffled)
        keys = [c for c in ("method", "shots") if c in one]
        pd.testing.assert_frame_equal(
            one.sort_values(keys, ignore_index=True), other.sort_values(keys, ignore_index=True)
        )


def test_by_property():
    made = summarise(simulated(), "spearman", by=("property", "method", "shots"))
    assert made["property"].tolist() == ["stability"] * 4 + ["fitness"] * 4
    assert (made["n_assays"] == 15).all()
    paired = compare(simulated(), "spearman", "maml", "ridge", by=("property", "shots"))
    assert (paired["n_assays"] == 15).all()


def test_the_paired_interval_is_narrower_for_correlated_scores():
    table = simulated()
    paired = compare(table, "spearman", "maml", "ridge")
    alone = summarise(table, "spearman", by=("method", "shots"))
    for shots in (0, 10):
        width = paired.set_index("shots").eval("high - low")[shots]
        widths = alone[alone["shots"] == shots].eval("high - low")
        assert width < 0.3 * np.hypot(*widths)


def test_the_paired_difference_covers_the_true_one():
    inside = [
        (lambda row: row["low"] <= 0.1 <= row["high"])(
            compare(
                simulated(n_seeds=1, shots=(5,), rng=rng), "spearman", "maml", "ridge", n_boot=400
            ).iloc[0]
        )
        for rng in range(120)
    ]
    assert 0.87 < np.mean(inside) < 0.99


def test_difference_is_antisymmetric_and_zero_with_itself():
    table = simulated()
    one, other = (
        compare(table, "spearman", *pair) for pair in (("maml", "ridge"), ("ridge", "maml"))
    )
    np.testing.assert_allclose(one["mean"], -other["mean"])
    np.testing.assert_allclose(one["low"], -other["high"])
    same = compare(table, "spearman", "maml", "maml")
    assert (same[["mean", "low", "high"]] == 0).all(axis=None)
    assert list(one.columns[:3]) == ["method", "baseline", "shots"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t[~((t["method"] == "ridge") & (t["assay"] == "assay03"))], "assay03"),
        (
            lambda t: t[~((t["method"] == "maml") & (t["seed"] == 2))],
            r"60 .* first: shots 0, assay assay00, seed 2",
        ),
        (lambda t: t[t["method"] == "maml"], "no method 'ridge'"),
        (lambda t: pd.concat([t, t.iloc[:1]]), "several rows for shots 0, assay assay00, seed 0"),
        (lambda t: t.drop(columns="spearman"), "no column spearman"),
    ],
)
def test_what_cannot_be_paired_is_refused(change, said):
    with pytest.raises(DataError, match=said):
        compare(change(simulated()), "spearman", "maml", "ridge")


@pytest.mark.parametrize("by", [("shots",), ("method",), ("property", "shots")])
def test_methods_or_shots_are_never_mixed_unnoticed(by):
    with pytest.raises(DataError, match="several rows for"):
        summarise(simulated(), "spearman", by=by)


def test_unknown_unit_is_refused():
    with pytest.raises(ValueError, match="seed"):
        summarise(simulated(), "spearman", unit="seed")
