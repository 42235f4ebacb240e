"""The closed-form head against scikit-learn, finite differences and its own limits."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from toy import toy_encoded, toy_predictor

from mutmeta_lib.learn import InnerLoop, meta_gradient
from mutmeta_lib.learn.meta import differentiate
from mutmeta_lib.learn.r2d2 import RidgePredictor, ridge_weights
from mutmeta_lib.models.predictor import predict
from mutmeta_lib.tasks.tasks import Examples, sample_tasks

BASE = toy_predictor()
MODEL = RidgePredictor.of(BASE)
PARAMS = {n: v.double() for n, v in MODEL.init(torch.Generator().manual_seed(0)).items()}
PARAMS["ridge.log_penalty"] += 0.7
PARAMS["ridge.scale"] += 0.3
PARAMS["ridge.offset"] -= 0.2
LOOP = InnerLoop()
TASKS = [
    (task.support, Examples(task.query.assay, task.query.rows, task.query.labels.double()))
    for task in sample_tasks(toy_encoded(2), 2, support=6, query=5, rng=np.random.default_rng(0))
]
BACKENDS = {"torch.func": differentiate(MODEL.update)}


def gradients(params, tasks=TASKS):
    return meta_gradient(MODEL.loss, params, tasks, LOOP, backends=BACKENDS)


def sklearn_ridge(features, labels, penalty):
    return Ridge(alpha=penalty, fit_intercept=False, solver="svd").fit(features, labels)


@given(
    k=st.integers(1, 12),
    d=st.integers(1, 12),
    penalty=st.floats(1e-2, 1e3),
    seed=st.integers(0, 99),
)
@settings(max_examples=60)
def test_weights_are_those_of_scikit_learn(k, d, penalty, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(k, d)), rng.normal(size=k)
    exact = torch.tensor(penalty, dtype=torch.float64)
    ours = ridge_weights(torch.tensor(x), torch.tensor(y), exact)
    np.testing.assert_allclose(ours, sklearn_ridge(x, y, penalty).coef_, rtol=1e-7, atol=1e-9)


def test_predictions_are_those_of_scikit_learn_on_the_pooled_encoder():
    support, query = TASKS[0]
    adapted = MODEL.update(MODEL.loss, PARAMS, support, LOOP)

    def features(examples):
        pooled = BASE.pooled(PARAMS, examples.tokens).numpy()
        return np.hstack([pooled, np.ones((len(pooled), 1))])

    ridge = sklearn_ridge(features(support), support.labels.numpy(), np.exp(0.7))
    expected = 1.3 * ridge.predict(features(query)) - 0.2
    np.testing.assert_allclose(predict(MODEL, adapted, query.tokens), expected, rtol=1e-8)


def test_only_the_weight_is_adapted():
    adapted = MODEL.update(MODEL.loss, PARAMS, TASKS[0][0], LOOP)
    assert list(adapted) == list(PARAMS)
    assert [n for n in PARAMS if not torch.equal(adapted[n], PARAMS[n])] == ["ridge.weight"]
    assert adapted["ridge.weight"].shape == PARAMS["ridge.weight"].shape == (17,)


def test_every_learned_part_has_a_gradient_equal_to_finite_differences():
    _, gradient, _ = gradients(PARAMS)
    generator = torch.Generator().manual_seed(1)
    for name, value in PARAMS.items():
        direction = torch.randn(value.shape, generator=generator, dtype=value.dtype)
        up, down = (
            gradients({**PARAMS, name: value + step * direction})[0].item()
            for step in (1e-5, -1e-5)
        )
        exact = (gradient[name] * direction).sum().item()
        assert exact == pytest.approx((up - down) / 2e-5, rel=1e-5, abs=1e-9), name
        # The start's own weight is replaced by every task.
        assert (abs(exact) > 1e-12) == (name != "ridge.weight"), name


def test_a_large_penalty_predicts_the_offset_and_a_small_one_fits_the_support():
    support, _ = TASKS[0]
    labels = support.labels.double()

    def fitted(log_penalty):
        start = PARAMS | {
            "ridge.log_penalty": torch.tensor(log_penalty, dtype=torch.float64),
            "ridge.scale": torch.tensor(1.0, dtype=torch.float64),
        }
        return predict(MODEL, MODEL.update(MODEL.loss, start, support, LOOP), support.tokens)

    torch.testing.assert_close(fitted(40.0), torch.full_like(labels, -0.2), rtol=0, atol=1e-10)
    torch.testing.assert_close(fitted(-18.0), labels - 0.2, rtol=0, atol=1e-4)


def test_the_order_of_the_support_changes_nothing():
    support, _ = TASKS[0]
    turned = support.take(np.arange(len(support))[::-1].copy())
    one, other = (MODEL.update(MODEL.loss, PARAMS, s, LOOP) for s in (support, turned))
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_without_labels_the_offset_is_predicted():
    support, query = TASKS[0]
    none = support.take(np.array([], dtype=int))
    adapted = MODEL.update(MODEL.loss, PARAMS, none, LOOP)
    assert torch.equal(
        predict(MODEL, adapted, query.tokens), torch.full((len(query),), -0.2, dtype=torch.float64)
    )


def test_the_start_is_the_given_encoder_and_no_random_number():
    base = BASE.init(torch.Generator().manual_seed(0))
    start = MODEL.prepare(base)
    assert all(start[name] is base[name] for name in base if name.startswith("encoder."))
    assert not [name for name in start if name.startswith("head.")]
    torch.testing.assert_close(start, MODEL.init(torch.Generator().manual_seed(5)))
