"""What experiments share: the outer loop by parameters, and what finished parts depend on."""

import pytest

from mutmeta_lib.learn import InnerLoop
from mutmeta_lib.learn.training import MetaTraining
from mutmeta_lib.study.setting import finished_parts, outer_loop

ASKED = {
    "meta_steps": 7,
    "tasks_per_step": 3,
    "support": 5,
    "query": 6,
    "inner_lr": 0.02,
    "inner_steps": 4,
    "meta_lr": 5e-4,
}
CHECKS = {"validate_every": 2, "validation_tasks": 9}
MADE = MetaTraining(
    steps=7,
    tasks_per_step=3,
    support=5,
    query=6,
    inner=InnerLoop(0.02, 4),
    meta_lr=5e-4,
    **CHECKS,
)


def test_the_outer_loop_is_the_one_asked_for():
    assert outer_loop({**ASKED, "encoder": "tiny"}, **CHECKS) == MADE
    made = outer_loop({**ASKED, "first_order": True, "backend": "vmap"}, **CHECKS)
    assert made.inner == InnerLoop(0.02, 4, first_order=True)
    assert made.backend == "vmap"


@pytest.mark.parametrize(
    "changed",
    [
        {"parameters": {"seeds": 2}},
        {"data": {"A": "2"}},
        {"encoder_sha256": "f"},
        {"fold": 1},
    ],
)
def test_a_finished_part_answers_one_question(tmp_path, changed):
    asked = {"parameters": {"seeds": 1}, "data": {"A": "1"}, "encoder_sha256": "e", "fold": 0}
    assert finished_parts(tmp_path, **asked).get("part", lambda: 1) == 1
    assert finished_parts(str(tmp_path), **asked).get("part", lambda: 2) == 1
    with pytest.warns(UserWarning, match="other parameters"):
        assert finished_parts(tmp_path, **asked | changed).get("part", lambda: 3) == 3


def test_without_a_folder_nothing_is_kept():
    pieces = finished_parts(None, {}, {}, "e")
    assert [pieces.get("part", lambda value=value: value) for value in (1, 2)] == [1, 2]
