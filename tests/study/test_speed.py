"""Seconds to a given accuracy, from end to end on a little of the bundled data."""

import numpy as np
import pytest

from mutmeta_lib.app.experiments import speed_experiment
from mutmeta_lib.study.trajectories import Trajectory, arrivals

SMALL = dict(
    per_protein=1,
    labels=(5, 10),
    horizon=3,
    n_folds=3,
    folds=(0,),
    seeds=1,
    meta_steps=2,
    tasks_per_step=2,
    support=4,
    query=4,
    inner_steps=1,
    tuning_tasks=2,
    max_query=20,
    profile="quick",
)


@pytest.fixture(scope="module")
def record():
    return speed_experiment(**SMALL, size_ids=("GB1_NISTHAL2019_on_WT",), sizes=(5, 20), epochs=1)


def path(errors, seconds=None):
    seconds = np.arange(len(errors), dtype=float) if seconds is None else np.array(seconds)
    return Trajectory(seconds, np.array(errors), np.zeros(len(errors)))


def test_the_target_is_fine_tuning_s_last_error_for_fine_tuning_too():
    paths = {
        "maml": path([0.6, 0.4, 0.4, 0.4, 0.4]),
        "multitask": path([2.0, 2.0, 2.0, 2.0, 2.0]),
        "finetune": path([1.0, 0.5, 0.5, 0.3, 0.2]),
    }
    rows = {row["arm"]: row for row in arrivals(paths, 2, {})}
    assert (rows["maml"]["steps"], rows["maml"]["reached"]) == (1, True)
    assert (rows["multitask"]["steps"], rows["multitask"]["reached"]) == (4, False)
    assert (rows["finetune"]["steps"], rows["finetune"]["seconds_end"]) == (1, 2.0)


def test_every_part_of_the_bill_is_there(record):
    numbers = record.numbers
    for arm in ("maml", "multitask"):
        assert numbers[f"meta_training_{arm}"]["value"] > 0
        for k in (5, 10):
            free = numbers[f"saved_{arm}_{k}"]["value"]
            billed = numbers[f"saved_{arm}_{k}_over_1"]["value"]
            assert free is None or billed < free
    assert numbers["embedding_seconds_per_variant"]["value"] > 0
    assert record.seconds["meta_training"] > 0


def test_fine_tuning_reaches_its_own_end(record):
    draws = record.table("draws")
    own = draws[draws["arm"] == "finetune"]
    assert own["reached"].all()
    assert (own["steps"] <= 3).all()
    assert (draws.groupby(["assay", "labels"]).size() == 3).all()


def test_equal_steps_are_at_the_same_place_for_fine_tuning_in_both_figures(record):
    steps, clock = record.table("steps"), record.table("clock")
    end = clock[(clock["share"] == 1) & (clock["method"] == "finetune")]
    errors = end[end["metric"] == "log_error_ratio"]["mean"]
    np.testing.assert_allclose(errors, 0, atol=1e-5)
    assert set(steps["step"]) == {0, 1, 2, 5}


def test_sizes_are_timed_for_every_start_and_way_of_reading(record):
    sizes = record.table("sizes")
    assert (sizes.groupby(["start", "kind", "labels"]).size() == 1).all()
    assert (sizes["seconds"] > 0).all()
    fixed = sizes[sizes["kind"] == "fixed"].pivot_table(
        index="start", columns="labels", values="spearman"
    )
    # With more labels at hand, the arm of fixed labels gives the very same answer as at its own.
    assert fixed.notna().all().all()
    assert "exponent_maml_fixed" in record.numbers


def test_finished_parts_are_not_computed_again(record, tmp_path):
    one = speed_experiment(**SMALL, checkpoint_dir=str(tmp_path))
    two = speed_experiment(**SMALL, checkpoint_dir=str(tmp_path))
    assert one.tables == two.tables
    assert one.numbers == two.numbers
