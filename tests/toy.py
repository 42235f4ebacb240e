"""Small made-up assays for tests: unrelated proteins, one rule of the mutant letter, and noise."""

import numpy as np
import torch

from mutmeta_lib.data.assays import Assay
from mutmeta_lib.data.variants import AMINO_ACIDS, single_variants
from mutmeta_lib.models.encoder import tiny_encoder
from mutmeta_lib.models.predictor import Predictor
from mutmeta_lib.models.sites import site_assay, site_numbers
from mutmeta_lib.models.trunk import SUM, trunk_encoder
from mutmeta_lib.tasks.tasks import encode_assay

# The rule that carries over from protein to protein: what each mutant letter is worth.
WORTH = dict(zip(AMINO_ACIDS, np.random.default_rng(99).normal(size=20), strict=True))


def toy_assay(seed=0, name=None, protein=None, length=12, n=60, noise=0.3, property="fitness"):
    rng = np.random.default_rng(seed)
    wild_type = "".join(rng.choice(list(AMINO_ACIDS), length))
    singles = single_variants(wild_type)
    variants = tuple(singles[index] for index in rng.permutation(len(singles))[:n])
    scores = np.array([WORTH[variant[0].mutant] for variant in variants])
    return Assay(
        id=name or f"TOY{seed}",
        protein=protein or f"toy{seed}",
        property=property,
        wild_type=wild_type,
        variants=variants,
        scores=scores + noise * rng.normal(size=len(scores)),
        units="none",
        sign="higher = better",
        source="made up",
    )


def toy_predictor(seed=0, pooling="sites"):
    return Predictor(tiny_encoder(seed=seed, width=16, layers=1, heads=2), pooling, hidden=(16, 8))


def toy_encoded(n_assays=3, encoding="separator", predictor=None, **more):
    encoder = (predictor or toy_predictor()).encoder
    return [
        encode_assay(toy_assay(seed, **more), encoding, encoder.vocabulary, encoder.max_tokens)
        for seed in range(n_assays)
    ]


def toy_sites(wild_type, read="no_encoder"):
    return site_numbers(read, wild_type, toy_predictor().encoder)


def toy_site_predictor(seed=0, read="no_encoder"):
    """A trunk on the numbers of sites, with their usual location and scale."""
    some = torch.cat([toy_sites(toy_assay(i).wild_type, read) for i in range(9)])
    encoder = trunk_encoder(some.mean(dim=0), some.std(dim=0) + 1e-6, seed=seed)
    return Predictor(encoder, SUM, hidden=())


def toy_site_assays(n_assays=3, read="no_encoder", **more):
    assays = [toy_assay(seed, **more) for seed in range(n_assays)]
    return [site_assay(a, read, toy_sites(a.wild_type, read)) for a in assays]
