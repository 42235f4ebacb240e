import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mutmeta_lib.data import clustering
from mutmeta_lib.data.assays import Assay
from mutmeta_lib.data.clustering import cluster_proteins, identity
from mutmeta_lib.data.variants import AMINO_ACIDS
from mutmeta_lib.errors import DataError

sequences = st.text(alphabet=AMINO_ACIDS, min_size=1, max_size=60)


def assay(wild_type, name="a"):
    return Assay(name, name, "fitness", wild_type, (), np.empty(0), "", "")


def random_protein(seed, length=120):
    return "".join(np.random.default_rng(seed).choice(list(AMINO_ACIDS), length))


def mutate(protein, share, seed=0):
    """Replace exactly this share of residues."""
    rng = np.random.default_rng(seed)
    residues = list(protein)
    for i in rng.permutation(len(protein))[: round(share * len(protein))]:
        residues[i] = rng.choice([a for a in AMINO_ACIDS if a != residues[i]])
    return "".join(residues)


A, B, C = (random_protein(seed) for seed in (1, 2, 3))


@given(sequences)
def test_a_protein_is_identical_to_itself(a):
    assert identity(a, a) == 1


@given(sequences, sequences)
def test_identity_is_a_symmetric_share(a, b):
    assert 0 <= identity(a, b) <= 1
    assert identity(a, b) == identity(b, a)


@given(st.text(alphabet=AMINO_ACIDS, min_size=8, max_size=60), st.data())
def test_a_part_is_identical_to_the_whole(a, data):
    start = data.draw(st.integers(0, len(a) - 8))
    assert identity(a[start:], a) == 1


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("MKTAYIAKQR", "MKTAYIAKQR", 1.0),
        ("MKTAYIAKQR", "MKTAYIAKQW", 0.9),
        ("MKXAYIAKQR", "MKXAYIAKQR", 0.9),  # X is identical to nothing
        ("MKTAYIAKQRMKTAYIAKQR", "MKTAYIAKQR", 1.0),
        ("WWWWWWWW", "GGGGGGGG", 0.0),
    ],
)
def test_identity_of_known_pairs(a, b, expected):
    assert identity(a, b) == pytest.approx(expected)


def test_relatives_join_and_strangers_do_not():
    proteins = [A, mutate(A, 0.5), A[10:], B, mutate(B, 0.02), C]
    clusters = cluster_proteins(map(assay, proteins), method="align")
    groups = [clusters[p] for p in proteins]
    assert groups[0] == groups[1] == groups[2]
    assert groups[3] == groups[4]
    assert len(set(groups)) == 3


def test_linkage_is_single():
    # A and the chimera share one half, the chimera and B the other; A and B share nothing.
    chimera = A[:60] + B[60:]
    clusters = cluster_proteins(map(assay, [A, B, chimera]), method="align")
    assert len(set(clusters.values())) == 1
    assert len(set(cluster_proteins(map(assay, [A, B]), method="align").values())) == 2


def test_the_threshold_matters():
    half = mutate(A, 0.5)
    for threshold, count in [(0.4, 1), (0.6, 2)]:
        clusters = cluster_proteins(map(assay, [A, half]), threshold, method="align")
        assert len(set(clusters.values())) == count


@settings(max_examples=10, deadline=None)
@given(st.permutations([A, mutate(A, 0.5), B, mutate(B, 0.02), C]))
def test_the_order_of_assays_does_not_matter(proteins):
    expected = cluster_proteins(map(assay, sorted(proteins)), method="align")
    assert cluster_proteins(map(assay, [*proteins, proteins[0]]), method="align") == expected


def test_backgrounds_of_one_protein_need_no_alignment(monkeypatch):
    def refuse(*_):
        raise AssertionError("aligned")

    monkeypatch.setattr(clustering, "_evalue", refuse)
    backgrounds = [mutate(A, 0.01, seed) for seed in range(70)]
    assert set(cluster_proteins(map(assay, backgrounds)).values()) == {0}


def test_a_prefilter_by_words_finds_the_same_clusters(monkeypatch):
    proteins = [A, mutate(A, 0.4), A[10:], B, mutate(B, 0.3), C]
    expected = cluster_proteins(map(assay, proteins), method="align")
    monkeypatch.setattr(clustering, "ALL_PAIRS", 2)
    assert len(list(clustering._candidates(sorted(proteins)))) < 8
    assert cluster_proteins(map(assay, proteins), method="align") == expected


def test_unresolved_residues_make_no_words():
    assert len(set(clustering._words("X" * 20))) == 17
    assert (clustering._words("X" * 20) < 0).all()


def test_short_proteins_survive_the_prefilter(monkeypatch):
    monkeypatch.setattr(clustering, "ALL_PAIRS", 1)
    clusters = cluster_proteins(map(assay, ["MK", "MKT", A]), method="align")
    assert len(clusters) == 3


@pytest.mark.skipif(shutil.which("mmseqs") is None, reason="MMseqs2 is not installed")
def test_mmseqs_agrees_on_clear_cases():
    proteins = [A, mutate(A, 0.4), A[10:], B, mutate(B, 0.02), C]
    expected = cluster_proteins(map(assay, proteins), method="align")
    assert cluster_proteins(map(assay, proteins), method="mmseqs") == expected


def test_mmseqs_missing_is_told(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(DataError, match="MMseqs2 is not installed; install"):
        cluster_proteins(map(assay, [A, B]), method="mmseqs")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"method": "blast"}, "'blast' is not a method"),
        ({"threshold": 0}, r"0 is not in \(0, 1\]"),
        ({"threshold": 1.5}, "1.5 is not"),
        ({"threshold": float("nan")}, "nan is not"),
    ],
)
def test_bad_arguments(arguments, says):
    with pytest.raises(DataError, match=says):
        cluster_proteins([assay(A)], **arguments)
