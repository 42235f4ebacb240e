"""Seconds to a given accuracy: followed adaptations, savings, bills and slopes."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy import toy_encoded, toy_predictor

from mutmeta_lib.learn.inner import finetune
from mutmeta_lib.reproduction.speed import (
    Question,
    Trajectory,
    arrival,
    bill,
    descend,
    follow,
    saved,
    slopes,
    speed,
)
from mutmeta_lib.study.case import Where
from mutmeta_lib.study.study import Study
from mutmeta_lib.tasks.metrics import mse, spearman
from mutmeta_lib.tasks.tasks import draw_task, task_generator

STUDY = Study(
    per_protein=1, n_folds=3, folds=(0,), seeds=1, meta_steps=2, tasks_per_step=2, support=4,
    query=4, inner_steps=1, max_query=20, epochs=1,
)  # fmt: skip
QUESTION = Question((5, 10), 3, size_ids=("GB1_NISTHAL2019_on_WT",), sizes=(5, 20))
PREDICTOR = toy_predictor()
TASK = draw_task(toy_encoded(1)[0], 8, task_generator(0, "t"), pool=8)
START = PREDICTOR.init(torch.Generator().manual_seed(0))


def path(errors, seconds=None):
    seconds = np.arange(len(errors), dtype=float) if seconds is None else np.array(seconds)
    return Trajectory(seconds, np.array(errors, dtype=float), np.zeros(len(errors)))


def test_descending_is_fine_tuning_followed_step_by_step():
    seen = []
    ours = descend(PREDICTOR, START, TASK.support, ("adam", 1e-2), 4, lambda s, p: seen.append(s))
    theirs = finetune(PREDICTOR.loss, START, [TASK.support] * 4, lr=1e-2)
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-6) for name in START)
    assert len(seen) == 5
    assert seen[0] == 0 == sorted(seen)[0]


def test_what_is_followed_is_the_query_set():
    found = follow(PREDICTOR, START, TASK, ("sgd", 0.05), 3)
    adapted = descend(PREDICTOR, START, TASK.support, ("sgd", 0.05), 3)
    predicted = PREDICTOR(adapted, TASK.query.tokens).detach().numpy()
    assert found.errors[-1] == pytest.approx(mse(predicted, TASK.query.labels.numpy()), rel=1e-4)
    assert found.ranks[-1] == pytest.approx(spearman(predicted, TASK.query.scores))
    diverged = follow(PREDICTOR, START, TASK, ("sgd", 1e20), 3)
    assert np.isinf(diverged.errors[-1])


@given(st.lists(st.floats(0, 10), min_size=1, max_size=9), st.floats(0, 10))
def test_a_target_is_reached_at_the_first_step_that_is_as_good(errors, target):
    step = path(errors).reaches(target)
    before = errors if step is None else errors[:step]
    assert all(error > target for error in before)
    assert step is None or errors[step] <= target


def test_only_finished_steps_count_and_who_never_arrives_took_all_of_them():
    slow = path([2.0] * 5)
    assert [slow.at_seconds(s) for s in (0, 0.9, 1, 9)] == [0, 0, 1, 4]
    assert arrival(slow, 0.5, 2) | {"reached": False, "steps": 4, "seconds": 4.0} == arrival(
        slow, 0.5, 2
    )
    ours = arrival(path([1.0, 0.5, 0.5, 0.3, 0.2]), 0.5, 2)
    assert (ours["steps"], ours["reached"], ours["seconds_end"]) == (1, True, 2.0)


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    where = Where(store=str(tmp_path_factory.mktemp("kept")))
    first = speed(STUDY, QUESTION, where=where, progress=len)
    again = speed(STUDY, QUESTION, where=where, progress=len)
    assert again.tables == first.tables, "finished parts are not computed again"
    assert again.numbers == first.numbers
    return first


def test_every_part_of_the_bill_is_there(record):
    numbers = record.numbers
    for arm in ("maml", "multitask"):
        assert numbers[f"meta_training_{arm}"]["value"] > 0
        for k in (5, 10):
            free = numbers[f"saved_{arm}_{k}"]["value"]
            billed = numbers[f"saved_{arm}_{k}_over_1"]["value"]
            assert free is None or billed < free
    assert numbers["embedding_seconds_per_variant"]["value"] > 0


def test_fine_tuning_reaches_its_own_end_at_the_same_place_in_both_tables(record):
    draws = record.table("draws")
    own = draws[draws["arm"] == "finetune"]
    assert own["reached"].all()
    assert (own["steps"] <= 3).all()
    assert (draws.groupby(["assay", "labels"]).size() == 3).all()
    ends = record.table("clock").query("share == 1 and method == 'finetune'")
    assert ends.query("metric == 'log_error_ratio'")["mean"].abs().max() < 1e-5
    assert set(record.table("steps")["step"]) == {0, 1, 2, 5}


def test_sizes_are_timed_for_every_start_and_way_of_reading(record):
    sizes = record.table("sizes")
    assert (sizes.groupby(["start", "kind", "labels"]).size() == 1).all()
    fixed = sizes.query("kind == 'fixed'").pivot_table("spearman", "start", "labels")
    # Of five labels and of twenty the same first four are read.
    np.testing.assert_allclose(fixed[5], fixed[20])


def rows(maml=0.5, finetune=1.0, n=6):
    draws = pd.DataFrame(
        {
            "assay": f"A{assay}", "property": "fitness", "cluster": assay, "seed": 0, "labels": 10,
            "arm": arm, "reached": True, "steps": 5, "seconds": seconds, "seconds_end": 2.0,
            "error_start": 1.0, "error_end": 0.5 if arm == "maml" else 1.0, "spearman_end": 0.3,
        }
        for assay in range(n)
        for arm, seconds in (("maml", maml), ("multitask", 2.0), ("finetune", finetune))
    )  # fmt: skip
    costs = pd.DataFrame([{"arm": arm, "seconds": 10.0} for arm in ("maml", "multitask")])
    embedding = pd.DataFrame([{"assay": "A", "length": 9, "seconds_per_variant": 0.01}])
    empty = pd.DataFrame()
    made = {"costs": costs, "embedding": embedding, "rapid": empty, "sizes": empty}
    return {"draws": draws, "left_out": empty, **made}


def test_half_the_time_saves_half_and_is_paid_for_after_twenty_assays():
    numbers = bill(rows(), [1, 20])
    expected = {
        "saved_maml_10": 0.5,
        "saved_of_all_maml_10": 0.75,
        "saved_of_all_maml_10_fitness": 0.75,
        "break_even_maml_10": 20,
        "saved_maml_10_over_20": 0.0,
        "saved_maml_10_over_1": -9.5,
        "gain_maml_10": 0.5,
        "worse_than_start_10": 0.0,
    }
    assert {k: numbers[k]["value"] for k in expected} == pytest.approx(expected)


def test_what_is_slower_is_never_paid_for():
    numbers = bill(rows(maml=3.0), [1])
    assert numbers["saved_maml_10"]["value"] == pytest.approx(-2.0)
    assert numbers["break_even_maml_10"]["value"] is None


def test_a_saving_is_of_sums_and_resamples_clusters():
    own, other = pd.Series([1.0, 0.0, 3.0]), pd.Series([2.0, 2.0, 4.0])
    found = saved(own, other, pd.Series([0, 0, 1]))
    assert found["value"] == pytest.approx(0.5)
    assert (found["low"], found["high"]) == pytest.approx((0.25, 0.75))


def test_slopes_are_those_of_seconds_against_labels():
    sizes = pd.DataFrame(
        {"start": start, "kind": kind, "assay": a, "labels": k, "seconds": (1 + a) * k**power}
        for start in ("maml", "finetune")
        for kind, power in (("fixed", 0), ("steps", 0.5), ("epochs", 1))
        for a in range(3)
        for k in (10, 100)
    )
    made = slopes(sizes)
    for kind, power in (("fixed", 0), ("steps", 0.5), ("epochs", 1)):
        assert made[f"exponent_maml_{kind}"]["value"] == pytest.approx(power)
    assert made["flat_saving"]["value"] == pytest.approx(0.99)
    assert made["epochs_maml_over_finetune"]["value"] == pytest.approx(1)
