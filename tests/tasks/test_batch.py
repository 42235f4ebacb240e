import numpy as np
import pytest
import torch

from mutmeta_lib.data.variants import parse_variant
from mutmeta_lib.tasks.encodings import encode_variants
from mutmeta_lib.tasks.vocabulary import TINY_VOCABULARY

VARIANTS = [(), parse_variant("K2R"), parse_variant("M1A:T3G")]


@pytest.fixture
def batch():
    return encode_variants("separator", "MKTA", VARIANTS, TINY_VOCABULARY, 64)


@pytest.mark.parametrize(
    "index",
    [[1, 0], (1, 0), np.array([1, 0]), torch.tensor([1, 0]), range(1, -1, -1)],
    ids=lambda index: type(index).__name__,
)
def test_rows_are_those_asked_for_without_needless_padding(batch, index):
    part = batch.rows(index)
    fresh = encode_variants("separator", "MKTA", [VARIANTS[1], VARIANTS[0]], TINY_VOCABULARY, 64)
    for name in ("token_ids", "mask", "sites"):
        assert torch.equal(getattr(part, name), getattr(fresh, name))
    assert part.token_ids.shape[1] < batch.token_ids.shape[1]


def test_rows_by_booleans(batch):
    part = batch.rows(np.array([True, False, True]))
    assert torch.equal(part.token_ids, batch.token_ids[[0, 2]])


@pytest.mark.parametrize("index", [[], np.array([], dtype=int), range(0)])
def test_no_rows(batch, index):
    assert len(batch.rows(index)) == 0
    assert batch.rows(index).token_ids.shape == (0, 1)


def test_no_variants():
    assert len(encode_variants("mutant", "MKTA", [], TINY_VOCABULARY, 64)) == 0


def test_types_and_device(batch):
    moved = batch.to("meta")
    assert (moved.token_ids.dtype, moved.mask.dtype, moved.sites.dtype) == (
        torch.int64,
        torch.bool,
        torch.bool,
    )
    assert moved.mask.device.type == "meta"
