"""The evaluation loop with stand-in methods: same draws for all, no peeking, honest units."""

from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np
import pytest
import torch
from toy import toy_assay, toy_predictor

from mutmeta_lib.errors import DataError
from mutmeta_lib.study import evaluate as module
from mutmeta_lib.study.evaluate import evaluate, hold_out_task, support_pool
from mutmeta_lib.tasks.metrics import METRICS
from mutmeta_lib.tasks.tasks import encode_assay

ENCODER = toy_predictor().encoder


def assay(name="a", n=60, seed=0, scores=None):
    values = 100 + 7 * np.random.default_rng(seed).normal(size=n) if scores is None else scores
    made = replace(toy_assay(seed, name=name, length=10, n=n), scores=np.asarray(values, float))
    return encode_assay(made, "mutant", ENCODER.vocabulary, ENCODER.max_tokens)


@dataclass
class Mean:
    """Predicts the support mean; notes what it was shown."""

    name: str = "mean"
    supports: list = field(default_factory=list)
    queries: list = field(default_factory=list)
    noise: list = field(default_factory=list)

    def adapt(self, support, generator):
        self.supports.append(support)
        self.noise.append(float(torch.rand(1, generator=generator)))
        return float(support.labels.mean()) if len(support) else 0.0

    def predict(self, state, query):
        self.queries.append(query)
        return np.full(len(query), state)


@dataclass
class Oracle(Mean):
    """Knows the assay: the scaled score up to ``slope`` and ``offset``, fitted on the support."""

    def adapt(self, support, generator):
        super().adapt(support, generator)
        return np.polyfit(support.scores, support.labels, 1) if len(support) > 1 else (1.0, 0.0)

    def predict(self, state, query):
        super().predict(0.0, query)
        return np.polyval(state, query.scores)


def run(methods=None, assays=None, **options):
    options = {"shots": (0, 1, 5, 10), "seeds": (0, 1), **options}
    return evaluate(methods or {"mean": Mean()}, assays or [assay()], **options)


def test_one_row_per_assay_seed_shots_and_method():
    table = run({"mean": Mean(), "oracle": Oracle()}, [assay("a"), assay("b", seed=1)])
    order = list(table[["assay", "seed", "shots", "method"]].itertuples(index=False, name=None))
    assert order == list(product("ab", (0, 1), (0, 1, 5, 10), ("mean", "oracle")))
    assert (table["n_query"] == 50).all()
    assert (table[["seconds_adapt", "seconds_predict"]] > 0).all(axis=None)


def test_errors_are_in_the_units_of_the_assay():
    given = assay()
    table = run({"mean": Mean(), "oracle": Oracle()}, [given]).set_index(["method", "shots"])
    oracle = table.loc["oracle"]
    assert oracle[["spearman", "ndcg"]].to_numpy() == pytest.approx(1.0)
    errors = oracle.loc[[5, 10], ["mse", "mae", "relative_mse"]]
    assert errors.to_numpy() == pytest.approx(0, abs=1e-6)
    method = Mean()
    row = run({"mean": method}, [given], seeds=[0], shots=[5]).iloc[0]
    support, query = method.supports[0].scores, method.queries[0].scores
    assert row["mse"] == pytest.approx(np.mean((support.mean() - query) ** 2), rel=1e-5)
    assert row["mae"] == pytest.approx(np.mean(np.abs(support.mean() - query)), rel=1e-5)
    assert row["relative_mse"] == pytest.approx(row["mse"] / np.var(query), rel=1e-5)
    assert row["error_over_mean"] == pytest.approx(1)


def test_without_a_scale_only_ranks_are_reported():
    table = run({"oracle": Oracle()})
    scaled = [name for name, metric in METRICS.items() if metric.needs_scale]
    assert scaled == ["mse", "mae", "relative_mse", "error_over_mean", "coverage"]
    assert table.loc[table["shots"] < 2, scaled].isna().all(axis=None)
    assert table.loc[table["shots"] >= 2, scaled[:-1]].notna().all(axis=None)
    assert table["coverage"].isna().all()
    assert table[["spearman", "ndcg"]].notna().all(axis=None)
    # Of two values only, some pair of supports is equal.
    table = run(assays=[assay(scores=np.arange(60) % 2)], shots=[2], seeds=range(8))
    assert 0 < table["mse"].isna().sum() < 8
    assert table["spearman"].notna().all()


@pytest.mark.parametrize(("factor", "held"), [(1.0, 0.9), (0.5, 0.589), (1e9, 1.0)])
def test_intervals_are_in_the_units_of_the_assay_and_see_no_label(factor, held):
    class Sure(Mean):
        def deviation(self, state, query):
            assert query.labels.isnan().all()
            support = self.supports[-1].scores
            return np.full(len(query), factor * 7 / support.std(ddof=1))

    table = run({"sure": Sure()}, [assay(n=190)], shots=[40], seeds=range(20), max_query=150)
    assert table["coverage"].mean() == pytest.approx(held, abs=0.04)


def test_unseen_sites_are_those_of_no_variant_of_the_support():
    method = Oracle()
    table = run({"oracle": method}, [assay(n=190)], shots=(0, 3, 100), seeds=[0], pool=100)
    rows = table.set_index("shots")
    assert rows.loc[0, "spearman_unseen"] == rows.loc[0, "spearman"] == pytest.approx(1)
    assert rows.loc[3, "spearman_unseen"] == pytest.approx(1)
    assert np.isnan(rows.loc[100, "spearman_unseen"]), "100 of 190 variants see all ten sites"


def test_all_methods_see_the_same_nested_supports_and_one_query_set():
    one, other = Mean(), Mean()
    run({"one": one, "other": other}, seeds=[3])
    for mine, theirs in zip(one.supports, other.supports, strict=True):
        np.testing.assert_array_equal(mine.rows, theirs.rows)
    for small, large in zip(one.supports, one.supports[1:], strict=False):
        np.testing.assert_array_equal(small.rows, large.rows[: len(small)])
    assert len({tuple(query.rows) for query in one.queries + other.queries}) == 1
    assert not set(one.queries[0].rows) & set(one.supports[-1].rows)
    few = Mean()
    run({"mean": few}, seeds=[3], shots=[5], pool=10)
    np.testing.assert_array_equal(few.queries[0].rows, one.queries[0].rows)
    np.testing.assert_array_equal(few.supports[0].rows, one.supports[2].rows)
    assert (run(max_query=12)["n_query"] == 12).all()
    pools = {(50, 40): 40, (49, 40): 20, (20, 40): 10, (10, 40): 0, (26, 16): 16}
    assert {asked: support_pool(*asked) for asked in pools} == pools


@pytest.mark.parametrize(
    ("odd", "error", "said"),
    [
        (lambda query: query.labels.numpy(), DataError, "50 of 50 predictions are not finite"),
        (
            lambda query: np.repeat([np.inf, 0], [1, 49]),
            DataError,
            "method odd on assay some-assay, seed 7, 5 shots: 1 of 50 predictions",
        ),
        (lambda query: np.zeros((len(query), 1)), ValueError, r"predicted shape \(50, 1\)"),
    ],
)
def test_odd_predictions_are_named(odd, error, said):
    class Odd(Mean):
        def predict(self, state, query):
            return odd(query) if len(self.supports[-1]) == 5 else super().predict(state, query)

    with pytest.raises(error, match=said):
        run({"fine": Mean(), "odd": Odd()}, [assay("some-assay")], seeds=[7])


def test_randomness_depends_on_seed_assay_method_and_shots_alone():
    together = {"one": Mean(), "two": Mean()}
    run(together, [assay("a"), assay("b")])
    noise = [value for method in together.values() for value in method.noise]
    assert len(set(noise)) == len(noise) == 2 * 2 * 2 * 4
    alone = Mean()
    run({"two": alone}, [assay("b")])
    assert alone.noise == together["two"].noise[8:]


@pytest.mark.parametrize(
    ("assays", "said"),
    [
        ([assay("fine"), assay("small", n=19)], "assay small has 19 variants, 10 shots need 20"),
        ([assay("flat", scores=np.ones(60))], "scores of assay flat .* all equal"),
    ],
)
def test_assays_that_cannot_be_evaluated_are_refused_at_once(assays, said):
    method = Mean()
    with pytest.raises(DataError, match=said):
        run({"mean": method}, assays=assays)
    assert not method.supports
    assert len(run(assays=[assay("enough", n=20)])) == 8


def test_the_clock_waits_for_the_device(monkeypatch):
    events = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: events.append("wait"))
    monkeypatch.setattr(module.time, "perf_counter", lambda: events.append("clock") or 1.0)

    working = Mean()
    working.adapt = lambda *given: events.append("work") or 0.0
    working.predict = lambda state, query: events.append("work") or np.zeros(len(query))
    run({"working": working}, seeds=[0], shots=[5])
    assert events == ["wait", "clock", "work", "wait", "clock"] * 2


@pytest.mark.parametrize("hold_out", ["variants", "sites"])
def test_a_held_out_share_is_in_no_support_and_labels_are_scaled_without_it(hold_out):
    given = assay(n=190)
    task = hold_out_task(given, hold_out, 0.2, 0)
    assert sorted([*task.support.rows, *task.query.rows]) == list(range(190))
    assert task.label_scale.location == pytest.approx(task.support.scores.mean())
    sites = [{v[0].position for v in side.variants} for side in (task.support, task.query)]
    assert (not sites[0] & sites[1]) == (hold_out == "sites")
    assert len(task.query) == 38
    other = hold_out_task(given, hold_out, 0.2, 1)
    assert set(other.query.rows) != set(task.query.rows)
