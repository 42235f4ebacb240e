"""The arms differ in the gradient of the meta-step and in nothing else."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy_protocol import toy_release

from mutmeta_lib.errors import DataError
from mutmeta_lib.learn import InnerLoop, meta_gradient
from mutmeta_lib.models.encoders import tiny_encoder
from mutmeta_lib.models.predictor import Predictor
from mutmeta_lib.reproduction.protocol_data import Rows, encode_protocol, read_protocol
from mutmeta_lib.reproduction.protocol_steps import (
    ARMS,
    draw_support_query,
    dropped_out,
    meta_train_sets,
    one_cycle,
)

PREDICTOR = Predictor(tiny_encoder(width=16, layers=1, heads=2), "cls", hidden=(8,))
START = PREDICTOR.init(torch.Generator().manual_seed(0))
LOOP = InnerLoop(lr=0.3, steps=3)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    copy = toy_release(tmp_path_factory.mktemp("copy"))
    return encode_protocol(read_protocol(copy), "separator", PREDICTOR.encoder, frozen=False)


def flat(params):
    return torch.cat([value.flatten() for value in params.values()])


def pair(data):
    rows = data.train["fireprot_dTm"]
    return rows.take(np.arange(8)), rows.take(np.arange(8, 20))


def gradients(data):
    return {
        name: flat(arm(PREDICTOR.loss, START, *pair(data), LOOP)[1]) for name, arm in ARMS.items()
    }


def reference(data, **loop):
    return flat(meta_gradient(PREDICTOR.loss, START, [pair(data)], InnerLoop(0.3, **loop))[1])


def test_as_released_is_joint_training_on_the_query_rows(data):
    own = gradients(data)["released"]
    torch.testing.assert_close(own, reference(data, steps=0))
    leaves = {name: value.clone().requires_grad_() for name, value in START.items()}
    PREDICTOR.loss(leaves, pair(data)[1]).backward()
    torch.testing.assert_close(own, flat({k: v.grad for k, v in leaves.items()}))


def test_as_released_does_not_feel_the_support_rows(data):
    support, query = pair(data)
    other = data.test["binding_affinity"].take(np.arange(8))
    found = [
        flat(ARMS["released"](PREDICTOR.loss, START, s, query, LOOP)[1]) for s in (support, other)
    ]
    assert torch.equal(*found)
    felt = [
        flat(ARMS["first_order"](PREDICTOR.loss, START, s, query, LOOP)[1])
        for s in (support, other)
    ]
    assert not torch.allclose(*felt)


def test_as_described_is_maml(data):
    found = gradients(data)
    first, second = (reference(data, steps=3, first_order=order) for order in (True, False))
    torch.testing.assert_close(found["first_order"], first)
    torch.testing.assert_close(found["second_order"], second)
    for one, other in (("released", "first_order"), ("first_order", "second_order")):
        assert (found[one] - found[other]).norm() > 1e-3 * found[one].norm()


@pytest.mark.parametrize("arm", list(ARMS))
def test_a_first_meta_step_moves_by_adams_rate_against_the_gradient(data, arm):
    rows = data.train["fireprot_dTm"]
    trained = meta_train_sets(
        ARMS[arm],
        PREDICTOR.loss,
        START,
        [[rows]],
        LOOP,
        epochs=1,
        support=8,
        query=8,
        meta_lr=0.01,
        rng=np.random.default_rng(3),
    )
    rng = np.random.default_rng(3)
    rng.permutation(1)
    drawn = [rows.take(index) for index in draw_support_query(len(rows), 8, 8, rng)]
    gradient = flat(ARMS[arm](PREDICTOR.loss, START, *drawn, LOOP)[1])
    moved = flat(trained) - flat(START)
    large = gradient.abs() > 1e-4
    torch.testing.assert_close(moved[large], -0.01 * gradient[large].sign(), rtol=1e-2, atol=0)


def test_data_sets_in_parts_are_drawn_from_all_of_them(data):
    def train(sets):
        return flat(
            meta_train_sets(
                ARMS["first_order"],
                PREDICTOR.loss,
                START,
                sets,
                LOOP,
                epochs=2,
                support=30,
                query=30,
                meta_lr=0.01,
                rng=np.random.default_rng(0),
            )
        )

    both = data.others("fireprot_dTm")
    assert torch.equal(train(both), train(both))
    with pytest.raises(DataError, match="48 rows do not hold 30 support and 30 query rows"):
        train([[data.train["soluprotmut_solubility"]]])


@given(n=st.integers(2, 60), seed=st.integers(0, 99), data=st.data())
def test_support_rows_are_never_query_rows(n, seed, data):
    support = data.draw(st.integers(1, n - 1))
    query = data.draw(st.integers(1, n - support))
    a, b = draw_support_query(n, support, query, np.random.default_rng(seed))
    assert (len(set(a)), len(set(b))) == (support, query)
    assert not set(a) & set(b)
    assert set(a) | set(b) <= set(range(n))


def test_one_cycle_learns_and_leaves_its_start_alone(data):
    rows = data.train["binding_affinity"]
    rows = Rows(rows.tokens, rows.labels + 2)
    before = flat(START).clone()

    def fit(seed, **length):
        generator = torch.Generator().manual_seed(seed)
        return one_cycle(
            dropped_out(PREDICTOR, generator),
            START,
            rows,
            peak=0.01,
            batch_size=16,
            rng=np.random.default_rng(seed),
            **length,
        )

    fitted = fit(0, epochs=20)
    assert torch.equal(flat(START), before)
    assert PREDICTOR.loss(fitted, rows) < 0.5 * PREDICTOR.loss(START, rows)
    assert torch.equal(flat(fitted), flat(fit(0, epochs=20)))
    assert not torch.equal(flat(fitted), flat(fit(1, epochs=20)))
    # 60 rows hold three whole batches of 16.
    assert torch.equal(flat(fit(0, epochs=2)), flat(fit(0, steps=6)))


def test_rows_that_fill_no_batch_are_refused(data):
    few = data.train["binding_affinity"].take(np.arange(5))
    with pytest.raises(DataError, match="5 rows do not fill a batch of 16"):
        one_cycle(
            PREDICTOR.loss,
            START,
            few,
            peak=0.1,
            batch_size=16,
            rng=np.random.default_rng(0),
            epochs=1,
        )
