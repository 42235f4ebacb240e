import hashlib

import pytest
import torch
from hf_directories import write_esm, write_protbert

from mutmeta_lib.data.variants import parse_variant
from mutmeta_lib.errors import DataError
from mutmeta_lib.models.encoders import fingerprint, load_encoder, tiny_encoder
from mutmeta_lib.models.pooling import POOLINGS, pool
from mutmeta_lib.tasks.batches import TokenBatch
from mutmeta_lib.tasks.encodings import encode_variants

WILD_TYPE = "MKTAYIAKQR"
VARIANTS = [parse_variant(text) for text in ("WT", "T3G", "M1A:K2L", "R10W")]
# The weights of tiny_encoder(seed=0). A change of this hash changes every result of the book.
TINY_SHA256 = "c8faff2842e20b37ee245e0bc33e9bb3683b7c091d29d2eb8e7e8595c75ea9d2"


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    directory = tmp_path_factory.mktemp("encoders")
    return {
        "tiny": tiny_encoder(),
        "esm": load_encoder(str(write_esm(directory / "esm"))),
        "esm_absolute": load_encoder(str(write_esm(directory / "esm1b", kind="absolute"))),
        "protbert": load_encoder(str(write_protbert(directory / "protbert"))),
    }


@pytest.fixture(params=["tiny", "esm", "esm_absolute", "protbert"])
def encoder(encoders, request):
    return encoders[request.param]


def tokens(encoder, encoding="separator"):
    return encode_variants(encoding, WILD_TYPE, VARIANTS, encoder.vocabulary, encoder.max_tokens)


def test_hidden_states_have_one_vector_per_token(encoder):
    batch = tokens(encoder)
    hidden = encoder.module(batch.token_ids, batch.mask)
    assert hidden.shape == (*batch.token_ids.shape, encoder.width)
    assert hidden.dtype == torch.float32
    assert not encoder.module.training


def test_padding_and_company_change_nothing(encoder):
    batch = tokens(encoder)
    together = encoder.module(batch.token_ids, batch.mask)
    for row in range(len(batch)):
        alone = batch.rows([row])
        hidden = encoder.module(alone.token_ids, alone.mask)
        n = hidden.shape[1]
        torch.testing.assert_close(together[row, :n], hidden[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_order_of_rows_changes_nothing(encoder, pooling):
    batch = tokens(encoder)
    order = [2, 0, 3, 1]
    pooled = pool(encoder.module(batch.token_ids, batch.mask), batch, pooling)
    shuffled = batch.rows(order)
    again = pool(encoder.module(shuffled.token_ids, shuffled.mask), shuffled, pooling)
    torch.testing.assert_close(again, pooled[order], rtol=1e-5, atol=1e-6)


def test_second_derivatives_exist_for_every_parameter(encoder):
    batch = tokens(encoder)
    params = dict(encoder.module.named_parameters())
    hidden = encoder.module(batch.token_ids, batch.mask)
    loss = (pool(hidden, batch, "mean")[:, :3] ** 3).mean()
    first = torch.autograd.grad(loss, list(params.values()), create_graph=True)
    norm = sum((gradient**2).sum() for gradient in first)
    second = torch.autograd.grad(norm, list(params.values()), materialize_grads=True)
    assert all(gradient.isfinite().all() for gradient in second)
    moved = [name for name, value in zip(params, second, strict=True) if value.abs().max() > 0]
    assert any("query" in name for name in moved)  # through attention, too
    assert any("embedding" in name for name in moved)


def test_second_derivatives_agree_with_finite_differences(encoder):
    module, batch = encoder.module, tokens(encoder)
    double = {
        key: tensor.detach().double() if tensor.is_floating_point() else tensor
        for key, tensor in (*module.named_parameters(), *module.named_buffers())
    }
    name = next(key for key in double if "query" in key and key.endswith("weight"))

    def loss(value):
        weights = {**double, name: value}
        hidden = torch.func.functional_call(module, weights, (batch.token_ids, batch.mask))
        return (pool(hidden, batch, "cls")[:, :3] ** 3).mean()

    value, first = double[name], torch.func.grad(loss)
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(value.shape, generator=generator, dtype=torch.float64)
    along = torch.func.grad(lambda value: (first(value) * direction).sum())(value)
    # The rotary code of ESM rounds to single precision, which asks for a longer step.
    step = 1e-2 if encoder.name == "esm" else 1e-4
    expected = (first(value + step * direction) - first(value - step * direction)) / (2 * step)
    assert along.norm() > 0
    assert (along - expected).norm() < 0.01 * along.norm()


def test_tiny_is_decided_by_its_seed_alone():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    encoder = tiny_encoder(seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert encoder.sha256 == TINY_SHA256
    assert tiny_encoder(seed=1).sha256 != TINY_SHA256
    assert encoder.provenance["seed"] == 0


def test_tiny_is_small_and_has_the_sizes_asked_for():
    encoder = tiny_encoder(width=32, layers=3, heads=2, max_tokens=40)
    assert (encoder.width, encoder.max_tokens, len(encoder.module.blocks)) == (32, 40, 3)
    assert sum(parameter.numel() for parameter in tiny_encoder().module.parameters()) < 100_000


def test_the_fingerprint_sees_weights_names_shapes_and_settings():
    def linear(**weights):
        module = torch.nn.Module()
        for name, value in weights.items():
            module.register_parameter(name, torch.nn.Parameter(value))
        return module

    ones = torch.ones(2, 3)
    prints = [
        fingerprint(linear(a=ones), {}),
        fingerprint(linear(a=2 * ones), {}),
        fingerprint(linear(b=ones), {}),
        fingerprint(linear(a=ones.T.contiguous()), {}),
        fingerprint(linear(a=ones), {"heads": 2}),
    ]
    assert len(set(prints)) == len(prints)
    assert fingerprint(linear(a=ones.clone()), {}) == prints[0]
    assert all(len(value) == hashlib.sha256().digest_size * 2 for value in prints)


def test_heads_are_part_of_the_hash():
    assert tiny_encoder(heads=2).sha256 != tiny_encoder(heads=4).sha256


def example_batch():
    """Two rows of three tokens; the second has a padding column and no site."""
    return TokenBatch(
        token_ids=torch.zeros((2, 3), dtype=torch.int64),
        mask=torch.tensor([[True, True, True], [True, True, False]]),
        sites=torch.tensor([[False, True, True], [False, False, False]]),
    )


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [("cls", [1.0, 10.0]), ("mean", [3.0, 15.0]), ("sites", [4.0, 15.0])],
)
def test_pooling(pooling, expected):
    hidden = torch.tensor([[[1.0], [3.0], [5.0]], [[10.0], [20.0], [1000.0]]])
    assert pool(hidden, example_batch(), pooling).squeeze(1).tolist() == expected


def test_padding_has_no_part_in_the_gradient_of_a_pooling():
    for pooling in POOLINGS:
        hidden = torch.ones((2, 3, 1), requires_grad=True)
        pool(hidden, example_batch(), pooling).sum().backward()
        assert hidden.grad[1, 2] == 0


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: pool(torch.ones(2, 3, 1), example_batch(), "max"), "no pooling 'max'; use one of"),
        (lambda: load_encoder("tiny", separator="new"), "own separator"),
    ],
)
def test_bad_input(call, says):
    with pytest.raises(DataError, match=says):
        call()


def test_load_encoder_knows_tiny():
    assert load_encoder("tiny").sha256 == TINY_SHA256
    assert load_encoder("tiny", seed=3).sha256 == tiny_encoder(seed=3).sha256
    assert load_encoder("tiny", max_tokens=99).max_tokens == 99
