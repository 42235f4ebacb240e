"""Rates are chosen by their own criterion, on the tasks that were given."""

import numpy as np
import pytest
from toy import WORTH, toy_encoded

from mutmeta_lib.errors import DataError
from mutmeta_lib.learn.tuning import best_rate, grid_scores
from mutmeta_lib.tasks.tasks import draw_task, task_generator

TASKS = [draw_task(a, 5, task_generator(0, a.assay.id), pool=5) for a in toy_encoded(3)]


class Oracle:
    """Predicts the truth plus noise that grows with the "rate"."""

    name = "oracle"

    def __init__(self, rate):
        self.noise = rate[1]

    def adapt(self, support, generator):
        return None

    def predict(self, state, query):
        truth = np.array([WORTH[variant[0].mutant] for variant in query.variants])
        return truth + self.noise * np.random.default_rng(0).normal(size=len(truth))


def test_the_best_candidate_wins_wherever_it_stands_and_the_first_of_equals():
    for grid in ([("sgd", 10.0), ("sgd", 0.0)], [("adam", 0.0), ("sgd", 10.0), ("sgd", 1.0)]):
        rows = grid_scores(Oracle, TASKS, grid)
        assert [row["lr"] for row in rows] == [lr for _, lr in grid]
        assert best_rate(rows, "spearman")[1] == best_rate(rows, "error")[1] == 0.0
    equal = grid_scores(Oracle, TASKS, [("sgd", 0.0), ("adam", 0.0)])
    assert best_rate(equal) == ("sgd", 0.0)


def test_rates_are_chosen_by_their_own_criterion():
    rows = [
        {"optimiser": "sgd", "lr": 0.1, "spearman": 0.5, "error": 3.0},
        {"optimiser": "adam", "lr": 0.2, "spearman": 0.4, "error": 1.0},
        {"optimiser": "adam", "lr": 0.3, "spearman": 0.5, "error": 1.0},
    ]
    assert best_rate(rows, "spearman") == ("sgd", 0.1)
    assert best_rate(rows, "error") == ("adam", 0.2)


def test_nothing_to_choose_on_is_refused():
    with pytest.raises(DataError, match="no meta-validation assay is large enough"):
        grid_scores(Oracle, [])
