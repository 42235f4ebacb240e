"""What kind of change a substitution is: charge, hydrophobicity, proline, glycine, size."""

from mutmeta_lib.data.variants import Substitution

HYDROPHOBIC = frozenset("AVILMFWYC")
CHARGE = {"D": -1, "E": -1, "K": 1, "R": 1}
AROMATIC = frozenset("FWYH")


def mutation_types(substitution: Substitution) -> tuple[str, ...]:
    """The types that a substitution belongs to; a substitution may have several or none.

    >>> from mutmeta_lib.data.variants import Substitution
    >>> mutation_types(Substitution(7, "L", "P"))
    ('to proline', 'hydrophobic to polar')
    >>> mutation_types(Substitution(7, "K", "R"))
    ('polar to polar',)
    """
    before, after = substitution.wild_type, substitution.mutant
    found = []
    if after == "P":
        found.append("to proline")
    if before in "PG":
        found.append("from proline or glycine")
    if after == "G":
        found.append("to glycine")
    if CHARGE.get(before, 0) != CHARGE.get(after, 0):
        found.append("charge changed")
    if before in AROMATIC or after in AROMATIC:
        found.append("aromatic")
    sides = ("hydrophobic" if letter in HYDROPHOBIC else "polar" for letter in (before, after))
    found.append(" to ".join(sides))
    return tuple(found)
