"""What is known of the assays of the third arm beside their results: who is near, what is odd."""

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import pandas as pd
from scipy.stats import skew

from mutmeta_lib.data.assays import Assay
from mutmeta_lib.data.clustering import identity
from mutmeta_lib.study.transfer_cases import Case


def describe_assays(
    assays: Sequence[Assay], roles: Mapping[str, str], clusters: Mapping[str, int]
) -> pd.DataFrame:
    """One row per assay: property, role, cluster, counts, and the shape of its labels.

    ``skewness`` is that of the scores, ``ties`` the share of the most frequent score, ``sites`` the
    number of mutated positions, ``several`` the share of variants with several mutations.
    """
    rows = []
    for assay in assays:
        _, counts = np.unique(assay.scores, return_counts=True)
        sites = {change.position for variant in assay.variants for change in variant}
        rows.append(
            {
                "assay": assay.id,
                "property": assay.property,
                "role": roles[assay.id],
                "cluster": clusters[assay.wild_type],
                "variants": len(assay),
                "length": len(assay.wild_type),
                "sites": len(sites),
                "several": float(np.mean([len(variant) > 1 for variant in assay.variants])),
                "skewness": float(skew(assay.scores)),
                "ties": counts.max() / len(assay),
            }
        )
    return pd.DataFrame(rows)


def about_assays(rows: pd.DataFrame, assays: pd.DataFrame) -> pd.DataFrame:
    """The rows with property, role and cluster of their assay, out of `describe_assays`."""
    known = assays.set_index("assay")
    told = ("property", "role", "cluster")
    return rows.assign(**{name: rows["assay"].map(known[name]) for name in told})


def nearest_trained(assays: Sequence[Assay], cases: Sequence[Case]) -> list[dict]:
    """Identity of every test assay to the nearest meta-training protein, mean over seeds."""
    sequences = {assay.id: assay.wild_type for assay in assays}

    @cache
    def alike(one: str, other: str) -> float:
        return identity(one, other)

    found: dict[tuple[str, str], list[float]] = {}
    seen = set()
    for case in cases:
        if (key := (case.regime, case.name, case.seed)) in seen:
            continue
        seen.add(key)
        trained = {sequences[name] for name in case.split.train}
        for name in case.split.test:
            nearest = max(alike(*sorted((sequences[name], other))) for other in trained)
            found.setdefault((case.regime, name), []).append(nearest)
    return [
        {"regime": regime, "assay": name, "identity": float(np.mean(values))}
        for (regime, name), values in found.items()
    ]
