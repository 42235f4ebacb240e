"""Estimates mean what they say: coverage by simulation, pairing, units, and the verdicts."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mutmeta_lib.data.folders import LITERATURE
from mutmeta_lib.errors import DataError
from mutmeta_lib.study.estimates import (
    PROTEINGYM,
    bootstrap_mean,
    bootstrap_ratio,
    contrast,
    estimate,
    means,
    named,
    verdict,
    with_groups,
)

numbers = st.lists(st.floats(-100, 100), min_size=2, max_size=20).map(np.array)


def coverage(draw, n_simulations=300):
    hits = 0
    for simulation in range(n_simulations):
        values, groups = draw(np.random.default_rng(simulation))
        _, low, high = bootstrap_mean(values, groups, n_boot=300, seed=simulation)
        hits += low <= 0 <= high
    return hits / n_simulations


def test_intervals_cover_95_percent_where_whole_groups_are_resampled():
    def grouped(rng):
        groups = np.repeat(np.arange(30), 5)
        return rng.normal(size=30)[groups] + 0.3 * rng.normal(size=150), groups

    assert 0.91 < coverage(lambda rng: (rng.normal(size=40), None)) < 0.98
    assert 0.90 < coverage(grouped) < 0.98
    assert coverage(lambda rng: (grouped(rng)[0], None)) < 0.75
    values = np.random.default_rng(1).normal(2, 3, size=400)
    mean, *ends = bootstrap_mean(values, n_boot=10_000)
    assert ends == pytest.approx(stats.norm.interval(0.95, mean, stats.sem(values)), abs=0.03)


@given(numbers, st.floats(0.1, 10), st.floats(-10, 10))
def test_the_interval_moves_with_the_values_and_holds_their_mean(values, scale, shift):
    ends = bootstrap_mean(values, n_boot=50)
    moved = bootstrap_mean(values * scale + shift, n_boot=50)
    assert moved == pytest.approx([x * scale + shift for x in ends], abs=1e-8)
    mean, low, high = ends
    assert mean == pytest.approx(values.mean())
    assert values.min() - 1e-9 <= low <= high <= values.max() + 1e-9
    assert ends == bootstrap_mean(values, np.arange(len(values)), n_boot=50)


def test_fewer_than_two_units_have_no_interval():
    for values, groups in (([3.0], None), ([3.0, 4.0], ["a", "a"]), ([], None)):
        mean, *ends = bootstrap_mean(np.array(values), groups)
        assert np.isnan(mean) == (not values)
        assert np.isnan([*ends, *bootstrap_ratio(values, values, groups)[1:]]).all()


def test_a_ratio_over_what_may_not_exist_has_an_interval_without_an_end():
    below = np.array([1.0, 2.0, 5.0])
    assert bootstrap_ratio(3 * below, below) == pytest.approx((3.0, 3.0, 3.0))
    value, low, high = bootstrap_ratio(np.ones(4), np.array([1.0, 1.0, 1.0, -2.5]))
    assert value == pytest.approx(8.0)
    assert 0 < low < value
    assert high == np.inf
    assert bootstrap_ratio(np.ones(3), -np.ones(3)) == (np.inf, np.inf, np.inf)


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


def by_assay(table, **more):
    return contrast(table, "spearman", "method", "maml", over="assay", **more)


def test_means_intervals_and_counts():
    table = simulated()
    made = estimate(table, "spearman", over="protein")
    assert made[["method", "shots"]].to_numpy().tolist() == [
        *(["maml", 0], ["maml", 10], ["ridge", 0], ["ridge", 10])
    ]
    cell = table[(table["method"] == "ridge") & (table["shots"] == 10)]
    means = cell.groupby("assay")["spearman"].mean()
    proteins = cell.drop_duplicates("assay").set_index("assay")["protein"]
    row = made.iloc[3]
    assert (row["mean"], row["low"], row["high"]) == bootstrap_mean(means, proteins)
    assert (row["n_assays"], row["n_units"], row["n_undefined"]) == (30, 6, 0)
    values = {"assay": ["a"] * 9 + ["b"], "seed": [*range(9), 0], "spearman": [0.0] * 9 + [1.0]}
    row = estimate(pd.DataFrame(values), "spearman", by=(), over="assay").iloc[0]
    assert (row["mean"], row["low"], row["high"]) == (0.5, 0.0, 1.0), "seeds first"


def test_undefined_values_are_counted_not_averaged():
    table = simulated()
    table.loc[table["shots"] == 0, "spearman"] = np.nan
    table.loc[(table["assay"] == "assay00") & (table["seed"] == 0), "spearman"] = np.nan
    for made in (estimate(table, "spearman", over="assay"), by_assay(table)):
        none, some = made[made["shots"] == 0], made[made["shots"] == 10]
        assert none["mean"].isna().all()
        assert none[["n_assays", "n_undefined"]].drop_duplicates().to_numpy().tolist() == [[0, 90]]
        assert some[["n_assays", "n_undefined"]].drop_duplicates().to_numpy().tolist() == [[30, 1]]


def test_pairing_narrows_the_interval_and_covers_the_true_difference():
    alone = estimate(simulated(), "spearman", over="assay")
    for row in by_assay(simulated()).itertuples():
        widths = alone[alone["shots"] == row.shots].eval("high - low")
        assert row.high - row.low < 0.3 * np.hypot(*widths)
    found = [by_assay(simulated(n_seeds=1, shots=(5,), rng=rng)).iloc[0] for rng in range(60)]
    assert 0.85 < np.mean([row["low"] <= 0.1 <= row["high"] for row in found]) <= 1


def test_a_difference_is_that_of_the_means_antisymmetric_and_of_no_order_of_rows():
    table = simulated()
    one, other = by_assay(table), contrast(table, "spearman", "method", "ridge", over="assay")
    np.testing.assert_allclose(one[["mean", "low"]], -other[["mean", "high"]])
    means = estimate(table, "spearman", over="assay").set_index(["method", "shots"])["mean"]
    np.testing.assert_allclose(one["mean"], (means["maml"] - means["ridge"]).to_numpy())
    assert one["baseline"].unique().tolist() == ["ridge"]
    pd.testing.assert_frame_equal(by_assay(table.sample(frac=1, random_state=0)), one)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.query("method == 'maml' or assay != 'assay03'"), "assay03"),
        (lambda t: t.query("method == 'ridge' or seed != 2"), "30 without a partner"),
        (lambda t: t.query("method == 'ridge'"), "no method 'maml'"),
        (lambda t: pd.concat([t, t.iloc[:1]]), "several rows for shots 0, method maml, assay"),
        (lambda t: t.drop(columns="spearman"), "no column spearman"),
    ],
)
def test_what_cannot_be_paired_is_refused(change, said):
    with pytest.raises(DataError, match=said):
        by_assay(change(simulated()))


def errors(ours, theirs, clusters=None):
    clusters = range(len(ours)) if clusters is None else clusters
    return pd.DataFrame(
        {"method": method, "assay": f"a{i}", "cluster": cluster, "mse": value}
        for method, values in (("maml", ours), ("other", theirs))
        for i, (cluster, value) in enumerate(zip(clusters, values, strict=True))
    )


def gain(table):
    return contrast(table, "mse", "method", "maml", by=(), kind="gain").iloc[0]


def test_a_gain_is_one_minus_the_geometric_mean_ratio_whatever_the_units():
    assert gain(errors([1, 1], [2, 8]))["mean"] == pytest.approx(0.75)
    assert gain(errors([100, 1], [200, 8]))["mean"] == pytest.approx(0.75)
    even = gain(errors([3, 1], [1, 3]))
    assert even["mean"] == pytest.approx(0)
    assert even["low"] < 0 < even["high"]
    parts = [errors([1, 1], [2, 2]), errors([3, 3], [6, 14])]
    several = pd.concat(part.assign(seed=seed) for seed, part in enumerate(parts))
    assert gain(several)["mean"] == pytest.approx(1 - np.sqrt(2 / 4 * 2 / 8)), "seeds first"
    undefined = gain(errors([1, np.nan, 1], [2, 1, 2]))
    assert (undefined["n_assays"], undefined["mean"]) == (2, pytest.approx(0.5))
    with pytest.raises(DataError, match="is not positive"):
        gain(errors([0, 1], [1, 1]))


def test_assays_of_one_cluster_are_resampled_together():
    ours, theirs = [1, 1, 1, 4, 4, 4], [2] * 6
    together, apart = gain(errors(ours, theirs, [0, 0, 0, 1, 1, 1])), gain(errors(ours, theirs))
    assert together["n_units"] == 2
    assert (together["low"], together["high"]) == pytest.approx((-1.0, 0.5))
    assert apart["high"] - apart["low"] < together["high"] - together["low"]


GYM = pd.DataFrame(
    [
        ("a", "Activity", "P", 0, 0.1), ("b", "Activity", "P", 0, 0.3),
        ("c", "Activity", "Q", 1, 0.6),
        ("d", "Stability", "P", 0, 0.9), ("e", "Stability", "R", 2, 0.7),
    ],
    columns=["assay", "role", "protein", "cluster", "spearman"],
).assign(method="maml", shots=10, property="stability")  # fmt: skip


def test_proteingyms_mean_is_over_assays_then_proteins_then_types():
    by_hand = np.mean([np.mean([np.mean([0.1, 0.3]), 0.6]), np.mean([0.9, 0.7])])
    again = GYM.groupby(["role", "protein"])["spearman"].mean().groupby("role").mean().mean()
    found = estimate(GYM, "spearman", within=PROTEINGYM).iloc[0]
    assert found["mean"] == pytest.approx(by_hand) == pytest.approx(again)
    assert (found["n_assays"], found["n_units"]) == (5, 3)
    assert found["low"] < found["mean"] < found["high"]
    table = means(GYM, "spearman").set_index("group")["mean"]
    assert set(table.index) == {"all", "stability", "Activity", "Stability", "ProteinGym"}
    assert table["ProteinGym"] == pytest.approx(by_hand)
    assert table["all"] == pytest.approx(GYM["spearman"].mean())
    assert table["Activity"] == pytest.approx(1 / 3)
    lower = GYM.assign(method="ridge", spearman=GYM["spearman"] - 0.2)
    gap = contrast(pd.concat([GYM, lower]), "spearman", "method", "maml", within=PROTEINGYM).iloc[0]
    assert [gap["mean"], gap["low"], gap["high"]] == pytest.approx([0.2] * 3)
    with pytest.raises(DataError, match="no column role"):
        estimate(GYM.drop(columns="role"), "spearman", within=PROTEINGYM)


@given(numbers, st.integers(0, 9))
def test_where_every_assay_stands_alone_a_nested_mean_is_the_plain_one(values, seed):
    alone = pd.DataFrame({"assay": [f"{i:02}" for i in range(len(values))], "x": values})
    rows = alone.assign(role="one", protein=alone["assay"], cluster=np.arange(len(values)) % 7)
    plain, nested = (estimate(rows, "x", by=(), within=w).iloc[0] for w in (None, PROTEINGYM))
    ends = ["mean", "low", "high"]
    np.testing.assert_allclose(plain[ends].astype(float), nested[ends].astype(float), atol=1e-8)


def test_rows_become_groups_and_named_numbers():
    rows = pd.DataFrame(
        {"property": ["a", "a", "b"], "role": ["a", "classes", "b"], "assay": ["x", "y", "z"]}
    )
    found = with_groups(rows).groupby("group")["assay"].agg(list).to_dict()
    expected = {"a": ["x", "y"], "a scores": ["x"], "classes": ["y"], "b": ["z"]}
    assert found == {"all": ["x", "y", "z"], **expected}
    assert {*with_groups(rows.drop(columns="role"))["group"]} == {"all", "a", "b"}
    apart = with_groups(rows.replace({"classes": LITERATURE[0]})).groupby("group")["assay"]
    expected = {"all": ["x", "z"], "a": ["x"], LITERATURE[0]: ["y"], "b": ["z"]}
    assert apart.agg(list).to_dict() == expected
    made = named(estimate(simulated(), "spearman", over="assay"), "{method}_{shots}")
    assert set(made) == {"maml_0", "maml_10", "ridge_0", "ridge_10"}
    assert made["maml_10"]["n"] == 30
    assert made["maml_10"]["low"] < made["maml_10"]["value"] < made["maml_10"]["high"]


@pytest.mark.parametrize(
    ("low", "high", "units", "ranks", "expected"),
    [
        (0.1, 0.4, 9, 0.1, "reproduced"),
        (0.1, 0.2, 9, 0.1, "partly"),
        (0.1, 0.4, 9, -0.1, "partly"),
        (-0.1, 0.2, 9, 0.1, "not reproduced"),
        (-0.1, 0.4, 9, 0.1, "not reproduced, not excluded"),
        (-0.4, -0.1, 9, 0.1, "not reproduced"),
        (0.1, 0.4, 5, 0.1, "not testable here"),
        (np.nan, np.nan, 6, 0.1, "not testable here"),
        (-np.inf, 0.2, 6, 0.1, "not reproduced"),
    ],
)
def test_verdicts_follow_the_written_criteria(low, high, units, ranks, expected):
    assert verdict(0.29, {"low": low, "high": high, "n_units": units}, {"mean": ranks}) == expected
