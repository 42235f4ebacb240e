"""Rounds of picking: what is found is counted right, and nothing is seen before it is picked."""

from dataclasses import replace

import numpy as np
import pytest

from mutmeta_lib.data.folders import read_data_dir
from mutmeta_lib.ranking.rounds import (
    MARGINS,
    METRICS,
    STRATEGIES,
    _drawn,
    play,
    play_overruling,
    play_rounds,
)
from mutmeta_lib.study.benchmark import BASE, SHIPPED
from mutmeta_lib.study.study import Read
from mutmeta_lib.tasks.tasks import EncodedAssay

SIZE = {"rounds": 4, "batch": 10}


class Knowing:
    """Predicts a multiple of the scores, and keeps what it was asked with."""

    def __init__(self, sign=1):
        self.sign, self.supports = sign, []

    def adapt(self, support, generator):
        self.supports.append(set(support.rows.tolist()))

    def predict(self, state, query):
        assert np.isnan(query.labels.numpy()).all(), "it sees labels of what is not measured"
        return self.sign * query.scores

    def deviation(self, state, query):
        return np.zeros(len(query))


@pytest.fixture(scope="module")
def assay():
    return EncodedAssay(read_data_dir(ids=["GB1_NISTHAL2019_on_WT"])[0], "", None)


def game(assay, strategy, method, candidates, seed=0, **size):
    methods = dict.fromkeys(set(STRATEGIES.values()), method)
    rng = np.random.default_rng(seed)
    return play(assay, methods, strategy, candidates, rng, **SIZE | size)


def test_who_knows_the_scores_finds_the_best_at_once_and_who_turns_them_round_finds_none(assay):
    candidates = np.arange(800)
    told = game(assay, "greedy", Knowing(), candidates)
    assert [row["hits"] for row in told] == [1.0] * 4  # 40 are good
    assert [row["regret"] for row in told] == [0.0] * 4
    wrong = game(assay, "greedy", Knowing(-1), candidates)
    assert wrong[-1]["hits"] == 0
    assert wrong[-1]["regret"] > 1


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_labels_are_those_of_earlier_picks_each_picked_once(assay, strategy):
    method, candidates = Knowing(), np.arange(5, 45)
    rows = game(assay, strategy, method, candidates)
    assert [row["round"] for row in rows] == [1, 2, 3, 4]
    # After four tens of forty all are picked: two of them are the best 5 %, and the best is found.
    assert rows[-1]["hits"] == pytest.approx(2 / 40)
    assert rows[-1]["regret"] == 0
    for fewer, more in zip(method.supports, method.supports[1:], strict=False):
        assert fewer < more <= set(candidates.tolist())
        assert len(more) == len(fewer) + 10


def test_suggest_takes_no_place_twice_where_greedy_does(assay):
    scores = np.zeros(len(assay))
    places = np.array([variant[0].position for variant in assay.assay.variants])
    scores[places == places[0]] = 1.0
    one = replace(assay, assay=replace(assay.assay, scores=scores))
    own, others = np.flatnonzero(scores), np.flatnonzero(scores == 0)
    candidates = np.concatenate([own, others[:200]])
    greedy, suggest = (game(one, name, Knowing(), candidates)[0] for name in ("greedy", "suggest"))
    assert greedy["hits"] == 1
    assert suggest["hits"] == pytest.approx(0.1)


def test_the_assays_played_are_of_different_clusters_and_do_not_depend_on_their_order(assay):
    three = [replace(assay, assay=replace(assay.assay, id=name)) for name in "abc"]
    clusters = {assay.assay.wild_type: 0}
    (one,) = _drawn(three, clusters, 3, 100)
    assert _drawn(three[::-1], clusters, 3, 100)[0] is one
    assert _drawn(three, clusters, 3, 10_000) == []


def test_a_record_of_rounds_has_every_strategy_and_is_the_same_again():
    small = {"n_folds": 3, "seeds": 2, "members": 2, "meta_steps": 4, "cap": 200}
    read = (Read("none", "no_encoder"),)
    study = replace(SHIPPED, reads=read, methods=("ranker",), shots=(), **small)
    made = [play_rounds(study, n_assays=3, rounds=2, batch=5) for _ in range(2)]
    means = made[0].table("means")
    assert set(means["method"]) == set(STRATEGIES)
    assert set(means["metric"]) == set(METRICS)
    assert (means["n_units"] == 3).all()
    assert len(means) == len(STRATEGIES) * 2 * 2
    assert means.equals(made[1].table("means"))
    first = made[0].table("picks").query("round == 1").set_index(["assay", "method"])
    # Both begin with the score that other proteins taught: without labels all is equally unsure.
    greedy, zero = (first.xs(name, level="method")[["hits"]] for name in ("greedy", "zero_label"))
    assert greedy.equals(zero)


def test_who_is_overruled_more_seldom_gains_and_loses_less_and_a_control_is_no_rule_s_worst():
    small = {"n_folds": 3, "share": 0.5, "members": 1, "meta_steps": 4, "cap": 150}
    read = (Read("none", "no_encoder"),)
    study = replace(BASE, reads=read, methods=("ranker",), shots=(), **small)
    record = play_overruling(study, labels=(10, 20), draws=1, most=60)
    rules = record.table("rules").set_index(["metric", "shots", "rule"])["mean"].sort_index()
    for shots in (10, 20):
        often = [rules["overruled", shots, f"ahead by {margin}"] for margin in MARGINS]
        assert often == sorted(often, reverse=True)
        assert 0 < often[0] < 1
        gains = rules["gain", shots]
        always = [gains[name] for name in gains.index if name.startswith("always")]
        assert min(always) < gains[f"ahead by {MARGINS[0]}"]
        assert all(
            gains[f"ahead by {m}"] == 0 for m, n in zip(MARGINS, often, strict=True) if not n
        )
