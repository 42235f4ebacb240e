"""Seconds to a given accuracy: followed adaptations, savings, bills and slopes."""

import numpy as np
import pandas as pd
import pytest
import torch
from golden_studies import SPEED
from hypothesis import given
from hypothesis import strategies as st
from release_copy import named_on_pages
from toy import toy_encoded, toy_predictor

from mutmeta_lib.learn.inner import InnerLoop, finetune, inner_update
from mutmeta_lib.reproduction import speed
from mutmeta_lib.study.case import Where
from mutmeta_lib.tasks.metrics import mse, spearman
from mutmeta_lib.tasks.tasks import draw_task, task_generator

QUESTION = speed.Question((5, 10), 3, size_ids=("GB1_NISTHAL2019_on_WT",), sizes=(5, 20))
PREDICTOR = toy_predictor()
TASK = draw_task(toy_encoded(1)[0], 8, task_generator(0, "t"), pool=8)
START = PREDICTOR.init(torch.Generator().manual_seed(0))


def path(errors, seconds=None):
    seconds = np.arange(len(errors), dtype=float) if seconds is None else np.array(seconds)
    return pd.DataFrame({"seconds": seconds, "error": errors, "spearman": 0.0}, dtype=float)


@pytest.mark.parametrize("rate", [("adam", 1e-2), ("sgd", 0.05)])
def test_what_is_followed_is_fine_tuning_seen_on_the_query_set(rate):
    (optimiser, lr), found = rate, speed.follow(PREDICTOR, START, TASK, rate, 4)
    if optimiser == "adam":
        tuned = finetune(PREDICTOR.loss, START, [TASK.support] * 4, lr=lr)
    else:
        tuned = inner_update(PREDICTOR.loss, START, TASK.support, InnerLoop(lr, 4))
    for step, params in ((0, START), (4, tuned)):
        predicted = PREDICTOR(params, TASK.query.tokens).detach().numpy()
        error = mse(predicted, TASK.query.labels.numpy())
        assert found["error"][step] == pytest.approx(error, rel=1e-4)
        assert found["spearman"][step] == pytest.approx(spearman(predicted, TASK.query.scores))
    assert (len(found), found["seconds"][0]) == (5, 0)
    assert found["seconds"].is_monotonic_increasing
    diverged = speed.follow(PREDICTOR, START, TASK, ("sgd", 1e20), 3).iloc[-1]
    assert (np.isinf(diverged["error"]), diverged["spearman"]) == (True, 0)


@given(st.lists(st.floats(0, 10), min_size=3, max_size=9), st.data())
def test_a_target_is_reached_at_the_first_step_that_is_as_good(errors, data):
    target = data.draw(st.floats(0, 10))
    there = path([5.0, 5.0, target, *[9.0] * 6][: len(errors)])
    rows = speed.race({"maml": path(errors), "finetune": there}, 2)
    ours, theirs = rows["draws"]
    before = errors[: ours["steps"]] if ours["reached"] else errors
    assert all(error > target for error in before)
    assert ours["reached"] == any(error <= target for error in errors)
    assert ours["reached"] or ours["steps"] == len(errors) - 1
    assert theirs["reached"]
    assert (ours["error_start"], ours["error_end"]) == (errors[0], errors[2])
    steps = [row["step"] for row in rows["curves"] if row["arm"] == "maml"]
    assert steps == [step for step in speed.STEPS if step < len(errors)]


def test_only_finished_steps_count_and_who_never_arrives_took_all_of_them():
    slow, quick = path([2.0] * 5, [0, 10, 20, 30, 40]), path([1.0, 0.6, 0.5, 0.3, 0.2])
    rows = speed.race({"maml": slow, "finetune": quick}, 2)
    never, itself = rows["draws"]
    assert (never["reached"], never["steps"], never["seconds"]) == (False, 4, 40)
    assert (itself["reached"], itself["steps"], itself["seconds_end"]) == (True, 2, 2)
    clock = pd.DataFrame(rows["clock"]).set_index(["arm", "share"])["log_error_ratio"]
    assert clock["finetune", 0.2] == clock["finetune", 0.02] == pytest.approx(np.log(2))
    assert clock["finetune", 0.5] == pytest.approx(np.log(1.2))
    assert clock["finetune", 1.0] == 0
    assert clock["maml", 1.0] == pytest.approx(np.log(4)), "its first step takes ten seconds"


def test_every_number_of_the_pages_is_made_and_finished_parts_are_kept(tmp_path):
    where = Where(store=str(tmp_path))
    record, again = (speed.speed(SPEED, QUESTION, where=where) for _ in range(2))
    assert again.tables == record.tables, "finished parts are not computed again"
    sizes = record.table("sizes").query("kind == 'fixed'")
    fixed = sizes.pivot_table("spearman", "start", "labels")
    # Of five labels and of twenty the same first four are read.
    np.testing.assert_allclose(fixed[5], fixed[20])
    # The pages name properties of the full data.
    named = {name for name in named_on_pages("speed") if "[" not in name}
    absent = {name for name in named if name.endswith(("_fitness", "_solubility", "_stability"))}
    assert named - absent <= set(record.numbers)


def rows(maml=0.5):
    about = {"property": "fitness", "seed": 0, "labels": 10, "reached": True, "seconds_end": 2.0}
    draws = pd.DataFrame(
        {**about, "assay": f"A{assay}", "cluster": assay, "arm": arm, "seconds": seconds,
         "error_start": 1.0, "error_end": 0.5 if arm == "maml" else 1.0}
        for assay in range(6)
        for arm, seconds in (("maml", maml), ("multitask", 2.0), ("finetune", 1.0))
    )  # fmt: skip
    costs = pd.DataFrame([{"arm": arm, "seconds": 10.0} for arm in ("maml", "multitask")])
    embedding = pd.DataFrame([{"seconds_per_variant": 0.01}])
    empty = pd.DataFrame()
    return {"draws": draws, "costs": costs, "embedding": embedding, "sizes": empty}


def test_half_the_time_saves_half_and_is_paid_for_after_twenty_assays():
    expected = {
        "saved_maml_10": 0.5, "saved_of_all_maml_10": 0.75, "saved_of_all_maml_10_fitness": 0.75,
        "break_even_maml_10": 20, "saved_maml_10_over_20": 0.0, "saved_maml_10_over_1": -9.5,
        "gain_maml_10": 0.5, "worse_than_start_10": 0.0, "reached_maml_10": 1,
        "maml_seconds_10": 0.5, "finetune_seconds_10": 1, "finetune_all_seconds_10": 2,
    }  # fmt: skip
    numbers, slower = speed.bill(rows(), [1, 20]), speed.bill(rows(maml=3.0), [1])
    assert {k: numbers[k]["value"] for k in expected} == pytest.approx(expected)
    assert slower["saved_maml_10"]["value"] == pytest.approx(-2.0)
    assert slower["break_even_maml_10"]["value"] is None, "what is slower is never paid for"
    saved = speed.saved(*map(pd.Series, ([1.0, 0.0, 3.0], [2.0, 2.0, 4.0], [0, 0, 1])))
    ends = tuple(saved[end] for end in ("value", "low", "high"))
    assert ends == pytest.approx((0.5, 0.25, 0.75)), "sums, and clusters are resampled"


def test_slopes_are_those_of_seconds_against_labels():
    sizes = pd.DataFrame(
        {"start": start, "kind": kind, "assay": a, "labels": k, "seconds": (1 + a) * k**power}
        for start in ("maml", "finetune")
        for kind, power in (("fixed", 0), ("steps", 0.5), ("epochs", 1))
        for a in range(3)
        for k in (10, 100)
    )
    values = {name: number["value"] for name, number in speed.slopes(sizes).items()}
    told = {"exponent_maml_fixed": 0, "exponent_maml_steps": 0.5, "exponent_maml_epochs": 1}
    told |= {"flat_saving": 0.99, "flat_saving_finetune": 0.99, "fixed_maml_over_finetune": 1}
    assert {name: values[name] for name in told} == pytest.approx(told, abs=1e-9)
