"""The solved heads against scikit-learn, each other and their own limits.

That gradients pass through the solution, that the order of labels does not matter and what happens
without any holds for the whole family, see ``test_family``.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, WhiteKernel
from sklearn.linear_model import Ridge
from toy import toy_encoded, toy_predictor

from mutmeta_lib.learn import InnerLoop, meta_gradient
from mutmeta_lib.learn.algorithms import ALGORITHMS
from mutmeta_lib.learn.closed_form import factor, kernel, ridge_weights
from mutmeta_lib.models.predictor import predict
from mutmeta_lib.tasks.tasks import sample_tasks

BASE = toy_predictor()
SOLVED = {"r2d2": ALGORITHMS["r2d2"](BASE), "deepkernel": ALGORITHMS["deepkernel"](BASE)}
VALUES = {"mean": 0.3, "log_linear": -0.4, "log_rbf": 0.5, "log_length": -0.2, "log_noise": -1.5}
RIDGE = {"log_penalty": 0.7, "scale": 1.3, "offset": -0.2}
LOOP = InnerLoop()
TASKS = sample_tasks(toy_encoded(2), 2, support=6, query=5, rng=np.random.default_rng(0))


def numbers(kind, **values):
    """The learned numbers of a head alone."""
    return {f"{kind}.{k}": torch.tensor(v, dtype=torch.float64) for k, v in values.items()}


def start(name, **changed):
    params = SOLVED[name].model.prepare(BASE.init(torch.Generator().manual_seed(0)))
    params = {n: v.double() for n, v in params.items()}
    kind, values = {"r2d2": ("ridge", RIDGE), "deepkernel": ("kernel", VALUES)}[name]
    return params | numbers(kind, **(values | changed))


def adapt(name, support, **changed):
    algorithm = SOLVED[name]
    return algorithm.update(algorithm.model.loss, start(name, **changed), support, LOOP)


def predicted(name, support, query, **changed):
    return predict(SOLVED[name].model, adapt(name, support, **changed), query.tokens)


def features(examples):
    return BASE.pooled(start("r2d2"), examples.tokens).numpy()


def process(x, y, params):
    """The same Gaussian process, which scikit-learn keeps as it is given."""
    linear, bend, noise = (
        np.exp(params[f"kernel.log_{name}"].item()) for name in ("linear", "rbf", "noise")
    )
    length = np.exp(params["kernel.log_length"].item()) * x.shape[1] ** 0.5
    covariance = (
        ConstantKernel(linear / x.shape[1]) * DotProduct(1e-8)
        + ConstantKernel(bend) * RBF(length)
        + WhiteKernel(noise)
    )
    model = GaussianProcessRegressor(covariance, alpha=0, optimizer=None)
    return model.fit(x, y - params["kernel.mean"].item())


@given(
    log_linear=st.floats(-3, 2),
    log_rbf=st.floats(-3, 2),
    log_length=st.floats(-1, 2),
    log_noise=st.floats(-4, 1),
    mean=st.floats(-2, 2),
    k=st.integers(1, 12),
    d=st.integers(1, 12),
    seed=st.integers(0, 99),
)
@settings(max_examples=40)
def test_weights_and_covariances_are_those_of_scikit_learn(k, d, seed, **values):
    rng = np.random.default_rng(seed)
    x, y, penalty = rng.normal(size=(k, d)), rng.normal(size=k), np.exp(values["log_noise"])
    ours = ridge_weights(*map(torch.tensor, (x, y)), torch.tensor(penalty, dtype=torch.float64))
    ridge = Ridge(alpha=penalty, fit_intercept=False, solver="svd").fit(x, y)
    np.testing.assert_allclose(ours, ridge.coef_, rtol=1e-6, atol=1e-8)
    params = numbers("kernel", **values)
    theirs = process(x, y, params)
    lower = factor(params, torch.tensor(x))
    np.testing.assert_allclose(lower @ lower.T, theirs.kernel_(x), rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(lower, theirs.L_, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("task", TASKS)
def test_predictions_and_likelihood_are_those_of_scikit_learn(task):
    support, query, labels = task.support, task.query, task.support.labels.double().numpy()
    x, new = features(support), features(query)
    ones = [np.hstack([part, np.ones((len(part), 1))]) for part in (x, new)]
    ridge = Ridge(alpha=np.exp(0.7), fit_intercept=False, solver="svd").fit(ones[0], labels)
    found = predicted("r2d2", support, query)
    np.testing.assert_allclose(found, 1.3 * ridge.predict(ones[1]) - 0.2, rtol=1e-8)
    params, model = start("deepkernel"), SOLVED["deepkernel"].model
    theirs = process(x, labels, params)
    found = predicted("deepkernel", support, query)
    np.testing.assert_allclose(found, theirs.predict(new) + VALUES["mean"], rtol=1e-8)
    expected = -theirs.log_marginal_likelihood_value_ / len(labels)
    assert model.surprise(params, support).item() == pytest.approx(expected, rel=1e-9)
    # Meta-training maximises the likelihood of all labels of a task.
    algorithm = SOLVED["deepkernel"]
    value, _, _ = meta_gradient(
        model.loss, params, [algorithm.batches(task)], LOOP, backends=algorithm.backends(LOOP)
    )
    assert value == model.surprise(params, algorithm.batches(task)[1])


@pytest.mark.parametrize("name", SOLVED)
def test_without_labels_or_in_much_noise_the_offset_is_predicted(name):
    support, query = TASKS[0].support, TASKS[0].query
    offset = {"r2d2": RIDGE["offset"], "deepkernel": VALUES["mean"]}[name]
    none = support.take(np.array([], dtype=int))
    noisy = {"log_penalty": 40.0} if name == "r2d2" else {"log_noise": 40.0}
    for found in (predicted(name, none, query), predicted(name, support, query, **noisy)):
        torch.testing.assert_close(found, torch.full_like(found, offset), rtol=0, atol=1e-9)


@pytest.mark.parametrize("k", [2, 16, 96])
@pytest.mark.parametrize("spread", [0.0, 1e-4, 1.0])
def test_equal_inputs_far_from_the_origin_are_no_trouble_in_float32(k, spread):
    generator = torch.Generator().manual_seed(0)
    inputs = 100 + spread * torch.randn(k, 32, generator=generator)
    params = {n: v.float() for n, v in numbers("kernel", **(VALUES | {"log_noise": -40.0})).items()}
    lower = factor(params, inputs)
    assert torch.isfinite(lower).all()
    weights = torch.cholesky_solve(torch.randn(k, 1, generator=generator), lower)
    assert torch.isfinite(kernel(params, inputs, inputs) @ weights).all()
    bent = numbers("kernel", **(VALUES | {"log_linear": -80.0}))
    expected = kernel(bent, inputs.double(), inputs.double())
    found = kernel({name: v.float() for name, v in bent.items()}, inputs, inputs).double()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_a_broken_covariance_is_not_a_number():
    model, broken = SOLVED["deepkernel"].model, start("deepkernel", log_linear=torch.nan)
    assert model.surprise(broken, TASKS[0].support).isnan()


@pytest.mark.parametrize("name", SOLVED)
def test_the_start_is_the_given_encoder_and_no_random_number(name):
    base = BASE.init(torch.Generator().manual_seed(0))
    made = ALGORITHMS[name](replace(BASE, pooling="mean", objective="list_mle")).model
    assert (made.pooling, made.objective) == ("mean", "list_mle")
    encoder = {n for n in base if n.startswith("encoder.")}
    prepared = made.prepare(base)
    assert all(prepared.pop(n) is base[n] for n in encoder)
    assert not any(n.startswith("head.") for n in prepared)
