"""The predictor: a pure function of its parameters; pooling takes the tokens it says."""

from dataclasses import replace

import pytest
import torch
from toy import toy_encoded, toy_predictor

from mutmeta_lib.errors import DataError
from mutmeta_lib.models.predictor import POOLINGS, Predictor, pooling_weights, predict

PREDICTOR = toy_predictor()
PARAMS = PREDICTOR.init(torch.Generator().manual_seed(0))
ASSAY = toy_encoded(1)[0]


def test_init_is_a_function_of_the_generator_and_copies_the_encoder():
    again = PREDICTOR.init(torch.Generator().manual_seed(0))
    torch.testing.assert_close(PARAMS, again, rtol=0, atol=0)
    other = PREDICTOR.init(torch.Generator().manual_seed(1))
    assert not torch.equal(PARAMS["head.0.weight"], other["head.0.weight"])
    for name, value in PREDICTOR.encoder.module.named_parameters():
        assert torch.equal(PARAMS[f"encoder.{name}"], value)
        assert PARAMS[f"encoder.{name}"].data_ptr() != value.data_ptr()


def test_dropout_needs_a_generator_repeats_with_it_and_keeps_the_mean():
    def draw(seed):
        return PREDICTOR(PARAMS, ASSAY.tokens, torch.Generator().manual_seed(seed))

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    wide = Predictor(PREDICTOR.encoder, hidden=(4_000,), dropout=0.5)
    params, one = wide.init(torch.Generator().manual_seed(0)), torch.ones(1, wide.encoder.width)
    params["head.1.weight"] = torch.ones(1, 4_000)
    dropped = wide.head(params, one, torch.Generator().manual_seed(0))
    torch.testing.assert_close(dropped, wide.head(params, one), rtol=0.1, atol=0)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_is_the_mean_of_the_tokens_that_it_names(pooling):
    batch = ASSAY.tokens.rows(range(8))
    hidden = PREDICTOR.encoder.module(batch.token_ids, None)
    expected = {
        "cls": hidden[:, 0],
        "mean": hidden.mean(dim=1),  # nothing is padded here
        "sites": torch.stack([h[s].mean(dim=0) for h, s in zip(hidden, batch.sites, strict=True)]),
    }[pooling]
    found = replace(PREDICTOR, pooling=pooling).pooled(PARAMS, batch)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    shares = pooling_weights(batch, pooling)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(8))
    assert predict(PREDICTOR, PARAMS, ASSAY.tokens.rows([])).shape == (0,)
    with pytest.raises(DataError, match="there is no pooling 'max'"):
        pooling_weights(ASSAY.tokens, "max")
