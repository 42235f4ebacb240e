"""Slopes and offsets at zero and one label."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_labels import encoded_population
from toy import toy_encoded, toy_predictor

from mutmeta_lib.errors import DataError
from mutmeta_lib.learn import InnerLoop
from mutmeta_lib.learn.calibration import MIN_SLOPE, Affine, Calibrated, calibrate, fit_affine
from mutmeta_lib.learn.methods import GradientMethod
from mutmeta_lib.learn.train import MetaTraining, meta_train
from mutmeta_lib.study.evaluate import evaluate
from mutmeta_lib.tasks.labels import learn_label_priors
from mutmeta_lib.tasks.tasks import Examples

TRAIN, TEST = encoded_population()
PRIORS = learn_label_priors([assay.assay for assay in TRAIN])


@dataclass(frozen=True)
class Overconfident:
    """The truth on the wrong scale: what it should say, times 7, plus 3 (and it never reads it)."""

    name: str = "overconfident"
    sign: float = 1.0

    def adapt(self, support, generator):
        return len(support)

    def predict(self, state, query):
        scores = query.assay.assay.scores
        standard = (scores - scores.mean()) / scores.std()
        return 7 * self.sign * standard[query.rows] + 3


def table(method, **more):
    return evaluate({"m": method}, TEST, shots=[0, 1, 4], seeds=[0], priors=PRIORS, **more)


def test_errors_shrink_and_ranks_stay():
    made = calibrate(Overconfident(), TRAIN, PRIORS)
    before, after = table(Overconfident()), table(made)
    few = before["shots"] < 2
    assert after.loc[few, "relative_mse"].mean() < 0.2 * before.loc[few, "relative_mse"].mean()
    assert after[["spearman", "ndcg"]].equals(before[["spearman", "ndcg"]])
    assert after.loc[~few, "mse"].equals(before.loc[~few, "mse"])
    assert set(made.maps) == {0, 1}
    assert made.maps[0].slope == pytest.approx(1 / 7, rel=0.3)


def test_the_order_is_kept_where_predictions_are_upside_down():
    made = calibrate(Overconfident(sign=-1.0), TRAIN, PRIORS)
    assert made.maps[0].slope == MIN_SLOPE
    assert table(made)["spearman"].lt(0).all()


def test_it_is_a_function_of_its_seed():
    one, same, other = (calibrate(Overconfident(), TRAIN, PRIORS, seed=s).maps for s in (0, 0, 1))
    assert one == same != other


@given(
    slope=st.floats(0.01, 50),
    offset=st.floats(-50, 50),
    seed=st.integers(0, 99),
)
@settings(max_examples=40)
def test_least_squares_recovers_a_line(slope, offset, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=9)
    found = fit_affine(x, slope * x + offset, rng.uniform(0.1, 1, size=9))
    assert found == pytest.approx((slope, offset), rel=1e-6, abs=1e-6)


def test_constant_predictions_become_the_mean_label():
    found = fit_affine(np.full(4, 2.0), np.array([1.0, 2.0, 3.0, 6.0]), np.ones(4))
    assert found == Affine(1.0, 1.0)


def test_other_numbers_of_labels_are_left_alone():
    made = Calibrated("m", Overconfident(), {0: Affine(2.0, 1.0)})
    examples = Examples(TEST[0], np.arange(5), torch.zeros(5))
    raw = Overconfident().predict(1, examples)
    np.testing.assert_allclose(made.predict((0, 0), examples), 2 * raw + 1)
    np.testing.assert_array_equal(made.predict((1, 1), examples), raw)


def test_without_a_prior_there_is_nothing_to_calibrate_on():
    with pytest.raises(DataError, match="no assay to calibrate on has a label prior"):
        calibrate(Overconfident(), toy_encoded(2), PRIORS)


def test_a_meta_learned_start_predicts_on_a_sensible_scale():
    """Before adaptation MAML's start is off by a factor that other assays of the unit reveal."""
    predictor = toy_predictor()
    rng = np.random.default_rng(1)
    assays = [
        replace(
            one,
            assay=replace(one.assay, scores=40 + rng.normal() + 5 * one.assay.scores, units="u"),
        )
        for one in toy_encoded(14)
    ]
    train, validation, test = assays[:6], assays[6:10], assays[10:]
    start = predictor.init(torch.Generator().manual_seed(0))
    inner = InnerLoop(0.3, 3, first_order=True)
    settings = MetaTraining(
        steps=15, tasks_per_step=2, support=5, query=10, inner=inner, meta_lr=0.01
    )
    run = meta_train(predictor, start, train, settings, seed=0)
    method = GradientMethod("maml", predictor, run.params, ("sgd", 0.1), 3)
    priors = learn_label_priors([one.assay for one in train])
    made = calibrate(method, validation, priors)
    options = {"shots": [0, 1], "seeds": [0, 1], "priors": priors, "max_query": 40}
    found = evaluate({"maml": method, "calibrated": made}, test, **options)
    means = found.pivot_table(index="method", columns="shots", values="relative_mse")
    assert (means.loc["calibrated"] < means.loc["maml"]).all()
