"""Two assays of one protein: which variants they share, and how their numbering fits together."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mutmeta_lib.data.assays import Assay
from mutmeta_lib.data.folders import LISTS, read_data_dir
from mutmeta_lib.data.proteins import best_alignment
from mutmeta_lib.data.tables import read_columns
from mutmeta_lib.errors import DataError
from mutmeta_lib.seeds import stable_seed

LISTED = LISTS / "pairs.csv"
"""Pairs of sound assays, with what differs between the two."""


@dataclass(frozen=True, eq=False)
class Pair:
    """Two assays of one protein, and what differs between them.

    ``shared`` maps a row of ``a`` to the row of ``b`` with the same substitutions.
    """

    kind: str
    a: Assay
    b: Assay
    shared: dict[int, int]

    def turned(self) -> "Pair":
        """The same pair the other way round."""
        return Pair(self.kind, self.b, self.a, {b: a for a, b in self.shared.items()})


def load_pairs(data_dir: str, cap: int) -> list[Pair]:
    """Read the listed pairs, each assay cut to ``cap`` variants, those that both have first."""
    columns = read_columns(LISTED, ["kind", "a", "b"])
    ids = sorted({*columns["a"], *columns["b"]})
    assays = {assay.id: assay for assay in read_data_dir(data_dir, ids=ids)}
    listed = zip(columns["kind"], columns["a"], columns["b"], strict=True)
    return [make_pair(kind, assays[a], assays[b], cap) for kind, a, b in listed]


def neighbours(assays: Sequence[Assay], cap: int) -> list[Pair]:
    """Pairs of neighbouring assays of the protein with the most, its backgrounds."""
    names = [assay.protein for assay in assays]
    most = max(sorted(set(names)), key=names.count)
    own = [assay for assay in assays if assay.protein == most]
    both = zip(own[::2], own[1::2], strict=False)
    return [make_pair("two backgrounds", a, b, cap) for a, b in both]


def make_pair(kind: str, a: Assay, b: Assay, cap: int) -> Pair:
    """Pair two assays of proteins that align, cut to ``cap`` variants each.

    Raises `DataError` where fewer than half of the shorter wild type's residues agree.
    """
    place = positions(a.wild_type, b.wild_type)
    same = sum(a.wild_type[i - 1] == b.wild_type[j - 1] for i, j in place.items())
    if same < 0.5 * min(len(a.wild_type), len(b.wild_type)):
        raise DataError(f"{a.id} and {b.id} are of different proteins", "pair other assays")
    row_of, both = {variant: row for row, variant in enumerate(b.variants)}, []
    for row, variant in enumerate(a.variants):
        if variant and all(s.position in place for s in variant):
            moved = tuple(replace(s, position=place[s.position]) for s in variant)
            both += [(row, row_of[moved])] if moved in row_of else []
    rng = np.random.default_rng(stable_seed("pair", a.id, b.id))
    kept = [both[i] for i in rng.permutation(len(both))[:cap]]
    cut, at = [], []
    for side, assay in enumerate((a, b)):
        rows = [pair[side] for pair in kept]
        others = rng.permutation(np.setdiff1d(np.arange(len(assay)), rows))
        rows = sorted([*rows, *others[: cap - len(rows)].tolist()])
        variants = tuple(assay.variants[row] for row in rows)
        cut.append(replace(assay, variants=variants, scores=assay.scores[rows]))
        at.append({row: place for place, row in enumerate(rows)})
    shared = {at[0][i]: at[1][j] for i, j in both if i in at[0] and j in at[1]}
    return Pair(kind, *cut, shared)


def positions(a: str, b: str) -> dict[int, int]:
    """Position in ``a`` -> position in ``b`` (both from 1) by their best alignment.

    >>> positions("MKTAY", "KTAY")
    {2: 1, 3: 2, 4: 3, 5: 4}
    """
    trace = best_alignment(a, b).trace
    return {int(i) + 1: int(j) + 1 for i, j in trace[(trace >= 0).all(axis=1)]}
