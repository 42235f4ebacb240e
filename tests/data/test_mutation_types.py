"""Types of substitutions."""

import pytest

from mutmeta_lib.data.mutation_types import mutation_types
from mutmeta_lib.data.variants import AMINO_ACIDS, Substitution


@pytest.mark.parametrize(
    ("before", "after", "types"),
    [
        ("A", "P", {"to proline", "hydrophobic to polar"}),
        ("G", "A", {"from proline or glycine", "polar to hydrophobic"}),
        ("D", "K", {"charge changed", "polar to polar"}),
        ("D", "E", {"polar to polar"}),
        ("F", "L", {"aromatic", "hydrophobic to hydrophobic"}),
        ("S", "G", {"to glycine", "polar to polar"}),
    ],
)
def test_types(before, after, types):
    assert set(mutation_types(Substitution(1, before, after))) == types


def test_every_substitution_has_exactly_one_change_of_side():
    for before in AMINO_ACIDS:
        for after in set(AMINO_ACIDS) - {before}:
            sides = [
                t
                for t in mutation_types(Substitution(1, before, after))
                if "phobic" in t or t == "polar to polar"
            ]
            assert len(sides) == 1
