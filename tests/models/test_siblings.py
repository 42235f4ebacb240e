"""Siblings: rows that differ in one column share work, and get the same numbers."""

import pytest
import torch
from hf_directories import write_esm, write_protbert
from hypothesis import given, settings
from hypothesis import strategies as st

from mutmeta_lib.models.encoders import load_encoder, tiny_encoder
from mutmeta_lib.models.layers import attend
from mutmeta_lib.models.siblings import attend_siblings, distinct_tokens


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    esm, bert = (
        load_encoder(str(write(folder / name))).module
        for name, write in (("esm", write_esm), ("bert", write_protbert))
    )
    tiny = [tiny_encoder(width=16, layers=layers, heads=2).module for layers in (1, 3)]
    return [esm, bert, *tiny]


def rows(n, length, varying, seed):
    generator = torch.Generator().manual_seed(seed)
    token_ids = torch.randint(4, 24, (1, length), generator=generator).repeat(n, 1)
    token_ids[:, varying] = torch.randint(4, 24, (n,), generator=generator)
    return token_ids


SIZES = st.tuples(st.integers(1, 6), st.integers(1, 14), st.integers(0, 13), st.integers(0, 99))


@given(SIZES, st.floats(0.1, 100))
def test_attention_of_siblings_is_that_of_the_rows(sizes, sharpness):
    n, length, varying, seed = sizes
    varying %= length
    generator = torch.Generator().manual_seed(seed)
    draw = {"generator": generator, "dtype": torch.float64}
    whole = torch.randn(3, 1, length, 8, **draw).repeat(1, n, 1, 1)
    whole[:, :, varying] = torch.randn(3, n, 8, **draw)
    whole[0] *= sharpness
    query, key, value = (x.unflatten(-1, (2, 4)).transpose(1, 2) for x in whole)
    expected = attend(query, key, value, None)
    once = (distinct_tokens(x, varying).unflatten(-1, (2, 4)).transpose(0, 1) for x in whole)
    found = attend_siblings(*once, n, varying)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@settings(deadline=None)
@given(SIZES, st.integers(0, 3), st.booleans())
def test_encoders_give_siblings_the_same_numbers(modules, sizes, stop, some):
    n, length, varying, seed = sizes
    varying %= length
    token_ids = rows(n, length, varying, seed)
    wanted = torch.full((n, 1), varying) if some else None
    for module in modules:
        options = {"stop": stop} if stop < module.layers else {"wanted": wanted}
        with torch.no_grad():
            plain = module(token_ids, None, **options)
            found = module(token_ids, None, varying=varying, **options)
        torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-5)


def test_a_masked_token_among_siblings_changes_the_scale_of_all(modules):
    token_ids = rows(3, 8, 5, 0)
    token_ids[1, 5] = 32
    with torch.no_grad():
        found = modules[0](token_ids, None, varying=5)
        torch.testing.assert_close(found, modules[0](token_ids, None), rtol=1e-5, atol=1e-5)
