"""Identity, clusters and folds: relatives stay together, whatever the order."""

from dataclasses import astuple
from itertools import combinations

import numpy as np
import pytest
from biotite.sequence import ProteinSequence
from biotite.sequence.align import SubstitutionMatrix, align_optimal
from hypothesis import given, settings
from hypothesis import strategies as st

from mutmeta_lib.data import proteins as module
from mutmeta_lib.data.assays import Assay
from mutmeta_lib.data.proteins import cluster_proteins, identity, local_scores
from mutmeta_lib.data.splits import protein_folds
from mutmeta_lib.data.variants import AMINO_ACIDS
from mutmeta_lib.errors import DataError

sequences = st.text(alphabet=AMINO_ACIDS, min_size=8, max_size=60)


def assay(wild_type, name="a"):
    return Assay(name, name, "fitness", wild_type, (), np.empty(0), "", "")


def random_protein(seed, length=120):
    return "".join(np.random.default_rng(seed).choice(list(AMINO_ACIDS), length))


def mutate(protein, share, seed=0):
    """Replace exactly this share of residues."""
    sites = np.random.default_rng(seed).permutation(len(protein))[: round(share * len(protein))]
    residues = dict(enumerate(protein)) | {i: "W" if protein[i] != "W" else "G" for i in sites}
    return "".join(residues.values())


A, B, C = (random_protein(seed) for seed in (1, 2, 3))


def clustered(proteins):
    """The clusters of proteins, in their order."""
    clusters = cluster_proteins(map(assay, proteins))
    return [clusters[protein] for protein in proteins]


@given(sequences, sequences, st.integers(0, 52))
def test_identity_is_a_symmetric_share_and_all_of_a_part(a, b, start):
    assert 0 <= identity(a, b) == identity(b, a) <= 1
    assert identity(a[start % (len(a) - 7) :], a) == 1


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("MKTAYIAKQR", "MKTAYIAKQW", 0.9), ("WWWWWWWW", "GGGGGGGG", 0.0),
        ("MKXAYIAKQR", "MKXAYIAKQR", 0.9),  # X is identical to nothing
        ("SSSSMKT", "MKTGGGG", 3 / 7),  # gaps at the ends cost nothing
    ],
)  # fmt: skip
def test_identity_of_known_pairs(a, b, expected):
    assert identity(a, b) == pytest.approx(expected)


@settings(max_examples=25)
@given(st.lists(st.text(alphabet=AMINO_ACIDS + "X", min_size=1, max_size=40), max_size=5))
def test_scores_are_those_of_another_smith_waterman(proteins):
    found, matrix = local_scores(tuple(proteins)), SubstitutionMatrix.std_protein_matrix()
    how = {"gap_penalty": (-12, -1), "local": True, "max_number": 1}
    for i, j in combinations(range(len(proteins)), 2):
        both = ProteinSequence(proteins[i]), ProteinSequence(proteins[j])
        aligned = align_optimal(*both, matrix, **how)
        assert found[i, j] == (aligned[0].score if aligned else 0)


def test_scores_reach_over_gaps_and_not_over_the_end_of_a_protein():
    whole = local_scores((A, B + A[:50] + "GG" + A[50:], C, A[:60], A[60:]))
    own = [local_scores((part, part))[0, 1] for part in (A, A[:60], A[60:])]
    assert whole[0, 1] == own[0] - 13
    assert [whole[0, 3], whole[0, 4]] == own[1:]
    assert whole[0, 2] < 50


def test_relatives_join_and_strangers_do_not():
    proteins = [A, mutate(A, 0.4), A[10:], B, mutate(B, 0.02), C, "MK", "MKT", "X" * 20]
    groups = clustered(proteins)
    assert groups[0] == groups[1] == groups[2]
    assert groups[3] == groups[4]
    in_order = [group for _, group in sorted(zip(proteins, groups, strict=True))]
    assert list(dict.fromkeys(in_order)) == [0, 1, 2, 3, 4, 5]
    assert clustered([*proteins[::-1], A])[:9] == groups[::-1]


def test_linkage_is_single_and_a_shared_domain_is_enough():
    # A and the chimera share one half, the chimera and B the other; A and B share nothing.
    assert len(set(clustered([A, B, A[:60] + B[60:]]))) == 1
    assert len(set(clustered([A, B]))) == 2
    one, other = (random_protein(seed, 300) + A[:40] for seed in (7, 8))
    assert identity(one, other) < 0.3
    assert len(set(clustered([one, other]))) == 1
    assert len(set(clustered([one[:300], other[:300]]))) == 2


def test_among_more_residues_the_same_match_says_less():
    far = mutate(A[:30], 0.5)
    assert len(set(clustered([A, far]))) == 1
    many = clustered([A, far, *(random_protein(seed, 400) for seed in range(20, 70))])
    assert many[0] != many[1]


def test_backgrounds_of_one_protein_need_no_alignment(monkeypatch):
    lone = lambda proteins: np.zeros((len(proteins),) * 2) if len(proteins) == 1 else None  # noqa: E731
    monkeypatch.setattr(module, "local_scores", lone)
    assert set(clustered([mutate(A, 0.01, seed) for seed in range(70)])) == {0}


ASSAYS = [
    assay("M" * copy + random_protein(seed, 60)[copy:], f"P{seed}/{copy}")
    for seed, copies in enumerate([4, 1, 3, 2, 1, 2])
    for copy in range(copies)
]
"""Backgrounds of six proteins."""


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1), st.integers(3, 6), st.permutations(ASSAYS))
def test_folds_are_protein_disjoint_and_test_each_assay_once(seed, n_folds, assays):
    folds = protein_folds(assays, n_folds, seed)
    ids = sorted(a.id for a in ASSAYS)
    assert sorted(name for fold in folds for name in fold.test) == ids
    for fold, after in zip(folds, folds[1:] + folds[:1], strict=True):
        assert fold.validation == after.test
        assert sorted([*fold.train, *fold.validation, *fold.test]) == ids
        parts = [{i.partition("/")[0] for i in part} for part in astuple(fold)]
        assert all(parts)
        assert sum(map(len, parts)) == len(set.union(*parts)) == 6
        assert all(tuple(sorted(part)) == part for part in astuple(fold))
    sizes = [len(fold.test) for fold in folds]
    assert max(sizes) - min(sizes) <= (1 if n_folds == 3 else 3)
    assert folds == protein_folds(ASSAYS, n_folds, seed)
    assert len({protein_folds(ASSAYS, n_folds, other) for other in range(4)}) > 1


@pytest.mark.parametrize(
    ("n_folds", "assays", "says"),
    [
        (2, ASSAYS, "use 3 or more folds"), (3, [*ASSAYS, ASSAYS[0]], "same id"),
        (7, ASSAYS, "7 folds need as many clusters of proteins, and there are 6; use 6 folds"),
        (3, ASSAYS[:4], "there are 1; add proteins of other families"),
    ],
)  # fmt: skip
def test_impossible_folds_are_refused(n_folds, assays, says):
    with pytest.raises(DataError, match=says):
        protein_folds(assays, n_folds)
