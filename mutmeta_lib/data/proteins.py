"""Which proteins are alike: sequence identity, and clusters that splits have to keep whole."""

from collections.abc import Iterable
from functools import lru_cache
from itertools import combinations
from operator import eq

import numpy as np
from biotite.sequence import ProteinSequence
from biotite.sequence import align as biotite
from scipy.cluster.hierarchy import DisjointSet

from mutmeta_lib.data.assays import Assay

SIGNIFICANT = 1e-3
"""E-value up to which two proteins are homologues."""
_MATRIX = biotite.SubstitutionMatrix.std_protein_matrix()  # BLOSUM62
_UNRESOLVED = ProteinSequence("X").code[0]
_OPEN, _NEVER = 12, 1_000_000


def identity(a: str, b: str) -> float:
    """Return the share of identical residues, from 0 to 1, over the length of the shorter one.

    Residues are paired by an optimal alignment (BLOSUM62, gaps -10 and -1, end gaps free). An
    unresolved residue ``X`` is identical to nothing.
    """
    # Of equally good alignments one is taken; sorting makes it the same one either way round.
    both = map(ProteinSequence, sorted((a, b)))
    how = {"gap_penalty": (-10, -1), "terminal_penalty": False, "max_number": 1}
    upper, lower = biotite.get_codes(biotite.align_optimal(*both, _MATRIX, **how)[0])
    same = (upper == lower) & (upper >= 0) & (upper != _UNRESOLVED)
    return float(same.sum()) / min(len(a), len(b))


@lru_cache(maxsize=4)
def local_scores(proteins: tuple[str, ...]) -> np.ndarray:
    """Return the Smith-Waterman score of each pair, ``(n, n)`` int, filled above the diagonal.

    BLOSUM62; the first residue of a gap costs 12, each further one 1. One protein is aligned with
    all later ones at once, a row of Gotoh's recursion at a time: 70,000 residues take 20 seconds.
    """
    codes = [ProteinSequence(protein).code for protein in proteins]
    matrix = np.pad(_MATRIX.score_matrix(), ((0, 0), (0, 1)), constant_values=-_NEVER)
    wall = matrix.shape[0]  # stands after each protein; no alignment goes on across it
    text = np.concatenate([np.append(code, wall) for code in codes]) if codes else np.empty(0, int)
    # What a gap in a row costs up to each place; more than any score where it meets a wall.
    cost = (np.arange(len(text)) + _NEVER * np.cumsum(text == wall)).astype(np.int64)
    scores, start = np.zeros((len(codes), len(codes)), dtype=int), 0
    for i, code in enumerate(codes[:-1]):
        start += len(code) + 1
        profile, gap = matrix[:, text[start:]].astype(np.int32), cost[start:]
        ends = np.flatnonzero(text[start:] == wall)
        here, best, left = np.zeros((3, len(gap)), dtype=np.int64)
        above = np.full(len(gap), -_NEVER)
        for residue in code:
            np.maximum(above - 1, here - _OPEN, out=above)
            here[1:] = here[:-1] + profile[residue, 1:]
            here[0] = profile[residue, 0]
            np.maximum(here, above, out=here)
            np.maximum(here, 0, out=here)
            np.maximum.accumulate(here + gap, out=left)
            np.maximum(here[1:], left[:-1] - gap[1:] - (_OPEN - 1), out=here[1:])
            np.maximum(best, here, out=best)
        scores[i, i + 1 :] = np.maximum.reduceat(best, [0, *ends[:-1] + 1])
    return scores


def cluster_proteins(assays: Iterable[Assay]) -> dict[str, int]:
    """Group wild types by single linkage; returns wild type -> cluster number.

    Numbers count from 0 in alphabetical order of each cluster's first sequence. Sequences of one
    length, alike at 90 % of positions, are merged first; the alphabetically first stands for them.
    Then two are joined whose best local alignment is significant (`local_scores` of all pairs): at
    most 0.001 so good matches are expected by chance among all residues given (Karlin-Altschul
    statistics of BLAST for BLOSUM62 and these gaps: lambda 0.267, K 0.041). However few residues
    are identical, such two are homologues.
    """
    clusters = DisjointSet({assay.wild_type: None for assay in assays})
    for a, b in combinations(clusters, 2):
        if len(a) == len(b) and sum(map(eq, a, b)) >= 0.9 * len(a):
            clusters.merge(a, b)
    proteins = tuple(sorted(map(min, clusters.subsets())))
    sizes = np.array([len(protein) for protein in proteins])
    chance = 0.041 * np.minimum.outer(sizes, sizes) * sizes.sum()
    expected = chance * np.exp(-0.267 * local_scores(proteins))
    for i, j in np.argwhere(np.triu(expected <= SIGNIFICANT, 1)):
        clusters.merge(proteins[i], proteins[j])
    groups = sorted(clusters.subsets(), key=min)
    return {sequence: number for number, group in enumerate(groups) for sequence in sorted(group)}
