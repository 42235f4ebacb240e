"""What every encoder's module promises, and what layered ones add."""

import json
import shutil
from copy import deepcopy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mutmeta_lib.errors import DataError
from mutmeta_lib.models.encoder import load_encoder, tiny_encoder
from mutmeta_lib.models.layers import layer_of
from mutmeta_lib.models.tiny import sinusoidal_positions

REAL = (12, 9, 12, 3)
WANTED = torch.tensor([[0, 11], [8, 8], [5, 3], [2, 0]])
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def draw(*shape, seed=0):
    return torch.randint(5, 20, shape, generator=torch.Generator().manual_seed(seed))


def padded(encoder):
    """Token ids with padding as the encoder's own tokenizer pads, and the mask."""
    mask = torch.arange(12)[None] < torch.tensor(REAL)[:, None]
    return draw(4, 12).masked_fill(~mask, encoder.name.startswith("esm")), mask


@pytest.fixture
def tokens(encoder):
    return padded(encoder)


def test_neither_padding_nor_company_nor_order_matters(encoder, tokens):
    token_ids, mask = tokens
    together = encoder.module(token_ids, mask)
    assert (together.shape, together.dtype) == ((4, 12, encoder.width), torch.float32)
    assert not encoder.module.training
    for row, n in enumerate(REAL):
        alone = encoder.module(token_ids[[row], :n], None)[0]
        torch.testing.assert_close(together[row, :n], alone, **CLOSE)
    order = [2, 0, 3, 1]
    again = encoder.module(token_ids[order], mask[order])
    torch.testing.assert_close(again[mask[order]], together[order][mask[order]], **CLOSE)


@pytest.mark.parametrize("gradients", [True, False])
def test_wanted_tokens_are_those_of_the_whole(encoder, tokens, gradients):
    whole = encoder.module(*tokens)
    with torch.set_grad_enabled(gradients):  # without, attention is a fused kernel
        found = encoder.module(*tokens, wanted=WANTED)
        again = encoder.module(*tokens)
    torch.testing.assert_close(found, torch.take_along_dim(whole, WANTED[..., None], 1), **CLOSE)
    torch.testing.assert_close(again[tokens[1]], whole[tokens[1]], **CLOSE)


def test_wanted_tokens_have_the_second_derivatives_of_the_whole(encoder, tokens):
    module = deepcopy(encoder.module).double()
    values = list(module.parameters())

    def gradients(hidden):
        first = torch.autograd.grad(hidden.pow(3).sum(), values, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), values)

    found = gradients(module(*tokens, wanted=WANTED))
    expected = gradients(torch.take_along_dim(module(*tokens), WANTED[..., None], 1))
    for name, one, other in zip(names(module), found, expected, strict=True):
        assert (one - other).norm() <= 1e-4 * other.norm() + 1e-6, name
        # A bias that all keys share has no part.
        assert other.norm() > 0 or "key" in name, name


@pytest.mark.parametrize("name", ["esm", "esm1b", "protbert", "distilbert"])
def test_numbers_and_gradients_are_those_of_hugging_face(directories, encoders, name):
    from transformers import AutoModel

    theirs = AutoModel.from_pretrained(directories[name], attn_implementation="eager").eval()
    module = encoders[name].module
    token_ids, mask = padded(encoders[name])
    if name.startswith("esm"):
        token_ids[2, 5] = 32  # a mask token, which changes the scale of the others
    found = module(token_ids, mask)
    expected = theirs(input_ids=token_ids, attention_mask=mask.long()).last_hidden_state
    torch.testing.assert_close(found[mask], expected[mask], rtol=1e-6, atol=1e-6)
    same = [theirs.get_parameter(key.removeprefix("model.")) for key in names(module)]
    one = torch.autograd.grad(found[mask].pow(3).sum(), list(module.parameters()))
    other = torch.autograd.grad(expected[mask].pow(3).sum(), same)
    for key, a, b in zip(names(module), one, other, strict=True):
        assert (a - b).norm() <= 1e-4 * b.norm() + 1e-5, key


def names(module):
    return [name for name, _ in module.named_parameters()]


@pytest.mark.parametrize("cut", [0, 1, 2])
def test_two_halves_are_the_whole(layered, cut):
    token_ids, mask = padded(layered)
    below = layered.module(token_ids, mask, stop=cut)
    above = layered.module(None, mask, hidden=below, start=cut)
    torch.testing.assert_close(above, layered.module(token_ids, mask), rtol=1e-6, atol=1e-6)
    some = layered.module(None, mask, hidden=below, start=cut, wanted=WANTED)
    torch.testing.assert_close(some, torch.take_along_dim(above, WANTED[..., None], 1), **CLOSE)
    if cut:
        assert not torch.allclose(below, layered.module(token_ids, mask, stop=cut - 1))


def test_a_text_beyond_the_context_is_refused(layered):
    ids = draw(1, layered.max_tokens + 1)
    with pytest.raises(DataError, match=f"exceed this encoder's context of {layered.max_tokens};"):
        layered.module(ids, None)
    assert layered.module(ids[:, :-1], None).isfinite().all()


@pytest.mark.parametrize("name", ["tiny", "protbert"])
def test_no_real_token_is_still_finite(encoders, name):
    assert encoders[name].module(draw(2, 5), torch.zeros(2, 5).bool()).isfinite().all()


def test_names_of_parameters_tell_their_layer(layered):
    found = [layer_of(f"encoder.{name}") for name in names(layered.module)]
    assert {0, 1, None} == set(found)
    assert found[0] is None  # token vectors
    assert layered.layers == 2


def test_decoders_are_not_layered(directories, encoders, tmp_path):
    folder = shutil.copytree(directories["protbert"], tmp_path / "decoder")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "is_decoder": True}))
    assert load_encoder(str(folder)).layers == encoders["distilbert"].layers == 0


@given(st.integers(1, 6), st.integers(1, 14), st.integers(0, 13), st.integers(0, 99))
def test_siblings_share_work_and_change_no_number(n, length, varying, seed):
    varying %= length
    token_ids = draw(1, length, seed=seed).repeat(n, 1)
    token_ids[:, varying] = draw(n, seed=seed + 1)
    wanted = torch.full((n, 1), varying)
    for layers in (1, 3):
        module = tiny_encoder(width=16, layers=layers, heads=2).module.double()
        with torch.no_grad():
            module.blocks[0].query_key_value.weight *= 1 + seed / 9  # sharp attention, too
            for options in ({}, {"stop": 1}, {"wanted": wanted}):
                expected = module(token_ids, None, **options)
                found = module(token_ids, None, varying=varying, **options)
                torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_neighbouring_positions_are_similar_and_all_differ():
    positions = torch.nn.functional.normalize(sinusoidal_positions(256, 64), dim=1)
    similarity = positions @ positions.T
    assert similarity.diagonal(4).min() > similarity[0, 128:].max()
    assert (similarity - 2 * torch.eye(256)).max() < 0.999


def test_heads_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="width of 60 cannot be shared by 8 heads"):
        tiny_encoder(width=60, heads=8)
