"""What every encoder's module promises, and what layered ones add."""

import json
import shutil
from copy import deepcopy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.func import functional_call, grad, vmap

from mutmeta_lib.errors import DataError
from mutmeta_lib.models.encoder import load_encoder, on_device, tiny_encoder
from mutmeta_lib.models.layers import Layered, layer_of, sinusoidal_positions

REAL = (12, 9, 12, 3)
WANTED = torch.tensor([[0, 11], [8, 8], [5, 3], [2, 0]])
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def draw(*shape, seed=0):
    return torch.randint(5, 20, shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def tokens(encoder):
    return padded(encoder)


def padded(encoder):
    """Token ids with padding as the encoder's own tokenizer pads, and the mask."""
    token_ids = draw(4, 12)
    mask = torch.arange(12)[None] < torch.tensor(REAL)[:, None]
    pad = {"esm": 1, "esm1b": 1}.get(encoder.name, 0)
    return token_ids.masked_fill(~mask, pad), mask


def double(encoder):
    """The module in double precision, where derivatives can be compared closely."""
    return deepcopy(encoder.module).double()


def test_hidden_states_are_one_vector_a_token(encoder, tokens):
    hidden = encoder.module(*tokens)
    assert hidden.shape == (4, 12, encoder.width)
    assert hidden.dtype == torch.float32
    assert not encoder.module.training


def test_neither_padding_nor_company_nor_order_matters(encoder, tokens):
    token_ids, mask = tokens
    together = encoder.module(token_ids, mask)
    for row, n in enumerate(REAL):
        alone = encoder.module(token_ids[[row], :n], None)[0]
        torch.testing.assert_close(together[row, :n], alone, **CLOSE)
    order = [2, 0, 3, 1]
    again = encoder.module(token_ids[order], mask[order])
    torch.testing.assert_close(again[mask[order]], together[order][mask[order]], **CLOSE)


def test_padding_has_no_part_in_gradients(encoder, tokens):
    module = double(encoder)
    weights = on_device(module, "cpu")
    name = next(key for key in weights if "query" in key or "q_lin" in key)

    def total(value, token_ids, mask):
        hidden = functional_call(module, {**weights, name: value}, (token_ids, mask))
        return (hidden[:, :3] ** 3).sum()

    first = tokens[0][[3]]
    with_padding = grad(total)(weights[name].detach(), first, tokens[1][[3]])
    alone = grad(total)(weights[name].detach(), first[:, :3], torch.ones(1, 3, dtype=torch.bool))
    torch.testing.assert_close(with_padding, alone, rtol=1e-6, atol=1e-9)
    assert alone.abs().max() > 0


@pytest.mark.parametrize("gradients", [True, False])
def test_wanted_tokens_are_those_of_the_whole(encoder, tokens, gradients):
    whole = encoder.module(*tokens)
    with torch.set_grad_enabled(gradients):  # without, attention is a fused kernel
        found = encoder.module(*tokens, wanted=WANTED)
        again = encoder.module(*tokens)
    torch.testing.assert_close(found, torch.take_along_dim(whole, WANTED[..., None], 1), **CLOSE)
    torch.testing.assert_close(again[tokens[1]], whole[tokens[1]], **CLOSE)


def test_second_derivatives_are_those_of_finite_differences(encoder, tokens):
    module = double(encoder)
    weights = {name: value.detach() for name, value in on_device(module, "cpu").items()}
    name = next(key for key in weights if ("query" in key or "q_lin" in key) and "weight" in key)

    def loss(value):
        hidden = functional_call(module, {**weights, name: value}, tokens)
        return (hidden[:, 0, :3] ** 3).mean()

    first, value = grad(loss), weights[name]
    direction = torch.randn(value.shape, generator=torch.Generator().manual_seed(0)).double()
    along = grad(lambda value: (first(value) * direction).sum())(value)
    # The rotary code of ESM rounds to single precision, which asks for a longer step.
    step = 1e-2 if encoder.name == "esm" else 1e-4
    expected = (first(value + step * direction) - first(value - step * direction)) / (2 * step)
    assert along.norm() > 0
    assert (along - expected).norm() < 0.01 * along.norm()


def test_wanted_tokens_have_the_second_derivatives_of_the_whole(encoder, tokens):
    module = double(encoder)
    named = list(module.named_parameters())

    def gradients(hidden):
        values = [value for _, value in named]
        first = torch.autograd.grad(hidden.pow(3).sum(), values, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), values)

    found = gradients(module(*tokens, wanted=WANTED))
    expected = gradients(torch.take_along_dim(module(*tokens), WANTED[..., None], 1))
    moved = []
    for (name, _), one, other in zip(named, found, expected, strict=True):
        assert (one - other).norm() <= 1e-4 * other.norm() + 1e-6, name
        moved += [name] if other.norm() > 0 else []
    assert any("embedding" in name for name in moved)


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
    named = [(key, theirs.get_parameter(key.removeprefix("model."))) for key in names(module)]
    one = torch.autograd.grad(found[mask].pow(3).sum(), list(module.parameters()))
    other = torch.autograd.grad(expected[mask].pow(3).sum(), [value for _, value in named])
    for (key, _), a, b in zip(named, one, other, strict=True):
        assert (a - b).norm() <= 1e-4 * b.norm() + 1e-5, key


def names(module):
    return [name for name, _ in module.named_parameters()]


def test_every_parameter_takes_part(encoder, tokens):
    hidden = encoder.module(*tokens)
    # Not their plain sum, which a final norm makes constant.
    gradients = torch.autograd.grad(hidden[tokens[1]].pow(3).sum(), encoder.module.parameters())
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert len(gradients) > 20


def test_tokens_and_their_order_matter(encoder):
    token_ids = torch.arange(5, 14)[None]
    swapped = token_ids[:, [0, 2, 1, *range(3, 9)]]
    difference = encoder.module(token_ids, None) - encoder.module(swapped, None)
    assert difference[0, 0].abs().max() > 1e-6


# --- layered encoders ----------------------------------------------------------------------------


def test_layered_encoders_say_so(encoders):
    assert {name: one.layers for name, one in encoders.items()} == {
        **dict.fromkeys(("tiny", "esm", "esm1b", "protbert"), 2),
        "distilbert": 0,
    }


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


def test_vmap_over_tasks_and_parameters_equals_a_loop(layered):
    """Through a gradient step and the gradient of what follows it, as in MAML."""
    module = double(layered)
    params = {name: value.detach() for name, value in module.named_parameters()}
    tasks, mask = draw(3, 2, 9), torch.arange(9)[None] < torch.tensor([[9], [6]])

    def loss(params, token_ids):
        return (functional_call(module, params, (token_ids, mask))[:, 0, :3] ** 3).mean()

    def after_one_step(params, support, query):
        gradients = grad(loss)(params, support)
        adapted = {name: value - 0.05 * gradients[name] for name, value in params.items()}
        return loss(adapted, query)

    outer = grad(after_one_step)
    together = vmap(outer, in_dims=(None, 0, 0))(params, tasks, tasks.flip(0))
    for task in range(3):
        alone = outer(params, tasks[task], tasks[2 - task])
        for name, value in together.items():
            assert (value[task] - alone[name]).norm() <= 1e-5 * alone[name].norm() + 1e-7, name
    stacked = {name: torch.stack([value, 0.9 * value]) for name, value in params.items()}
    both = vmap(loss, in_dims=(0, None))(stacked, tasks[0])
    scaled = {name: 0.9 * value for name, value in params.items()}
    torch.testing.assert_close(both, torch.stack([loss(p, tasks[0]) for p in (params, scaled)]))


def test_a_text_beyond_the_context_is_refused(layered):
    ids = draw(1, layered.max_tokens + 1)
    with pytest.raises(DataError, match=f"exceed this encoder's context of {layered.max_tokens};"):
        layered.module(ids, None)
    assert layered.module(ids[:, :-1], None).isfinite().all()


def test_no_real_token_is_still_finite(encoders):
    for name in ("tiny", "protbert"):
        hidden = encoders[name].module(draw(2, 5), torch.zeros(2, 5, dtype=torch.bool))
        assert hidden.isfinite().all()


def test_names_of_parameters_tell_their_layer(layered):
    found = [layer_of(f"encoder.{name}") for name in names(layered.module)]
    assert {0, 1, None} == set(found)
    assert found[0] is None  # token vectors
    assert layer_of("head.0.weight") is None


def test_decoders_are_not_layered(directories, tmp_path):
    folder = shutil.copytree(directories["protbert"], tmp_path / "decoder")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "is_decoder": True}))
    assert not isinstance(load_encoder(str(folder)).module, Layered)


# --- our own -------------------------------------------------------------------------------------


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


def test_hidden_states_and_gradients_have_a_healthy_size():
    module = tiny_encoder().module
    hidden = module(draw(8, 60), None)
    assert 0.9 < hidden.std() < 1.1
    hidden[:, 0, 0].sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.abs().max() > 0 for p in module.parameters())


def test_neighbouring_positions_are_similar_and_all_differ():
    positions = torch.nn.functional.normalize(sinusoidal_positions(256, 64), dim=1)
    similarity = positions @ positions.T
    assert similarity.diagonal(4).min() > similarity[0, 128:].max()
    assert (similarity - 2 * torch.eye(256)).max() < 0.999


def test_heads_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="width of 60 cannot be shared by 8 heads"):
        tiny_encoder(width=60, heads=8)
