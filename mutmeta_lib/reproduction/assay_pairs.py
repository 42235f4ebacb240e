"""Two assays of one protein: which variants they share, and how their numbering fits together."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

import numpy as np

from mutmeta_lib.data.assays import Assay, read_data_dir
from mutmeta_lib.data.clustering import best_alignment
from mutmeta_lib.data.selections import SELECTIONS
from mutmeta_lib.data.tables import FIRST_ROW, read_columns
from mutmeta_lib.data.variants import Substitution, Variant
from mutmeta_lib.errors import DataError
from mutmeta_lib.seeds import stable_seed


@dataclass(frozen=True, eq=False)
class Pair:
    """Two assays of one protein.

    Attributes:
        kind: What differs between them.
        a: One assay.
        b: The other.
        shared: Row of ``a`` -> row of ``b`` with the same substitutions.

    """

    kind: str
    a: Assay
    b: Assay
    shared: dict[int, int]

    def turned(self) -> "Pair":
        """The same pair the other way round."""
        return Pair(self.kind, self.b, self.a, {b: a for a, b in self.shared.items()})


def read_pairs(path: str | PathLike[str] = SELECTIONS / "pairs.csv") -> list[tuple[str, str, str]]:
    """Read a list of pairs: columns kind, a, b (ids of assays).

    Raises:
        DataError: A missing column, an empty id, or an assay paired with itself.

    """
    columns = read_columns(Path(path), ["kind", "a", "b"])
    rows = list(zip(columns["kind"], columns["a"], columns["b"], strict=True))
    for place, (_, a, b) in enumerate(rows):
        if not a or not b or a == b:
            raise DataError(
                "a pair needs two different assays",
                "name both",
                file=path,
                row=FIRST_ROW + place,
                column="b",
            )
    return rows


def load_pairs(data_dir: str, listed: Sequence[tuple[str, str, str]], cap: int) -> list[Pair]:
    """Read the listed pairs, each assay cut to ``cap`` variants, those that both have first."""
    ids = sorted({name for _, *names in listed for name in names})
    assays = {assay.id: assay for assay in read_data_dir(data_dir, ids=ids)}
    return [make_pair(kind, assays[a], assays[b], cap) for kind, a, b in listed]


def make_pair(kind: str, a: Assay, b: Assay, cap: int) -> Pair:
    """Pair two assays of proteins that align, cut to ``cap`` variants each.

    Raises:
        DataError: The wild types do not align over half of the shorter one.

    """
    place = positions(a.wild_type, b.wild_type)
    same = sum(a.wild_type[i - 1] == b.wild_type[j - 1] for i, j in place.items())
    if same < 0.5 * min(len(a.wild_type), len(b.wild_type)):
        raise DataError(f"{a.id} and {b.id} are of different proteins", "pair other assays")
    both = shared_rows(a, b, place)
    rng = np.random.default_rng(stable_seed("pair", a.id, b.id))
    kept = [sorted(both.items())[i] for i in rng.permutation(len(both))[:cap]]
    rows_a = _fill([i for i, _ in kept], len(a), cap, rng)
    rows_b = _fill([j for _, j in kept], len(b), cap, rng)
    at_a, at_b = ({row: at for at, row in enumerate(rows)} for rows in (rows_a, rows_b))
    shared = {at_a[i]: at_b[j] for i, j in sorted(both.items()) if i in at_a and j in at_b}
    return Pair(kind, _take(a, rows_a), _take(b, rows_b), shared)


def positions(a: str, b: str) -> dict[int, int]:
    """Position in ``a`` -> position in ``b`` (both from 1) by their best alignment.

    >>> positions("MKTAY", "KTAY")
    {2: 1, 3: 2, 4: 3, 5: 4}
    """
    trace = best_alignment(a, b).trace
    paired = trace[(trace >= 0).all(axis=1)]
    return {int(i) + 1: int(j) + 1 for i, j in paired}


def shared_rows(a: Assay, b: Assay, place: dict[int, int]) -> dict[int, int]:
    """Row of ``a`` -> row of ``b`` with the same substitutions at the aligned positions."""
    row_of = {variant: row for row, variant in enumerate(b.variants)}
    found = {}
    for row, variant in enumerate(a.variants):
        moved = _moved(variant, place)
        if variant and moved in row_of:
            found[row] = row_of[moved]
    return found


def _moved(variant: Variant, place: dict[int, int]) -> Variant | None:
    if any(s.position not in place for s in variant):
        return None
    return tuple(Substitution(place[s.position], s.wild_type, s.mutant) for s in variant)


def _fill(rows: list[int], n: int, cap: int, rng: np.random.Generator) -> list[int]:
    """Those rows, and others drawn until there are ``cap``, in the order of the assay."""
    others = np.setdiff1d(np.arange(n), rows)
    extra = rng.permutation(others)[: max(0, cap - len(rows))]
    return sorted([*rows, *extra.tolist()])


def _take(assay: Assay, rows: Sequence[int]) -> Assay:
    variants = tuple(assay.variants[row] for row in rows)
    return replace(assay, variants=variants, scores=assay.scores[list(rows)])
