"""A toy copy of the public repository with everything that the protocol reads."""

import numpy as np
from release_copy import WILD, write_table

from mutmeta_lib.data.variants import AMINO_ACIDS

OTHER = "MSTNPKPQRKTKRNT"


def toy_release(folder, rows=60, seed=0):
    """Three targets, one without a training file, and the data of the initial fit."""
    rng = np.random.default_rng(seed)

    def table(wild):
        made = []
        for _ in range(rows):
            position = int(rng.integers(1, len(wild)))
            old = wild[position]
            new = rng.choice([a for a in AMINO_ACIDS if a != old])
            made.append((wild, [f"{old}{position + 1}{new}"], rng.standard_normal(), "s", "f"))
        return made

    for name, label in (("combined_ddG", "ddG"), ("fireprot_dTm", "dTm")):
        for part in ("train", "test"):
            write_table(folder, f"{name}_{part}", table(WILD), label)
    for part in ("train", "test"):
        write_table(folder, f"binding_affinity_{part}", table(OTHER), "binding_affinity")
    write_table(folder, "soluprotmut_solubility_test", table(OTHER), "solubility_change")
    return folder
