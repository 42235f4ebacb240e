import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mutmeta_lib.data.assays import Assay
from mutmeta_lib.data.splits import (
    cluster_proteins,
    protein_folds,
    read_split_manifest,
    write_split_manifest,
)
from mutmeta_lib.data.variants import AMINO_ACIDS, parse_variant
from mutmeta_lib.errors import DataError

PROTEINS = ["".join(np.random.default_rng(s).choice(list(AMINO_ACIDS), 60)) for s in range(6)]


def make_assay(protein, copy, score=1.0):
    """The copy-th background of a protein: near-identical wild types."""
    wild_type = "M" * copy + PROTEINS[protein][copy:]
    letter = wild_type[-1]
    variant = parse_variant(f"{letter}60{'A' if letter != 'A' else 'G'}")
    return Assay(
        f"P{protein}/{copy}", f"P{protein}", "fitness", wild_type, (variant,), [score], "", ""
    )


ASSAYS = [make_assay(p, c) for p, n in enumerate([4, 1, 3, 2, 1, 2]) for c in range(n)]
seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=15, deadline=None)
@given(seeds, st.integers(3, 6), st.permutations(ASSAYS))
def test_folds_are_protein_disjoint_and_test_each_assay_once(seed, n_folds, assays):
    folds = protein_folds(assays, n_folds, seed)
    clusters = cluster_proteins(assays)
    of = {a.id: clusters[a.wild_type] for a in assays}
    ids = sorted(of)
    assert sorted(name for fold in folds for name in fold.test) == ids
    assert sorted(name for fold in folds for name in fold.validation) == ids
    for fold in folds:
        assert sorted([*fold.train, *fold.validation, *fold.test]) == ids
        parts = [{of[name] for name in p} for p in (fold.train, fold.validation, fold.test)]
        assert all(parts)
        assert sum(map(len, parts)) == len(set.union(*parts))
    assert folds == protein_folds(ASSAYS, n_folds, seed)


def test_fold_i_validates_on_the_test_group_of_the_next():
    folds = protein_folds(ASSAYS, 4)
    for fold, after in zip(folds, folds[1:] + folds[:1], strict=True):
        assert fold.validation == after.test


def test_groups_are_balanced():
    for seed in range(5):
        sizes = [len(fold.test) for fold in protein_folds(ASSAYS, 3, seed)]
        assert max(sizes) - min(sizes) <= 1


def test_the_seed_deals_differently():
    assert len({protein_folds(ASSAYS, 3, seed) for seed in range(8)}) > 3


@pytest.mark.parametrize(
    ("n_folds", "assays", "says"),
    [
        (2, ASSAYS, "use 3 or more folds"),
        (7, ASSAYS, "7 folds need as many clusters of proteins, and there are 6"),
        (3, ASSAYS[:4], "there are 1"),
        (3, [*ASSAYS, ASSAYS[0]], "same id"),
    ],
)
def test_impossible_folds_are_refused(n_folds, assays, says):
    with pytest.raises(DataError, match=says):
        protein_folds(assays, n_folds)


@pytest.fixture
def manifest(tmp_path):
    path = tmp_path / "split.json"
    folds = protein_folds(ASSAYS, 3, seed=5)
    write_split_manifest(path, ASSAYS, folds, seed=5)
    return path


def test_a_manifest_gives_the_folds_back(manifest):
    folds = protein_folds(ASSAYS, 3, seed=5)
    assert read_split_manifest(manifest) == folds
    assert read_split_manifest(manifest, ASSAYS[::-1]) == folds


def test_the_same_split_is_the_same_file(manifest, tmp_path):
    again = tmp_path / "again.json"
    folds = protein_folds(ASSAYS[::-1], 3, seed=5)
    first = write_split_manifest(again, ASSAYS[::-1], folds, seed=5)
    assert again.read_bytes() == manifest.read_bytes()
    assert first == json.loads(manifest.read_text())["hash"]
    assert first != write_split_manifest(again, ASSAYS, folds, seed=6)


def test_changed_data_are_refused(manifest):
    changed = [make_assay(0, 0, score=2.0), *ASSAYS[1:]]
    with pytest.raises(DataError, match="data of 'P0/0' have changed since the split was made"):
        read_split_manifest(manifest, changed)
    with pytest.raises(DataError, match="'P0/0' is missing"):
        read_split_manifest(manifest, ASSAYS[1:])


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda text: text.replace('"seed": 5', '"seed": 6'), "was edited"),
        (lambda text: text.replace("P0/0", "P9/0"), "was edited"),
        (lambda text: text[:-20], "not JSON"),
        (lambda text: "{}", "not a manifest"),
        (lambda text: "[1]", "not a manifest"),
    ],
)
def test_a_damaged_manifest_is_refused(manifest, edit, says):
    manifest.write_text(edit(manifest.read_text()))
    with pytest.raises(DataError, match=says):
        read_split_manifest(manifest, ASSAYS)


def test_folds_of_unknown_assays_are_not_written(tmp_path):
    folds = protein_folds(ASSAYS, 3)
    with pytest.raises(DataError, match="which is not given"):
        write_split_manifest(tmp_path / "x.json", ASSAYS[1:], folds, seed=0)
    with pytest.raises(DataError, match="does not exist"):
        read_split_manifest(tmp_path / "x.json")
