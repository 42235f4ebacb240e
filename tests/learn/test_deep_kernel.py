"""The Gaussian-process head against scikit-learn, R2-D2, finite differences and its own limits."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, WhiteKernel
from torch.func import vmap
from toy import toy_encoded, toy_predictor

from mutmeta_lib.learn import InnerLoop, meta_gradient
from mutmeta_lib.learn.algorithms import ALGORITHMS
from mutmeta_lib.learn.deep_kernel import DeepKernelPredictor, factor, kernel
from mutmeta_lib.learn.r2d2 import ridge_weights
from mutmeta_lib.models.predictor import predict
from mutmeta_lib.tasks.tasks import Examples, sample_tasks

BASE = toy_predictor()
ALGORITHM = ALGORITHMS["deepkernel"](BASE)
MODEL = ALGORITHM.model
VALUES = {"mean": 0.3, "log_linear": -0.4, "log_rbf": 0.5, "log_length": -0.2, "log_noise": -1.5}
PARAMS = {n: v.double() for n, v in MODEL.init(torch.Generator().manual_seed(0)).items()} | {
    f"kernel.{name}": torch.tensor(value, dtype=torch.float64) for name, value in VALUES.items()
}
LOOP = InnerLoop()
TASKS = sample_tasks(toy_encoded(2), 2, support=6, query=5, rng=np.random.default_rng(0))


def head(**values):
    """A head alone, with other values than the start."""
    return {
        f"kernel.{name}": torch.tensor(value, dtype=torch.float64)
        for name, value in (VALUES | values).items()
    }


def random_data(k, d, seed):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(k, d)), rng.normal(size=k)


def sklearn_process(x, y, values):
    """The same kernel, which scikit-learn keeps as it is given."""
    linear, bend, noise = (
        np.exp(values[f"kernel.log_{name}"].item()) for name in ("linear", "rbf", "noise")
    )
    length = np.exp(values["kernel.log_length"].item()) * x.shape[1] ** 0.5
    covariance = (
        ConstantKernel(linear / x.shape[1]) * DotProduct(1e-8)
        + ConstantKernel(bend) * RBF(length)
        + WhiteKernel(noise)
    )
    model = GaussianProcessRegressor(covariance, alpha=0, optimizer=None)
    return model.fit(x, y - values["kernel.mean"].item())


values = st.fixed_dictionaries(
    {
        "log_linear": st.floats(-3, 2),
        "log_rbf": st.floats(-3, 2),
        "log_length": st.floats(-1, 2),
        "log_noise": st.floats(-4, 1),
        "mean": st.floats(-2, 2),
    }
)


@given(k=st.integers(1, 12), d=st.integers(1, 10), seed=st.integers(0, 99), values=values)
@settings(max_examples=40)
def test_covariances_are_those_of_scikit_learn(k, d, seed, values):
    x, y = random_data(k, d, seed)
    params = head(**values)
    theirs = sklearn_process(x, y, params)
    inputs = torch.tensor(x)
    lower = factor(params, inputs)
    np.testing.assert_allclose(lower @ lower.T, theirs.kernel_(x), rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(lower, theirs.L_, rtol=1e-6, atol=1e-9)


def features(examples):
    return BASE.pooled(PARAMS, examples.tokens).numpy()


@pytest.mark.parametrize("task", TASKS)
def test_posterior_and_likelihood_are_those_of_scikit_learn(task):
    adapted = MODEL.update(MODEL.loss, PARAMS, task.support, LOOP)
    labels = task.support.labels.double().numpy()
    theirs = sklearn_process(features(task.support), labels, PARAMS)
    mean, spread = theirs.predict(features(task.query), return_std=True)
    found = predict(MODEL, adapted, task.query.tokens)
    np.testing.assert_allclose(found, mean + VALUES["mean"], rtol=1e-8)
    noise = np.exp(VALUES["log_noise"])
    variance = MODEL.variance(adapted, task.query.tokens)
    np.testing.assert_allclose(variance + noise, spread**2, rtol=1e-8)
    surprise = MODEL.surprise(PARAMS, task.support).item()
    expected = -theirs.log_marginal_likelihood_value_ / len(labels)
    assert surprise == pytest.approx(expected, rel=1e-9)


def test_without_the_bend_it_is_ridge_regression():
    """The linear kernel's posterior mean is R2-D2's head, with the noise as its penalty."""
    x, y = (torch.tensor(a) for a in random_data(7, 4, 0))
    new = torch.tensor(random_data(9, 4, 1)[0])
    params = head(log_rbf=-80.0, log_linear=0.3, log_noise=-0.7, mean=0.0)
    weights = torch.cholesky_solve(y[:, None], factor(params, x))[:, 0]
    penalty = torch.tensor(4 * np.exp(-0.7 - 0.3), dtype=torch.float64)
    expected = new @ ridge_weights(x, y, penalty)
    torch.testing.assert_close(kernel(params, new, x) @ weights, expected)


def gradients(params):
    pairs = [ALGORITHM.batches(task) for task in TASKS]
    return meta_gradient(MODEL.loss, params, pairs, LOOP, backends=ALGORITHM.backends)


def differences(value, params, gradient):
    generator = torch.Generator().manual_seed(1)
    for name, tensor in params.items():
        direction = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
        up, down = (
            value({**params, name: tensor + step * direction}).item() for step in (1e-5, -1e-5)
        )
        yield name, (gradient[name] * direction).sum().item(), (up - down) / 2e-5


def test_the_gradient_of_the_likelihood_equals_finite_differences():
    value, gradient, _ = gradients(PARAMS)
    surprises = [MODEL.surprise(PARAMS, ALGORITHM.batches(task)[1]) for task in TASKS]
    torch.testing.assert_close(value, sum(surprises) / 2)
    for name, exact, slope in differences(lambda p: gradients(p)[0], PARAMS, gradient):
        assert exact == pytest.approx(slope, rel=1e-5, abs=1e-9), name
        assert abs(exact) > 1e-12, name


def test_the_gradient_through_the_posterior_equals_finite_differences():
    task = TASKS[0]

    def query_loss(params):
        adapted = MODEL.update(MODEL.loss, params, task.support, LOOP)
        variance = MODEL.variance(adapted, task.query.tokens)
        return MODEL.loss(adapted, task.query) + variance.mean()

    gradient = torch.func.grad(query_loss)(PARAMS)
    for name, exact, slope in differences(query_loss, PARAMS, gradient):
        assert exact == pytest.approx(slope, rel=1e-5, abs=1e-9), name


def test_without_labels_the_prior_is_predicted():
    support, query = TASKS[0].support, TASKS[0].query
    start = MODEL.update(MODEL.loss, PARAMS, support.take(np.array([], dtype=int)), LOOP)
    assert start is PARAMS
    expected = torch.full((len(query),), VALUES["mean"], dtype=torch.float64)
    assert torch.equal(predict(MODEL, start, query.tokens), expected)
    prior = MODEL.variance(start, query.tokens)
    pooled = BASE.pooled(PARAMS, query.tokens)
    torch.testing.assert_close(prior, kernel(PARAMS, pooled, pooled).diagonal())


def test_labels_take_variance_away_and_none_at_the_support_without_noise():
    support, query = TASKS[0].support, TASKS[0].query
    variances = [
        MODEL.variance(
            MODEL.update(MODEL.loss, PARAMS, support.take(np.arange(k)), LOOP), query.tokens
        )
        for k in (0, 1, 3, 6)
    ]
    for before, after in pairwise(variances):
        assert (after <= before + 1e-12).all()
    sharp = PARAMS | {"kernel.log_noise": torch.tensor(-25.0, dtype=torch.float64)}
    adapted = MODEL.update(MODEL.loss, sharp, support, LOOP)
    assert MODEL.variance(adapted, support.tokens).max() < 1e-8
    torch.testing.assert_close(
        predict(MODEL, adapted, support.tokens), support.labels.double(), rtol=0, atol=1e-6
    )


def test_much_noise_leaves_the_prior_mean():
    noisy = PARAMS | {"kernel.log_noise": torch.tensor(40.0, dtype=torch.float64)}
    adapted = MODEL.update(MODEL.loss, noisy, TASKS[0].support, LOOP)
    found = predict(MODEL, adapted, TASKS[0].query.tokens)
    torch.testing.assert_close(found, torch.full_like(found, VALUES["mean"]))


def test_the_order_of_the_support_changes_no_prediction():
    support, query = TASKS[0].support, TASKS[0].query
    turned = support.take(np.arange(len(support))[::-1].copy())
    one, other = (
        predict(MODEL, MODEL.update(MODEL.loss, PARAMS, s, LOOP), query.tokens)
        for s in (support, turned)
    )
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("k", [2, 16, 96])
@pytest.mark.parametrize("spread", [0.0, 1e-4, 1.0])
def test_equal_inputs_far_from_the_origin_are_no_trouble_in_float32(k, spread):
    generator = torch.Generator().manual_seed(0)
    inputs = 30 + spread * torch.randn(k, 32, generator=generator)
    params = {name: value.float() for name, value in head(log_noise=-40.0).items()}
    lower = factor(params, inputs)
    assert torch.isfinite(lower).all()
    weights = torch.cholesky_solve(torch.randn(k, 1, generator=generator), lower)
    assert torch.isfinite(kernel(params, inputs, inputs) @ weights).all()


def test_distances_survive_a_large_common_offset_in_float32():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(9, 32, generator=generator, dtype=torch.float64)
    params = head(log_linear=-80.0)
    single = {name: value.float() for name, value in params.items()}
    moved = kernel(single, (inputs + 100).float(), (inputs + 100).float())
    torch.testing.assert_close(moved.double(), kernel(params, inputs, inputs), rtol=0, atol=1e-4)


def test_a_broken_covariance_is_reported_not_raised():
    pairs = [ALGORITHM.batches(task) for task in TASKS]
    broken = PARAMS | {"kernel.log_linear": torch.tensor(torch.nan, dtype=torch.float64)}
    value, _, losses = meta_gradient(MODEL.loss, broken, pairs, LOOP, backends=ALGORITHM.backends)
    assert value.isnan()
    assert losses.isnan().all()


def test_vmapped_equals_loop():
    x = torch.stack([torch.tensor(random_data(6, 5, seed)[0]) for seed in range(4)])
    looped = torch.stack([factor(head(), one) for one in x])
    torch.testing.assert_close(vmap(lambda one: factor(head(), one))(x), looped)


def test_the_start_is_the_given_encoder_and_no_random_number():
    base = BASE.init(torch.Generator().manual_seed(0))
    start = MODEL.prepare(base)
    assert all(start[name] is base[name] for name in base if name.startswith("encoder."))
    assert len(start) == sum(name.startswith("encoder.") for name in base) + 5
    torch.testing.assert_close(start, MODEL.init(torch.Generator().manual_seed(5)))


def test_the_noise_it_learns_is_that_of_the_labels():
    """Labels drawn from the model itself: the likelihood is best near the true values."""
    encoded = toy_encoded(1, n=200)[0]
    rows = np.arange(200)
    pooled = BASE.pooled(PARAMS, encoded.tokens)
    generator = torch.Generator().manual_seed(3)
    truth = factor(PARAMS, pooled) @ torch.randn(200, generator=generator, dtype=torch.float64)
    examples = Examples(encoded, rows, truth + VALUES["mean"])

    def surprise(**moved):
        return MODEL.surprise(PARAMS | head(**moved), examples).item()

    for name in ("log_noise", "log_rbf"):
        best = surprise()
        assert best < surprise(**{name: VALUES[name] + 2})
        assert best < surprise(**{name: VALUES[name] - 2})


def test_other_predictors_keep_their_settings():
    made = DeepKernelPredictor.of(type(BASE)(BASE.encoder, "mean", objective="list_mle"))
    assert (made.pooling, made.objective, made.hidden) == ("mean", "list_mle", ())
