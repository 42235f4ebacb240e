import dataclasses

import numpy as np
import pytest
import torch

from mutmeta_lib.data.variants import parse_variant
from mutmeta_lib.errors import DataError
from mutmeta_lib.models import embeddings
from mutmeta_lib.models.embeddings import embed
from mutmeta_lib.models.encoders import tiny_encoder
from mutmeta_lib.models.pooling import POOLINGS, pool
from mutmeta_lib.tasks.encodings import encode_variants

WILD_TYPE = "MKTAYIAKQR"


@pytest.fixture(scope="module")
def encoder():
    return tiny_encoder(width=16, heads=2)


@pytest.fixture(scope="module")
def batch(encoder):
    texts = ["WT", "T3G", "M1A:K2L", "R10W", "M1A:K2L:T3G", "A4C"]
    variants = [parse_variant(text) for text in texts]
    return encode_variants("separator", WILD_TYPE, variants, encoder.vocabulary, 100)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_embeddings_are_pooled_hidden_states_in_the_order_of_rows(
    encoder, batch, pooling, batch_size
):
    values = embed(encoder, batch, pooling, batch_size=batch_size)
    expected = pool(encoder.module(batch.token_ids, batch.mask), batch, pooling)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, expected.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_no_rows(encoder, batch):
    assert embed(encoder, batch.rows([]), "mean").shape == (0, 16)


def test_the_encoder_is_left_as_it_was(encoder, batch):
    before = {name: value.clone() for name, value in encoder.module.state_dict().items()}
    embed(encoder, batch, "mean")
    assert all(torch.equal(before[k], v) for k, v in encoder.module.state_dict().items())
    assert all(parameter.grad is None for parameter in encoder.module.parameters())


def test_the_second_call_reads_the_file(encoder, batch, tmp_path, monkeypatch):
    first = embed(encoder, batch, "mean", cache_dir=tmp_path / "new")
    np.testing.assert_array_equal(first, embed(encoder, batch, "mean"))
    monkeypatch.setattr(embeddings, "run_batches", lambda *_, **__: pytest.fail("computed again"))
    np.testing.assert_array_equal(embed(encoder, batch, "mean", cache_dir=tmp_path / "new"), first)


def test_whatever_the_embeddings_depend_on_is_another_file(encoder, batch, tmp_path):
    other_tokens = batch.token_ids.clone()
    other_tokens[0, 1] = 5
    calls = [
        (encoder, batch, "mean"),
        (tiny_encoder(seed=1, width=16, heads=2), batch, "mean"),
        (encoder, batch, "sites"),
        (encoder, dataclasses.replace(batch, token_ids=other_tokens), "mean"),
        (encoder, dataclasses.replace(batch, sites=batch.sites.flip(1)), "mean"),
        (encoder, batch.rows([1, 0, 2, 3, 4, 5]), "mean"),
        (encoder, batch.rows([0, 1]), "mean"),
    ]
    for number, arguments in enumerate(calls, start=1):
        values = embed(*arguments, cache_dir=tmp_path)
        assert len(list(tmp_path.iterdir())) == number
        np.testing.assert_array_equal(values, embed(*arguments))


def test_a_lower_precision_is_near_and_another_file(encoder, batch, tmp_path):
    exact = embed(encoder, batch, "mean", cache_dir=tmp_path)
    low = embed(encoder, batch, "mean", cache_dir=tmp_path, precision="bfloat16")
    assert len(list(tmp_path.iterdir())) == 2
    assert low.dtype == np.float32
    assert 0 < np.abs(low - exact).max() < 0.05 * np.abs(exact).max()
    with pytest.raises(DataError, match="no precision 'float16'"):
        embed(encoder, batch, "mean", precision="float16")


def test_a_damaged_file_is_named_and_computed_anew(encoder, batch, tmp_path):
    values = embed(encoder, batch, "mean", cache_dir=tmp_path).copy()
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with pytest.warns(UserWarning, match=f"{file.name}: .*wrong checksum.*computed anew"):
        again = embed(encoder, batch, "mean", cache_dir=tmp_path)
    np.testing.assert_array_equal(again, values)
