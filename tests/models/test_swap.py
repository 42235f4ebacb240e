"""Encoders that differ from the original."""

import pytest
import torch
from toy import toy_assay

from mutmeta_lib.errors import DataError
from mutmeta_lib.models.embed import embed
from mutmeta_lib.models.encoder import tiny_encoder
from mutmeta_lib.models.swap import swap
from mutmeta_lib.tasks.encodings import encode_variants

ENCODER = tiny_encoder(width=16, heads=2)
with torch.no_grad():  # vectors, too, have values to keep
    for number, weight in enumerate(ENCODER.module.parameters()):
        weight += 0.01 * torch.rand(weight.shape, generator=torch.Generator().manual_seed(number))


def vectors(encoder):
    assay = toy_assay(0, n=8)
    batch = encode_variants(
        "separator", assay.wild_type, assay.variants, encoder.vocabulary, encoder.max_tokens
    )
    return torch.from_numpy(embed(encoder, batch, "sites"))


@pytest.mark.parametrize(
    "kind", ["same", "bfloat16", "int8", "noise 0.01", "one layer less", "shuffled"]
)
def test_a_swap_is_an_encoder_of_its_own_and_leaves_the_original_alone(kind):
    before = vectors(ENCODER)
    swapped = swap(ENCODER, kind)
    after = vectors(swapped)
    assert after.shape == before.shape
    assert torch.equal(vectors(ENCODER), before)
    same = kind == "same"
    assert torch.equal(after, before) == same
    assert (swapped.sha256 == ENCODER.sha256) == same
    assert swap(ENCODER, kind).sha256 == swapped.sha256


@pytest.mark.parametrize("share", [0.1, 1.0])
def test_noise_is_a_share_of_the_spread_of_each_matrix(share):
    old = dict(ENCODER.module.named_parameters())
    for name, value in swap(ENCODER, f"noise {share}").module.named_parameters():
        moved = (value - old[name]).detach()
        if value.dim() > 1:
            wanted = share * old[name].std().item()
            assert moved.std().item() == pytest.approx(wanted, rel=0.2), name
        else:
            assert not moved.any(), name


def test_rounding_moves_vectors_little():
    before = vectors(ENCODER)
    for kind in ("bfloat16", "int8"):
        assert float((vectors(swap(ENCODER, kind)) - before).norm() / before.norm()) < 0.05


def test_shuffled_weights_are_the_same_weights():
    old = dict(ENCODER.module.named_parameters())
    for name, value in swap(ENCODER, "shuffled").module.named_parameters():
        torch.testing.assert_close(value.flatten().sort()[0], old[name].flatten().sort()[0])


def test_one_layer_less_is_what_enters_the_last_layer_and_the_unknown_is_refused():
    ids = torch.arange(4, 12)[None]
    found = swap(ENCODER, "one layer less").module(ids, None)
    torch.testing.assert_close(found, ENCODER.module(ids, None, stop=ENCODER.layers - 1))
    with pytest.raises(DataError, match="no layer to spare"):
        swap(tiny_encoder(layers=1), "one layer less")
    with pytest.raises(DataError, match="no swap 'melted'"):
        swap(ENCODER, "melted")
