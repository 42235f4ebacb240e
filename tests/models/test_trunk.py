"""The trunk: a variant is the sum of its substitutions, and nothing is dropped outside training."""

import pytest
import torch
from toy import toy_site_assays, toy_site_predictor

from mutmeta_lib.data.variants import parse_variant
from mutmeta_lib.models.sites import UNTOLD, site_numbers, site_rows
from mutmeta_lib.models.trunk import trunk_encoder

PREDICTOR = toy_site_predictor()
TRUNK = PREDICTOR.encoder.module
PARAMS = PREDICTOR.init(torch.Generator().manual_seed(0))
WILD_TYPE = "MKTAYIAKQRQISFVKSHFS"
VARIANTS = [*map(parse_variant, ("K2A", "Y5F", "K2A:Y5F", "K2A:Y5F:S13W")), ()]
ROWS = site_rows(site_numbers("no_encoder", WILD_TYPE), VARIANTS, "stability")


@torch.no_grad()
def predicted(rows, params=PARAMS):
    return PREDICTOR(params, rows.rows(range(len(rows)))) - params["head.0.bias"]


def test_substitutions_add_up_and_the_wild_type_is_nothing():
    a, b, both, three, nothing = predicted(ROWS)
    last = predicted(site_rows(ROWS.sites, [parse_variant("S13W")], "stability"))[0]
    torch.testing.assert_close(both, a + b)
    torch.testing.assert_close(three, a + b + last)
    assert nothing == 0


def test_a_row_does_not_depend_on_its_company():
    whole, alone = predicted(ROWS), predicted(site_rows(ROWS.sites, VARIANTS[:1], "stability"))
    torch.testing.assert_close(whole[:1], alone)
    torch.testing.assert_close(predicted(ROWS), whole, rtol=0, atol=0)


def test_what_is_dropped_in_training_depends_on_the_seed_alone():
    batch = ROWS.rows(range(len(ROWS)))
    TRUNK.train()
    try:
        with torch.random.fork_rng():
            drawn = []
            for seed in (0, 0, 1):
                torch.manual_seed(seed)
                drawn.append(TRUNK(batch.hidden, batch.mask).hidden)
    finally:
        TRUNK.eval()
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.allclose(drawn[0], drawn[2])


def test_another_seed_is_another_trunk_and_far_numbers_are_cut():
    location, scale = TRUNK.location, TRUNK.scale
    again, other = (trunk_encoder(location, scale, seed=seed) for seed in (0, 1))
    assert again.sha256 == PREDICTOR.encoder.sha256 != other.sha256
    far = location + torch.tensor([-99.0, 2.0, 99.0])[:, None] * scale
    assert TRUNK.standardised(far)[:, 0].tolist() == pytest.approx([-5, 2, 5], abs=1e-4)


def test_an_assay_tells_its_property():
    (encoded,) = toy_site_assays(1)
    last = encoded.tokens.rows([0, 1]).hidden[..., -1]
    assert last.unique().tolist() == [0]
    untold = site_rows(encoded.tokens.sites, encoded.assay.variants)
    assert untold.rows([0]).hidden[..., -1].item() == UNTOLD
