import numpy as np
from toy import WORTH, toy_encoded

from mutmeta_lib.learn.tuning import choose_rate

ASSAYS = toy_encoded(3)


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


def choose(candidates):
    return choose_rate(Oracle, candidates, ASSAYS, shots=[5], seed=0, max_query=30, max_assays=2)


def test_the_best_candidate_wins_wherever_it_stands():
    for grid in ([("sgd", 10.0), ("sgd", 0.0)], [("adam", 0.0), ("sgd", 10.0), ("sgd", 1.0)]):
        choice, rows = choose(grid)
        assert choice[1] == 0.0
        assert [row["lr"] for row in rows] == [lr for _, lr in grid]
        assert max(row["validation_spearman"] for row in rows) > 0.8


def test_equal_candidates_keep_their_order():
    choice, _ = choose([("sgd", 0.0), ("adam", 0.0)])
    assert choice == ("sgd", 0.0)
