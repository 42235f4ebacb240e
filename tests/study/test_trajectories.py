"""Adaptation step by step."""

import numpy as np
import pytest
from toy import toy_assay, toy_predictor

from mutmeta_lib.data.splits import Split
from mutmeta_lib.learn.training import MetaTraining
from mutmeta_lib.models.predictor import predict
from mutmeta_lib.study.frozen_heads import freeze_assays, learn_start
from mutmeta_lib.study.trajectories import Trajectory, follow
from mutmeta_lib.tasks.metrics import mse
from mutmeta_lib.tasks.tasks import draw_task, task_generator

PATH = Trajectory(
    np.array([0.0, 1.0, 2.0, 3.0]), np.array([1.0, 0.8, 0.5, 0.6]), np.array([0.0, 0.1, 0.3, 0.2])
)


@pytest.mark.parametrize(
    ("error", "by", "step"),
    [(1.0, None, 0), (0.8, None, 1), (0.55, None, 2), (0.1, None, None), (0.55, 1, None)],
)
def test_a_target_is_reached_at_the_first_step_that_is_as_good(error, by, step):
    assert PATH.reaches(error, by) == step


@pytest.mark.parametrize(("seconds", "step"), [(0.0, 0), (0.9, 0), (1.0, 1), (2.5, 2), (99.0, 3)])
def test_only_finished_steps_count(seconds, step):
    assert PATH.at_seconds(seconds) == step


def test_what_is_followed_is_the_query_set():
    frozen = freeze_assays(
        toy_predictor().encoder, [toy_assay(0)], encoding="separator", pooling="sites"
    )
    task = draw_task(frozen.assays["TOY0"], 8, task_generator(0, "TOY0"), pool=8)
    start, _ = learn_start(frozen, Split((), (), ()), MetaTraining(), "finetune", 0)
    path = follow(frozen.predictor, start, task, ("sgd", 0.05), 4)
    assert len(path.seconds) == len(path.errors) == len(path.ranks) == 5
    first = predict(frozen.predictor, start, task.query.tokens).numpy()
    assert path.errors[0] == pytest.approx(mse(first, task.query.labels.numpy()), rel=1e-5)
    with np.errstate(all="ignore"):
        lost = follow(frozen.predictor, start, task, ("sgd", 1e30), 4)
    assert np.isinf(lost.errors[-1])
    assert lost.reaches(0.0) is None
    assert lost.ranks[-1] == 0
