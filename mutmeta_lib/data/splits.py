"""Protein-disjoint folds for meta-training, validation and test, and the manifest of a split."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from mutmeta_lib.data.assays import Assay
from mutmeta_lib.data.clustering import cluster_proteins, identity
from mutmeta_lib.errors import DataError

__all__ = [
    "Split",
    "cluster_proteins",
    "identity",
    "protein_folds",
    "read_split_manifest",
    "write_split_manifest",
]


@dataclass(frozen=True)
class Split:
    """Ids of the assays for meta-training, validation and test, each in alphabetical order."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


def protein_folds(
    assays: Sequence[Assay],
    n_folds: int,
    seed: int = 0,
    threshold: float = 0.3,
    *,
    method: str = "auto",
) -> tuple[Split, ...]:
    """Deal clusters of alike proteins to folds; every assay is tested in exactly one.

    Clusters (`cluster_proteins` with `threshold` and `method`) are dealt, largest first and in an
    order drawn with `seed`, to `n_folds` groups so that the groups hold about equally many assays.
    In fold i, group i is for test, the next one for validation and the others for meta-training.
    The result does not depend on the order of `assays`. Raises `DataError` for fewer than three
    folds, fewer clusters than folds, or an id that occurs twice.
    """
    if n_folds < 3:
        raise DataError(
            f"{n_folds} folds cannot hold training, validation and test", "use 3 or more folds"
        )
    members: dict[int, list[str]] = defaultdict(list)
    clusters = cluster_proteins(assays, threshold, method)
    for assay in _by_id(assays).values():
        members[clusters[assay.wild_type]].append(assay.id)
    if len(members) < n_folds:
        raise DataError(
            f"{n_folds} folds need as many clusters of proteins, and there are {len(members)}",
            f"use {len(members)} folds or add proteins"
            if len(members) >= 3
            else "add proteins of other families, such as ProteinGym's (mutmeta data fetch)",
        )
    rng = np.random.default_rng(seed)
    drawn = [sorted(members)[i] for i in rng.permutation(len(members))]
    groups: list[list[str]] = [[] for _ in range(n_folds)]
    for cluster in sorted(drawn, key=lambda c: -len(members[c])):
        min(groups, key=len).extend(members[cluster])
    groups = [groups[i] for i in rng.permutation(n_folds)]
    folds = []
    for i, test in enumerate(groups):
        next_one = (i + 1) % n_folds
        train = [name for j, group in enumerate(groups) if j not in (i, next_one) for name in group]
        folds.append(Split(*(tuple(sorted(ids)) for ids in (train, groups[next_one], test))))
    return tuple(folds)


def _by_id(assays: Sequence[Assay]) -> dict[str, Assay]:
    by_id = {assay.id: assay for assay in assays}
    if len(by_id) < len(assays):
        raise DataError("two assays have the same id", "give each assay its own id")
    return dict(sorted(by_id.items()))


def write_split_manifest(
    path: str | PathLike[str],
    assays: Sequence[Assay],
    folds: Sequence[Split],
    *,
    seed: int,
    threshold: float = 0.3,
    method: str = "auto",
) -> str:
    """Write folds as JSON with what they rest on, and return the hash over it all.

    The file holds, per assay, its id, the sha256 of its content and its cluster; the folds; and
    threshold, method and seed. Raises `DataError` when the folds name an assay that is not given.
    """
    by_id = _by_id(assays)
    clusters = cluster_proteins(assays, threshold, method)
    for fold in folds:
        for name in (*fold.train, *fold.validation, *fold.test):
            if name not in by_id:
                raise DataError(f"the folds name '{name}', which is not given", "pass all assays")
    content = {
        "assays": {
            name: {"sha256": assay.sha256, "cluster": clusters[assay.wild_type]}
            for name, assay in by_id.items()
        },
        "folds": [{part: list(ids) for part, ids in asdict(fold).items()} for fold in folds],
        "threshold": threshold,
        "method": method,
        "seed": seed,
    }
    text = json.dumps({**content, "hash": _hash(content)}, indent=1, sort_keys=True)
    Path(path).write_text(text + "\n", encoding="utf-8")
    return _hash(content)


def _hash(content: dict) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def read_split_manifest(
    path: str | PathLike[str], assays: Sequence[Assay] | None = None
) -> tuple[Split, ...]:
    """Read folds written by `write_split_manifest`; with `assays`, check that they are the same.

    Raises `DataError` when the file is not such a manifest, was edited, or was made for an assay
    whose content has changed, or that is not among `assays`.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError("the file does not exist", "check the path", file=path) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"the file is not JSON ({error})", "write it again", file=path) from error
    expected = {"assays", "folds", "threshold", "method", "seed", "hash"}
    if not isinstance(content, dict) or set(content) != expected:
        raise DataError("this is not a manifest of splits", "give one", file=path)
    if content.pop("hash") != _hash(content):
        raise DataError("the manifest was edited: its hash differs", "write it again", file=path)
    given = {} if assays is None else _by_id(assays)
    for name, entry in content["assays"].items():
        if assays is None:
            break
        if name not in given:
            raise DataError(f"the assay '{name}' is missing", "read the same data", file=path)
        if given[name].sha256 != entry["sha256"]:
            raise DataError(
                f"the data of '{name}' have changed since the split was made",
                "restore them or split anew",
                file=path,
            )
    return tuple(
        Split(tuple(fold["train"]), tuple(fold["validation"]), tuple(fold["test"]))
        for fold in content["folds"]
    )
