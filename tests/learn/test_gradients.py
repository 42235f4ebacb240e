"""One contract for all back ends of the meta-gradient: the definition, and learn2learn."""

import sys
from functools import partial
from itertools import pairwise
from types import ModuleType

import numpy as np
import pytest
import torch
from hf_directories import write_esm, write_protbert
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import grad, grad_and_value
from torch.nn.functional import linear
from toy import toy_assay

from mutmeta_lib.errors import DataError
from mutmeta_lib.learn import BACKENDS, InnerLoop, learn2learn, meta_gradient
from mutmeta_lib.learn.gradients import task_gradient
from mutmeta_lib.learn.inner import adapted_names
from mutmeta_lib.learn.lowrank import lowrank_losses
from mutmeta_lib.models.encoder import load_encoder
from mutmeta_lib.models.predictor import Predictor
from mutmeta_lib.tasks.losses import LOSSES
from mutmeta_lib.tasks.tasks import encode_assay, sample_tasks

SCOPES = ("all", "head", "encoder")
LOOP = InnerLoop(0.2, 3)
EACH = ["autograd", pytest.param("learn2learn", marks=pytest.mark.learn2learn)]


def loss(params, batch):
    """A network of two hidden layers; ``encoder.idle`` takes no part."""
    x, y = batch
    for layer in range(2):
        name = f"encoder.blocks.{layer}"
        x = torch.tanh(x @ params[f"{name}.w"].T + params[f"{name}.b"])
    return torch.mean((x @ params["head.0.w"] - y) ** 2)


GENERATOR = torch.Generator().manual_seed(0)


def draw(*shape, generator=GENERATOR):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


SHAPES = {"blocks.0.w": (5, 4), "blocks.0.b": (5,), "blocks.1.w": (5, 5), "blocks.1.b": (5,)}
PARAMS = {f"encoder.{name}": 0.5 * draw(*shape) for name, shape in SHAPES.items()}
PARAMS |= {"encoder.idle": draw(3), "head.0.w": draw(5)}
TASKS = [((draw(5, 4), draw(5)), (draw(7, 4), draw(7))) for _ in range(3)]


def defined(params, tasks, loop):
    """The definition once more, by nested derivatives of functions (`torch.func`)."""

    def mean(start):
        total = 0
        for support, query in tasks:
            adapted = {name: start[name] for name in adapted_names(start, loop.scope)}
            for _ in range(loop.steps):
                slope = grad(lambda moved, support=support: loss({**start, **moved}, support))(
                    adapted
                )
                if loop.first_order:
                    slope = {name: value.detach() for name, value in slope.items()}
                adapted = {name: value - loop.lr * slope[name] for name, value in adapted.items()}
            total = total + loss({**start, **adapted}, query) / len(tasks)
        return total

    gradient, value = grad_and_value(mean)(params)
    return value, gradient


@pytest.mark.parametrize("backend", EACH)
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("steps", [0, 1, 4])
def test_every_backend_gives_the_gradient_that_is_defined(backend, scope, first_order, steps):
    before = {name: value.clone() for name, value in PARAMS.items()}
    loop = InnerLoop(0.2, steps, first_order, scope)
    value, gradient, losses = meta_gradient(loss, PARAMS, TASKS, loop, backend=backend)
    expected = defined(PARAMS, TASKS, loop)
    torch.testing.assert_close((value, gradient), expected, rtol=1e-10, atol=1e-12)
    assert list(gradient) == list(PARAMS)
    assert losses.shape == (3,)
    assert not gradient["encoder.idle"].any()
    torch.testing.assert_close(PARAMS, before, rtol=0, atol=0)
    assert not any(tensor.requires_grad for tensor in (value, losses, *gradient.values()))


def test_an_unknown_back_end_is_refused():
    with pytest.raises(ValueError, match=r"unknown MAML backend 'jax'.*'learn2learn'"):
        meta_gradient(loss, PARAMS, TASKS, LOOP, backend="jax")


@settings(max_examples=25, deadline=None)
@given(
    hidden=st.lists(st.integers(1, 7), min_size=1, max_size=3),
    k=st.integers(1, 6),
    steps=st.integers(0, 4),
    first_order=st.booleans(),
    objective=st.sampled_from(sorted(LOSSES)),
    seed=st.integers(0, 10**6),
)
def test_a_head_in_closed_algebra_is_mamls_inner_loop(
    hidden, k, steps, first_order, objective, seed
):
    drawn = partial(draw, generator=torch.Generator().manual_seed(seed))

    def plain(params, batch):
        x, labels = batch
        for i in range(len(params) // 2):
            x = linear(x.relu() if i else x, params[f"head.{i}.weight"], params[f"head.{i}.bias"])
        return LOSSES[objective](x.squeeze(-1), labels)

    head, loop = {}, InnerLoop(0.1, steps, first_order)
    for i, (fan_in, fan_out) in enumerate(pairwise([4, *hidden, 1])):
        head[f"head.{i}.weight"] = (drawn(fan_out, fan_in) / fan_in**0.5).requires_grad_()
        head[f"head.{i}.bias"] = drawn(fan_out).requires_grad_()
    sides = [(drawn(3, n, 4), drawn(3, n)) for n in (k, 5)]
    losses = lowrank_losses(head, *sides, loop, objective)
    for task in range(3):
        support, query = ([part[task] for part in side] for side in sides)
        value, gradient = task_gradient(plain, head, support, query, loop)
        torch.testing.assert_close(losses[task].detach(), value, rtol=1e-9, atol=1e-12)
        found = torch.autograd.grad(
            losses[task], [*head.values()], retain_graph=True, materialize_grads=True
        )
        torch.testing.assert_close([*found], [*gradient.values()], rtol=1e-8, atol=1e-10)


@pytest.mark.learn2learn
@pytest.mark.parametrize("write", [None, write_esm, write_protbert])
def test_all_backends_agree_on_a_loaded_encoder(tmp_path, write):
    """Of these, learn2learn's walk over children stops at a pooler that was taken off."""
    encoder = load_encoder(str(write(tmp_path / "model")) if write else "tiny")
    predictor = Predictor(encoder, hidden=(4,))
    params = predictor.init(torch.Generator().manual_seed(0))
    params = {name: value.double() for name, value in params.items()}
    encoded = encode_assay(toy_assay(0), "separator", encoder.vocabulary, encoder.max_tokens)
    (task,) = sample_tasks([encoded], 1, support=3, query=4, rng=np.random.default_rng(0))
    given = (predictor.loss, params, [(task.support, task.query)], InnerLoop(0.05, 2))
    ours, theirs = (meta_gradient(*given, backend=name)[1] for name in BACKENDS)
    norm = sum(float((part**2).sum()) for part in ours.values()) ** 0.5
    apart = sum(float(((ours[n] - theirs[n]) ** 2).sum()) for n in params) ** 0.5
    assert apart <= 1e-6 * norm


def test_a_missing_or_broken_package_is_told_with_the_way_to_install_it(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "learn2learn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(learn2learn.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"0\.2\.0 is not installed; install it with pip .*-r req"):
        meta_gradient(loss, PARAMS, TASKS, LOOP, backend="learn2learn")
    monkeypatch.setitem(sys.modules, "learn2learn", ModuleType("learn2learn"))
    with pytest.raises(DataError, match=r"cannot be imported \(.*install it anew with pip"):
        meta_gradient(loss, PARAMS, TASKS, LOOP, backend="learn2learn")
