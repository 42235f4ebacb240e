"""Layered encoders: begun and stopped anywhere, and asked for some tokens only."""

from copy import deepcopy

import pytest
import torch
from hf_directories import write_esm, write_protbert

from mutmeta_lib.models.encoders import load_encoder, tiny_encoder
from mutmeta_lib.models.layers import attend, attend_few, padding_bias
from mutmeta_lib.models.pretrained import HiddenStates


@pytest.fixture(scope="module")
def esm(tmp_path_factory):
    return load_encoder(str(write_esm(tmp_path_factory.mktemp("esm") / "esm"))).module


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return load_encoder(str(write_protbert(tmp_path_factory.mktemp("bert") / "bert"))).module


@pytest.fixture(params=["tiny", "esm", "bert"])
def module(request, esm, bert):
    tiny = tiny_encoder(width=16, layers=2, heads=4).module
    return {"tiny": tiny, "esm": esm, "bert": bert}[request.param]


def tokens(n=4, length=12, real=(12, 9, 12, 3)):
    generator = torch.Generator().manual_seed(0)
    token_ids = torch.randint(4, 20, (n, length), generator=generator)
    mask = torch.arange(length)[None] < torch.tensor(real)[:, None]
    return token_ids, mask


def test_esm_gives_the_numbers_of_hugging_face(esm):
    token_ids, mask = tokens()
    token_ids[2, 5] = 32  # a masked token, which changes the scale of the others
    theirs = HiddenStates(esm.model)(token_ids.masked_fill(~mask, 1), mask)
    torch.testing.assert_close(esm(token_ids, mask)[mask], theirs[mask], rtol=1e-5, atol=1e-5)


def test_bert_gives_the_numbers_of_hugging_face(bert):
    token_ids, mask = tokens()
    theirs = HiddenStates(bert.model)(token_ids.masked_fill(~mask, 0), mask)
    torch.testing.assert_close(bert(token_ids, mask)[mask], theirs[mask], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cut", [0, 1, 2])
def test_two_halves_are_the_whole(module, cut):
    token_ids, mask = tokens()
    below = module(token_ids, mask, stop=cut)
    above = module(None, mask, hidden=below, start=cut)
    torch.testing.assert_close(above, module(token_ids, mask), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("cut", [0, 1, 2])
def test_wanted_tokens_are_those_of_the_whole(module, cut, grad):
    token_ids, mask = tokens()
    wanted = torch.tensor([[0, 11], [8, 8], [5, 3], [2, 0]])
    with torch.set_grad_enabled(grad):
        whole = module(token_ids, mask)
        below = module(token_ids, mask, stop=cut)
        found = module(None, mask, hidden=below, start=cut, wanted=wanted)
    expected = torch.take_along_dim(whole, wanted[..., None], dim=1)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_no_mask_means_no_padding(module):
    token_ids, _ = tokens()
    everything = torch.ones_like(token_ids, dtype=torch.bool)
    torch.testing.assert_close(module(token_ids, None), module(token_ids, everything))


def test_layers_work_under_vmap(module):
    token_ids, mask = tokens()
    many = torch.func.vmap(lambda ids, real: module(ids[None], real[None])[0])(token_ids, mask)
    torch.testing.assert_close(many[mask], module(token_ids, mask)[mask], rtol=1e-5, atol=1e-5)


def test_gradients_of_wanted_tokens_are_those_of_the_whole(module):
    token_ids, mask = tokens()
    wanted = torch.tensor([[1], [2], [3], [0]])
    # In float64: the gradient of a bias that softmax cancels is rounding alone.
    module = deepcopy(module).double()
    named = list(module.named_parameters())

    def gradients(hidden):
        total = hidden.pow(3).sum()
        first = torch.autograd.grad(total, [p for _, p in named], create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), [p for _, p in named])

    found = gradients(module(token_ids, mask, wanted=wanted))
    whole = module(token_ids, mask)
    expected = gradients(torch.take_along_dim(whole, wanted[..., None], dim=1))
    for (name, _), one, other in zip(named, found, expected, strict=True):
        assert (one - other).norm() <= 1e-4 * other.norm() + 1e-6, name


def test_fused_attention_without_gradients_is_the_same():
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 3, 7, 4, generator=generator) for _ in range(3))
    bias = padding_bias(tokens(2, 7, (7, 4))[1], torch.float32)
    with torch.no_grad():
        fused = attend(query, key, value, bias)
    torch.testing.assert_close(fused, attend(query, key, value, bias), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("padded", [False, True])
def test_attention_of_a_few_is_that_of_all(padded):
    """The same numbers by keys and values of every token."""
    generator = torch.Generator().manual_seed(0)
    draw = {"generator": generator, "dtype": torch.float64}
    x, weight, offset = (torch.randn(*s, **draw) for s in ((3, 9, 8), (24, 8), (24,)))
    bias = padding_bias(tokens(3, 9, (9, 5, 7))[1], torch.float64) if padded else None
    projected = (x @ weight.T + offset).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
    query, key, value = projected
    whole = attend(query * 4**-0.5, key, value, bias)
    chosen = x[:, [1, 4]]
    found = attend_few(x, chosen, weight, offset, 2, bias)
    torch.testing.assert_close(found, whole[:, [1, 4]], rtol=1e-10, atol=1e-10)
