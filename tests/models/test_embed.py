"""What is run once gives the numbers of the whole, from memory and from disk."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from toy import toy_assay, toy_encoded

from mutmeta_lib.data.variants import parse_variant
from mutmeta_lib.learn import InnerLoop, meta_gradient
from mutmeta_lib.models import embed as module
from mutmeta_lib.models.embed import embed, freeze, standardise
from mutmeta_lib.models.encoder import tiny_encoder
from mutmeta_lib.models.layers import layer_of
from mutmeta_lib.models.predictor import POOLINGS, Predictor, pooling_weights, predict
from mutmeta_lib.tasks.encodings import encode_variants
from mutmeta_lib.tasks.tasks import encode_assay, sample_tasks

ENCODER = tiny_encoder(width=16, layers=3, heads=2)
PREDICTOR = Predictor(ENCODER, hidden=(8,))
START = PREDICTOR.init(torch.Generator().manual_seed(0))
TEXTS = ["WT", "T3G", "M1A:K2L", "R10W", "M1A:K2L:T3G", "A4C"]
BATCH = encode_variants(
    "separator", "MKTAYIAKQR", list(map(parse_variant, TEXTS)), ENCODER.vocabulary, 100
)


def encoded():
    """Assays one of which has variants of no, one and two mutations: texts of several lengths."""
    single = toy_assay(3, n=20)
    (first,), second = single.variants[0], next(v for v in single.variants if v[0].position > 9)
    assert first.position <= 9
    variants = ((), *single.variants, (first, *second))
    scores = np.concatenate([[0.0], single.scores, [1.0]])
    ragged = replace(single, variants=variants, scores=scores)
    tokens = encode_assay(ragged, "separator", ENCODER.vocabulary, ENCODER.max_tokens)
    return [*toy_encoded(2), tokens]


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("most", [1, 30, 4096])
def test_embeddings_are_pooled_hidden_states_in_the_order_of_rows(pooling, most, monkeypatch):
    monkeypatch.setattr("mutmeta_lib.tasks.batches.MAX_TOKENS", most)
    before = {name: value.clone() for name, value in ENCODER.module.state_dict().items()}
    values = embed(ENCODER, BATCH, pooling)
    hidden = ENCODER.module(BATCH.token_ids, BATCH.mask)
    expected = (pooling_weights(BATCH, pooling)[..., None] * hidden).sum(dim=1)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, expected.detach().numpy(), rtol=1e-4, atol=1e-5)
    assert embed(ENCODER, BATCH.rows([]), pooling).shape == (0, 16)
    assert all(torch.equal(before[k], v) for k, v in ENCODER.module.state_dict().items())
    assert all(parameter.grad is None for parameter in ENCODER.module.parameters())


def test_whatever_embeddings_depend_on_is_another_file_and_is_read_again(tmp_path, monkeypatch):
    other_tokens = BATCH.token_ids.clone()
    other_tokens[0, 1] = 5
    calls = [
        (ENCODER, BATCH, "mean"),
        (tiny_encoder(seed=1, width=16, layers=3, heads=2), BATCH, "mean"),
        (ENCODER, BATCH, "sites"),
        (ENCODER, replace(BATCH, token_ids=other_tokens), "mean"),
        (ENCODER, replace(BATCH, sites=BATCH.sites.flip(1)), "mean"),
        (ENCODER, BATCH.rows([1, 0, 2, 3, 4, 5]), "mean"),
        (ENCODER, BATCH.rows([0, 1]), "mean"),
    ]
    made = []
    for number, given in enumerate(calls, start=1):
        made.append(embed(*given, cache_dir=tmp_path))
        assert len(list(tmp_path.iterdir())) == number
        np.testing.assert_array_equal(made[-1], embed(*given))
    monkeypatch.setattr(module, "run_batches", lambda *_, **__: pytest.fail("computed again"))
    for given, values in zip(calls, made, strict=True):
        np.testing.assert_array_equal(embed(*given, cache_dir=tmp_path), values)


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("start", [1, 2, 3, None])
def test_predictions_above_a_frozen_part_are_those_of_the_whole(tmp_path, start, pooling, cached):
    whole, assays = replace(PREDICTOR, pooling=pooling), encoded()
    top, frozen = freeze(whole, assays, start, cache_dir=tmp_path if cached else None)
    params = top.learning(START)
    assert set(params) == set(top.init(torch.Generator())) < set(START)
    learning = {layer_of(name) for name in params} - {None}
    assert learning == (set() if start is None else set(range(start, 3)))
    for before, after in zip(assays, frozen, strict=True):
        rows = np.random.default_rng(0).permutation(len(before))[:15]
        expected = predict(whole, START, before.tokens.rows(rows))
        found = predict(top, params, after.tokens.rows(rows))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("start", [1, 2, None])
def test_meta_gradients_above_a_frozen_part_are_those_of_the_whole(start):
    top, frozen = freeze(PREDICTOR, encoded(), start)

    def gradient(loss, assays):
        draws = sample_tasks(assays, 3, support=5, query=5, rng=np.random.default_rng(1))
        pairs = [(task.support, task.query) for task in draws]
        return meta_gradient(loss, top.learning(START), pairs, InnerLoop(0.1, 3))

    found = gradient(top.loss, frozen)
    expected = gradient(lambda own, batch: PREDICTOR.loss({**START, **own}, batch), encoded())
    torch.testing.assert_close(found[2], expected[2], rtol=1e-4, atol=1e-6)
    for name, value in found[1].items():
        assert (value - expected[1][name]).norm() <= 1e-3 * value.norm() + 1e-6, name


def test_a_frozen_part_is_kept_by_its_layer_and_never_changed(tmp_path, monkeypatch):
    assays = toy_encoded(1, predictor=PREDICTOR)
    _, (made,) = freeze(PREDICTOR, assays, 2, cache_dir=tmp_path)
    expected = made.tokens.hidden.clone()
    made.tokens.hidden.zero_()
    monkeypatch.setattr(module, "run_batches", lambda *_, **__: pytest.fail("computed again"))
    _, (again,) = freeze(PREDICTOR, assays, 2, cache_dir=tmp_path)
    assert torch.equal(again.tokens.hidden, expected)
    with pytest.raises(pytest.fail.Exception):
        freeze(PREDICTOR, assays, 1, cache_dir=tmp_path)


def test_standardised_columns_have_mean_0_and_variance_1_and_constants_vanish():
    drawn = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) * 7 + 3
    drawn[:, 2] = 1000 + torch.tensor([1e-4, 0]).repeat(25)  # constant up to rounding
    made = standardise(drawn)
    torch.testing.assert_close(made.mean(dim=0), torch.zeros(3), atol=1e-5, rtol=0)
    spread = made.std(dim=0, correction=0)
    torch.testing.assert_close(spread, torch.tensor([1.0, 1.0, 0.0]), atol=1e-5, rtol=0)
