"""Numbers of sites and changes: what they see, and what they do not."""

import numpy as np
import pytest
import torch

from mutmeta_lib.data.variants import AMINO_ACIDS
from mutmeta_lib.models.encoder import tiny_encoder
from mutmeta_lib.models.sites import (
    CHANGES,
    DESCRIPTORS,
    hidden_states,
    neighbourhood,
    window_means,
)

PROTEIN = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQAPILSRVGDGTQDNLSGAEKAVQVKVKALPDAQFEVV"


@pytest.mark.parametrize("radius", [0, 1, 4, 100])
def test_windows_end_with_the_chain(radius):
    values = np.random.default_rng(0).normal(size=(9, 3))
    expected = [values[max(0, i - radius) : i + radius + 1].mean(axis=0) for i in range(9)]
    np.testing.assert_allclose(window_means(values, radius), expected)


def test_a_change_is_told_from_its_reverse():
    w, k = AMINO_ACIDS.index("W"), AMINO_ACIDS.index("K")
    there, back = CHANGES[w, k], CHANGES[k, w]
    np.testing.assert_array_equal(there[:20], back[20:40])
    np.testing.assert_allclose(there[40:50], -back[40:50])
    np.testing.assert_allclose(there[50:60], back[50:60])
    np.testing.assert_allclose(there[60:70], DESCRIPTORS[k], rtol=1e-6)
    assert there[70] == back[70] == -1.5  # half of BLOSUM62's -3


def test_descriptors_follow_the_amino_acids():
    scale = dict(zip(AMINO_ACIDS, DESCRIPTORS, strict=True))
    hydropathy = sorted(AMINO_ACIDS, key=lambda one: scale[one][0])
    assert hydropathy[0] == "R"
    assert hydropathy[-1] == "I"
    assert max(AMINO_ACIDS, key=lambda one: scale[one][1]) == "W"
    assert {one for one in AMINO_ACIDS if scale[one][2] < -1} == {"D", "E"}


def test_a_site_sees_its_neighbours_and_no_farther():
    changed = PROTEIN[:40] + "W" + PROTEIN[41:]
    moved = np.abs(neighbourhood(changed) - neighbourhood(PROTEIN)).max(axis=1) > 0
    assert moved[40 - 15 : 40 + 16].all()
    assert not moved[:25].any()
    assert not moved[56:].any()
    assert np.isfinite(neighbourhood("MXK")).all()


def test_states_are_the_encoders_and_long_proteins_are_read_in_windows():
    encoder = tiny_encoder(max_tokens=32)
    short = PROTEIN[:20]
    start, end = encoder.vocabulary.frame
    ids = [*start, *encoder.vocabulary.residue_ids(short), *end]
    with torch.no_grad():
        whole = encoder.module(torch.tensor([ids]), None)[0].numpy()
    first = len(start)
    np.testing.assert_allclose(hidden_states(encoder, short), whole[first : first + 20], atol=1e-5)
    assert hidden_states(encoder, PROTEIN).shape == (len(PROTEIN), encoder.width)
