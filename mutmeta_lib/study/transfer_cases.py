"""Who is trained on, who chooses, who is tested: the three regimes of the third arm.

- ``proteins``: all properties are in meta-training, the test proteins are not (cluster folds).
- ``properties``: one property is tested, meta-training has assays of the others alone; clusters
  that carry the tested property are out of it altogether.
- ``related``: as ``proteins``, but for clusters with several assays in the test group: one of them
  is tested, the others move to meta-training. What differs from ``proteins`` on the same assay,
  fold and seed is that another assay of the same protein has been seen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mutmeta_lib.data.assays import Assay
from mutmeta_lib.data.splits import Split, protein_folds
from mutmeta_lib.errors import DataError
from mutmeta_lib.seeds import stable_seed

REGIMES = ("proteins", "properties", "related")


@dataclass(frozen=True)
class Case:
    """One split of one regime for one seed; ``name`` is the fold or the property held out."""

    regime: str
    name: str
    seed: int
    split: Split


def draw_cases(
    assays: Sequence[Assay],
    clusters: Mapping[str, int],
    regime: str,
    *,
    n_folds: int,
    seeds: int,
    held_out: Sequence[str] | None = None,
    validation_share: float = 0.2,
) -> list[Case]:
    """All cases of a regime, in order of seed.

    Args:
        assays: the assays of the arm.
        clusters: wild type -> cluster, from ``splits.cluster_proteins``.
        regime: one of ``REGIMES``.
        n_folds: folds of clusters in ``proteins`` and ``related``; they do not depend on the seed.
        seeds: number of seeds.
        held_out: properties to hold out in ``properties``; all of the assays' when None.
        validation_share: in ``properties``, the share of the clusters not tested that chooses.

    Raises:
        DataError: a property leaves too few clusters to train and to choose on.

    """
    if regime not in REGIMES:
        raise ValueError(f"unknown regime {regime!r}; choose from {REGIMES}")
    by_id = {assay.id: assay for assay in assays}
    of = {name: clusters[assay.wild_type] for name, assay in by_id.items()}
    cases = []
    if regime == "properties":
        present = sorted({assay.property for assay in assays})
        for seed in range(seeds):
            for name in held_out if held_out is not None else present:
                split = _hold_out(by_id, of, name, seed, validation_share)
                cases.append(Case(regime, name, seed, split))
        return cases
    folds = protein_folds(assays, n_folds)
    for seed in range(seeds):
        for place, fold in enumerate(folds):
            split = fold if regime == "proteins" else _with_relatives(fold, of, seed)
            if split.test:
                cases.append(Case(regime, f"fold {place + 1}", seed, split))
    return cases


def _hold_out(
    by_id: Mapping[str, Assay],
    of: Mapping[str, int],
    tested: str,
    seed: int,
    validation_share: float,
) -> Split:
    test = tuple(sorted(name for name, assay in by_id.items() if assay.property == tested))
    touched = {of[name] for name in test}
    others = sorted({of[name] for name in by_id} - touched)
    if not test or len(others) < 2:
        raise DataError(
            f"holding out {tested} leaves {len(others)} clusters of other proteins",
            "add assays of other properties, or hold out another one",
        )
    rng = np.random.default_rng(stable_seed("held out", tested, seed))
    drawn = rng.permutation(len(others))
    count = min(max(1, round(validation_share * len(others))), len(others) - 1)
    chooses = {others[place] for place in drawn[:count]}
    rest = [name for name in sorted(by_id) if of[name] not in touched]
    return Split(
        tuple(name for name in rest if of[name] not in chooses),
        tuple(name for name in rest if of[name] in chooses),
        test,
    )


def _with_relatives(fold: Split, of: Mapping[str, int], seed: int) -> Split:
    """One assay per cluster with several in the test group, in turns of the seed; others train."""
    groups: dict[int, list[str]] = {}
    for name in fold.test:
        groups.setdefault(of[name], []).append(name)
    several = [sorted(group) for group in groups.values() if len(group) > 1]
    test = {group[seed % len(group)] for group in several}
    seen = {name for group in several for name in group} - test
    return Split(tuple(sorted({*fold.train, *seen})), fold.validation, tuple(sorted(test)))
