"""Pooling takes the tokens it says, and prepares no more than it needs."""

import pytest
import torch
from toy import toy_encoded

from mutmeta_lib.errors import DataError
from mutmeta_lib.models.pooling import POOLINGS, inputs, pool, pooling_weights, weighted_sum

(ASSAY,) = toy_encoded(1)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_prepared_inputs_pool_to_the_same_vectors(pooling):
    batch = ASSAY.tokens.rows(range(8))
    hidden = torch.randn(*batch.mask.shape, 5, generator=torch.Generator().manual_seed(0))
    given = inputs(batch, pooling)
    if pooling == "mean":
        assert given.wanted is None
    else:
        assert given.wanted.shape == (8, 1)
        hidden_wanted = torch.take_along_dim(hidden, given.wanted[..., None], dim=1)
        torch.testing.assert_close(
            weighted_sum(hidden_wanted, given.weights), pool(hidden, batch, pooling)
        )
    assert inputs(batch, pooling, layered=False).wanted is None
    assert given.mask is None  # nothing is padded here


@pytest.mark.parametrize("pooling", POOLINGS)
def test_shares_add_up_to_one(pooling):
    torch.testing.assert_close(
        pooling_weights(ASSAY.tokens, pooling).sum(dim=1), torch.ones(len(ASSAY))
    )


def test_an_unknown_pooling_is_refused():
    with pytest.raises(DataError, match="there is no pooling 'max'"):
        inputs(ASSAY.tokens, "max")
