"""Which parameters adapt: by name, and what follows for inner loop and meta-gradient."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hf_directories import write_esm, write_protbert
from hypothesis import given
from hypothesis import strategies as st
from toy import EACH_BACKEND, toy_encoded

from mutmeta_lib.errors import DataError
from mutmeta_lib.learn import InnerLoop, inner_update, meta_gradient
from mutmeta_lib.learn.autograd import adapt_alone
from mutmeta_lib.learn.scope import adapted_names, layer_of
from mutmeta_lib.models.encoders import load_encoder, tiny_encoder
from mutmeta_lib.models.predictor import Predictor
from mutmeta_lib.tasks.tasks import sample_tasks

PREDICTOR = Predictor(tiny_encoder(width=16, layers=3, heads=2), hidden=(16, 8))
PARAMS = {
    name: value.double() for name, value in PREDICTOR.init(torch.Generator().manual_seed(0)).items()
}
TASKS = [
    (task.support, task.query)
    for task in sample_tasks(toy_encoded(2), 2, support=4, query=5, rng=np.random.default_rng(0))
]
SCOPES = ["all", "head", "encoder", "last-1", "last-3"]


def loss(params, examples):
    """The predictor's loss in double precision."""
    labels = examples.labels.double()
    return torch.mean((PREDICTOR(params, examples.tokens) - labels) ** 2)


def moved(loop):
    """Names of the parameters that the inner loop changes."""
    adapted = inner_update(loss, PARAMS, TASKS[0][0], loop)
    assert list(adapted) == list(PARAMS)
    return {name for name in PARAMS if not torch.equal(adapted[name], PARAMS[name])}


def test_all_is_the_default_and_every_name_in_order():
    assert InnerLoop().scope == "all"
    assert adapted_names(PARAMS, "all") == tuple(PARAMS)


@given(st.lists(st.from_regex(r"(encoder|head)\.\d\.\w+", fullmatch=True), unique=True))
def test_head_and_encoder_are_a_partition_in_order(names):
    names = ["encoder.x", "head.x", *names]
    head, encoder = adapted_names(names, "head"), adapted_names(names, "encoder")
    assert set(head) | set(encoder) == set(names)
    assert not set(head) & set(encoder)
    assert list(head) == [name for name in names if name in head]


@pytest.mark.parametrize("scope", SCOPES)
def test_exactly_the_scope_moves_in_the_inner_loop(scope):
    assert moved(InnerLoop(0.1, 2, scope=scope)) == set(adapted_names(PARAMS, scope))


@pytest.mark.parametrize("scope", SCOPES)
def test_adaptation_that_nothing_goes_through_has_the_same_bits(scope):
    loop = InnerLoop(0.1, 3, first_order=True, scope=scope)
    alone, ours = (
        update(loss, PARAMS, TASKS[0][0], loop) for update in (adapt_alone, inner_update)
    )
    torch.testing.assert_close(alone, ours, rtol=0, atol=0)


def test_scopes_grow_with_the_number_of_layers():
    sets = [set(adapted_names(PARAMS, scope)) for scope in ("head", "last-1", "last-2", "last-3")]
    assert all(smaller < larger for smaller, larger in pairwise(sets))
    assert sets[3] < set(PARAMS)
    assert {layer_of(name) for name in sets[1]} == {None, 2}


@pytest.mark.parametrize("write", [write_protbert, write_esm])
def test_layers_of_hugging_face_models_are_found(write, tmp_path):
    encoder = load_encoder(str(write(tmp_path / "model")))
    predictor = Predictor(encoder, hidden=(4,))
    names = list(predictor.init(torch.Generator()))
    last = [name for name in adapted_names(names, "last-1") if not name.startswith("head.")]
    assert last == [name for name in names if name.startswith("encoder.model.encoder.layer.1.")]
    assert len(last) > 10
    with pytest.raises(DataError, match=r"'last-3' .* than the encoder's 2; ask for last-1 to"):
        adapted_names(names, "last-3")


def test_ten_layers_are_ordered_by_number_not_by_letter():
    names = [f"encoder.model.encoder.layer.{layer}.w" for layer in range(12)] + ["head.0.weight"]
    assert adapted_names(names, "last-2") == tuple(names[10:])


@pytest.mark.parametrize("scope", ["", "body", "last", "last-0", "last--1", "last-1.5", "Head"])
def test_unknown_scopes_are_refused(scope):
    with pytest.raises(DataError, match="unknown inner-loop scope"):
        inner_update(loss, PARAMS, TASKS[0][0], InnerLoop(scope=scope))


def test_scopes_that_do_not_fit_the_parameters_are_refused():
    with pytest.raises(DataError, match="'last-4' asks for more layers than the encoder's 3"):
        adapted_names(PARAMS, "last-4")
    with pytest.raises(DataError, match="than the encoder's 0; use 'all'"):
        adapted_names(["head.0.weight"], "last-1")
    with pytest.raises(DataError, match="'head' holds no parameter"):
        adapted_names(["w"], "head")


@pytest.mark.parametrize("scope", SCOPES)
def test_zero_steps_is_joint_training_in_every_scope(scope):
    _, joint, _ = meta_gradient(loss, PARAMS, TASKS, InnerLoop(0.1, 0))
    _, scoped, _ = meta_gradient(loss, PARAMS, TASKS, InnerLoop(0.1, 0, scope=scope))
    torch.testing.assert_close(scoped, joint, rtol=0, atol=0)


def test_parameters_that_stay_still_receive_the_outer_gradient():
    for scope in SCOPES:
        _, gradient, _ = meta_gradient(loss, PARAMS, TASKS, InnerLoop(0.1, 2, scope=scope))
        assert [name for name, value in gradient.items() if not value.abs().sum() > 0] == []


@pytest.mark.parametrize("scope", ["head", "encoder", "last-1"])
def test_meta_gradient_equals_finite_differences_inside_and_outside_the_scope(scope):
    loop = InnerLoop(0.1, 2, scope=scope)
    _, gradient, _ = meta_gradient(loss, PARAMS, TASKS, loop)
    generator = torch.Generator().manual_seed(1)
    for part in ("encoder.blocks.0", "encoder.blocks.2", "head"):
        direction = {
            name: torch.randn(value.shape, generator=generator, dtype=value.dtype)
            * name.startswith(part)
            for name, value in PARAMS.items()
        }

        def value(step, direction=direction):
            changed = {name: PARAMS[name] + step * direction[name] for name in PARAMS}
            return meta_gradient(loss, changed, TASKS, loop)[0].item()

        slope = (value(1e-5) - value(-1e-5)) / 2e-5
        exact = sum(float((gradient[name] * direction[name]).sum()) for name in PARAMS)
        assert exact == pytest.approx(slope, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("backend", EACH_BACKEND)
@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("scope", ["head", "encoder", "last-1"])
def test_every_backend_gives_the_same_gradient_in_every_scope(scope, first_order, backend):
    loop = InnerLoop(0.1, 3, first_order, scope)
    ours = meta_gradient(loss, PARAMS, TASKS, loop)
    theirs = meta_gradient(loss, PARAMS, TASKS, loop, backend=backend)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-12)


def test_the_scope_matters():
    results = [
        meta_gradient(loss, PARAMS, TASKS, replace(InnerLoop(0.1, 2), scope=scope))[0].item()
        for scope in SCOPES
    ]
    assert len(set(results)) == len(results)
