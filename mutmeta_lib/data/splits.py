"""Protein-disjoint folds for meta-training, validation and test."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mutmeta_lib.data.assays import Assay
from mutmeta_lib.data.proteins import cluster_proteins
from mutmeta_lib.errors import DataError


@dataclass(frozen=True)
class Split:
    """Ids of the assays for meta-training, validation and test, each in alphabetical order."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


def protein_folds(assays: Sequence[Assay], n_folds: int, seed: int = 0) -> tuple[Split, ...]:
    """Deal clusters of homologous proteins to folds; every assay is tested in exactly one.

    Clusters (`cluster_proteins`) are dealt, largest first and in an order drawn with `seed`, to
    groups of about equally many assays. In fold i, group i is for test, the next for validation and
    the others for meta-training. The order of `assays` does not matter. Raises `DataError` for
    fewer than three folds, fewer clusters than folds, or an id twice.
    """
    if n_folds < 3:
        raise DataError(f"{n_folds} folds leave some part without any", "use 3 or more folds")
    if len({assay.id for assay in assays}) < len(assays):
        raise DataError("two assays have the same id", "give each assay its own id")
    clusters = cluster_proteins(assays)
    members: dict[int, list[str]] = defaultdict(list)
    for assay in assays:
        members[clusters[assay.wild_type]].append(assay.id)
    if len(members) < n_folds:
        problem = f"{n_folds} folds need as many clusters of proteins, and there are {len(members)}"
        mend = f"use {len(members)} folds or add proteins"
        if len(members) < 3:
            mend = "add proteins of other families, such as ProteinGym's (mutmeta data fetch)"
        raise DataError(problem, mend)
    rng = np.random.default_rng(seed)
    drawn = [sorted(members)[i] for i in rng.permutation(len(members))]
    groups: list[list[str]] = [[] for _ in range(n_folds)]
    for cluster in sorted(drawn, key=lambda c: -len(members[c])):
        min(groups, key=len).extend(members[cluster])
    groups = [sorted(groups[i]) for i in rng.permutation(n_folds)]
    folds = []
    for i, test in enumerate(groups):
        validation, *others = groups[i + 1 :] + groups[:i]
        train = sorted(name for group in others for name in group)
        folds.append(Split(tuple(train), tuple(validation), tuple(test)))
    return tuple(folds)
