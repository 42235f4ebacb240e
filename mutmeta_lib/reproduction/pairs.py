"""Two assays of one protein: which variants they share, and how their numbering fits together."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mutmeta_lib.data.assays import Assay
from mutmeta_lib.data.folders import read_data_dir
from mutmeta_lib.data.lists import LISTS
from mutmeta_lib.data.proteins import best_alignment
from mutmeta_lib.data.tables import read_columns
from mutmeta_lib.errors import DataError
from mutmeta_lib.seeds import stable_seed

LISTED = LISTS / "pairs.csv"
"""The pairs of sound assays, with what differs between the two."""


@dataclass(frozen=True, eq=False)
class Pair:
    """Two assays of one protein.

    ``kind`` is what differs between them; ``shared`` maps a row of ``a`` to the row of ``b`` with
    the same substitutions.
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
    groups: dict[str, list[Assay]] = {}
    for assay in assays:
        groups.setdefault(assay.protein, []).append(assay)
    most = max(sorted(groups), key=lambda name: len(groups[name]))
    both = zip(groups[most][::2], groups[most][1::2], strict=False)
    return [make_pair("two backgrounds", a, b, cap) for a, b in both]


def make_pair(kind: str, a: Assay, b: Assay, cap: int) -> Pair:
    """Pair two assays of proteins that align, cut to ``cap`` variants each.

    Raises `DataError` where fewer than half of the shorter wild type's residues agree.
    """
    place = positions(a.wild_type, b.wild_type)
    same = sum(a.wild_type[i - 1] == b.wild_type[j - 1] for i, j in place.items())
    if same < 0.5 * min(len(a.wild_type), len(b.wild_type)):
        raise DataError(f"{a.id} and {b.id} are of different proteins", "pair other assays")
    row_of = {variant: row for row, variant in enumerate(b.variants)}
    both = []
    for row, variant in enumerate(a.variants):
        if variant and all(s.position in place for s in variant):
            moved = tuple(replace(s, position=place[s.position]) for s in variant)
            if moved in row_of:
                both.append((row, row_of[moved]))
    rng = np.random.default_rng(stable_seed("pair", a.id, b.id))
    kept = [both[i] for i in rng.permutation(len(both))[:cap]]
    rows = [_fill([pair[i] for pair in kept], len((a, b)[i]), cap, rng) for i in (0, 1)]
    at = [{row: place for place, row in enumerate(own)} for own in rows]
    shared = {at[0][i]: at[1][j] for i, j in both if i in at[0] and j in at[1]}
    return Pair(kind, _take(a, rows[0]), _take(b, rows[1]), shared)


def positions(a: str, b: str) -> dict[int, int]:
    """Position in ``a`` -> position in ``b`` (both from 1) by their best alignment.

    >>> positions("MKTAY", "KTAY")
    {2: 1, 3: 2, 4: 3, 5: 4}
    """
    trace = best_alignment(a, b).trace
    return {int(i) + 1: int(j) + 1 for i, j in trace[(trace >= 0).all(axis=1)]}


def _fill(rows: list[int], n: int, cap: int, rng: np.random.Generator) -> list[int]:
    """Those rows, and others drawn until there are ``cap``, in the order of the assay."""
    others = np.setdiff1d(np.arange(n), rows)
    extra = rng.permutation(others)[: max(0, cap - len(rows))]
    return sorted([*rows, *extra.tolist()])


def _take(assay: Assay, rows: Sequence[int]) -> Assay:
    variants = tuple(assay.variants[row] for row in rows)
    return replace(assay, variants=variants, scores=assay.scores[list(rows)])
