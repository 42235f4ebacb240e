"""Seconds to a given accuracy: followed adaptations, savings, bills and slopes."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from release_copy import named_on_pages
from toy import toy_encoded, toy_predictor

from mutmeta_lib.learn.inner import InnerLoop, finetune, inner_update
from mutmeta_lib.reproduction.speed import (
    STEPS,
    Question,
    bill,
    follow,
    race,
    rapid,
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
    return pd.DataFrame({"seconds": seconds, "error": errors, "spearman": 0.0}, dtype=float)


@pytest.mark.parametrize("rate", [("adam", 1e-2), ("sgd", 0.05)])
def test_what_is_followed_is_fine_tuning_seen_on_the_query_set(rate):
    (optimiser, lr), found = rate, follow(PREDICTOR, START, TASK, rate, 4)
    if optimiser == "adam":
        tuned = finetune(PREDICTOR.loss, START, [TASK.support] * 4, lr=lr)
    else:
        tuned = inner_update(PREDICTOR.loss, START, TASK.support, InnerLoop(lr, 4))
    for step, params in ((0, START), (4, tuned)):
        predicted = PREDICTOR(params, TASK.query.tokens).detach().numpy()
        error = mse(predicted, TASK.query.labels.numpy())
        assert found["error"][step] == pytest.approx(error, rel=1e-4)
        assert found["spearman"][step] == pytest.approx(spearman(predicted, TASK.query.scores))
    assert len(found) == 5
    assert found["seconds"][0] == 0
    assert found["seconds"].is_monotonic_increasing


def test_what_diverges_has_an_infinite_error_and_no_rank():
    last = follow(PREDICTOR, START, TASK, ("sgd", 1e20), 3).iloc[-1]
    assert (np.isinf(last["error"]), last["spearman"]) == (True, 0)


@given(st.lists(st.floats(0, 10), min_size=3, max_size=9), st.data())
def test_a_target_is_reached_at_the_first_step_that_is_as_good(errors, data):
    target = data.draw(st.floats(0, 10))
    there = path([5.0, 5.0, target, *[9.0] * 6][: len(errors)])
    rows = race({"maml": path(errors), "finetune": there}, 2)
    ours, theirs = rows["draws"]
    before = errors if not ours["reached"] else errors[: ours["steps"]]
    assert all(error > target for error in before)
    assert (
        ours["steps"] == len(errors) - 1 if not ours["reached"] else errors[ours["steps"]] <= target
    )
    assert theirs["reached"]
    assert (ours["error_start"], ours["error_end"]) == (errors[0], errors[2])
    assert [row["step"] for row in rows["curves"] if row["arm"] == "maml"] == [
        step for step in STEPS if step < len(errors)
    ]


def test_only_finished_steps_count_and_who_never_arrives_took_all_of_them():
    slow, quick = path([2.0] * 5, [0, 10, 20, 30, 40]), path([1.0, 0.6, 0.5, 0.3, 0.2])
    rows = race({"maml": slow, "finetune": quick}, 2)
    never, itself = rows["draws"]
    assert (never["reached"], never["steps"], never["seconds"]) == (False, 4, 40)
    assert (itself["reached"], itself["steps"], itself["seconds_end"]) == (True, 2, 2)
    clock = pd.DataFrame(rows["clock"]).set_index(["arm", "share"])["log_error_ratio"]
    assert clock["finetune", 0.2] == clock["finetune", 0.02] == pytest.approx(np.log(2))
    assert clock["finetune", 0.5] == pytest.approx(np.log(1.2))
    assert clock["finetune", 1.0] == 0
    assert clock["maml", 1.0] == pytest.approx(np.log(4)), "its first step takes ten seconds"


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    where = Where(store=str(tmp_path_factory.mktemp("kept")))
    first = speed(STUDY, QUESTION, where=where)
    again = speed(STUDY, QUESTION, where=where)
    assert again.tables == first.tables, "finished parts are not computed again"
    assert again.numbers == first.numbers
    return first


def test_every_part_of_the_bill_is_there(record):
    values = {name: number["value"] for name, number in record.numbers.items()}
    for arm in ("maml", "multitask"):
        assert values[f"meta_training_{arm}"] > 0
        for k in (5, 10):
            free, billed = values[f"saved_{arm}_{k}"], values[f"saved_{arm}_{k}_over_1"]
            assert free is None or billed < free
    assert values["embedding_seconds_per_variant"] > 0
    draws = record.table("draws")
    own = draws[draws["arm"] == "finetune"]
    assert own["reached"].all()
    assert (own["steps"] <= 3).all()
    assert (draws.groupby(["assay", "labels"]).size() == 3).all()
    assert set(record.table("steps")["step"]) == {0, 1, 2, 5}
    sizes = record.table("sizes")
    assert (sizes.groupby(["start", "kind", "labels"]).size() == 1).all()
    fixed = sizes.query("kind == 'fixed'").pivot_table("spearman", "start", "labels")
    # Of five labels and of twenty the same first four are read.
    np.testing.assert_allclose(fixed[5], fixed[20])
    # The quick bill is of other labels than the pages', which name properties of the full data.
    named = {
        name for name in named_on_pages("speed") if not name.endswith(("_fitness", "_solubility"))
    }
    assert named - set(values) == set()


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
    expected = {
        "saved_maml_10": 0.5,
        "saved_of_all_maml_10": 0.75,
        "saved_of_all_maml_10_fitness": 0.75,
        "break_even_maml_10": 20,
        "saved_maml_10_over_20": 0.0,
        "saved_maml_10_over_1": -9.5,
        "gain_maml_10": 0.5,
        "worse_than_start_10": 0.0,
        "reached_maml_10": 1,
        "maml_seconds_10": 0.5,
        "finetune_seconds_10": 1,
        "finetune_all_seconds_10": 2,
    }
    numbers, slower = bill(rows(), [1, 20]), bill(rows(maml=3.0), [1])
    assert {k: numbers[k]["value"] for k in expected} == pytest.approx(expected)
    assert slower["saved_maml_10"]["value"] == pytest.approx(-2.0)
    assert slower["break_even_maml_10"]["value"] is None, "what is slower is never paid for"


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
    assert made["flat_saving_finetune"]["value"] == pytest.approx(0.99)
    assert made["fixed_maml_over_finetune"]["value"] == pytest.approx(1)


def test_what_the_first_step_gains_is_over_no_step_and_its_share_of_ten():
    about = {"arm": "maml", "cluster": 0, "seed": 0}
    after = ((0.1, 0.2, 0.4), (0.3, 0.4, 0.6))
    names = ("after_0", "after_1", "after_10")
    made = rapid(pd.DataFrame(
        {**about, "assay": f"A{i}", **dict(zip(names, ranks, strict=True))}
        for i, ranks in enumerate(after)
    ))  # fmt: skip
    assert made["rapid_maml_first_step"]["value"] == pytest.approx(0.1)
    assert made["rapid_maml_share"]["value"] == pytest.approx(0.6)
