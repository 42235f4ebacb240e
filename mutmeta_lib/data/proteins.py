"""Which proteins are alike: sequence identity, and clusters that splits have to keep whole."""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from operator import eq

import numpy as np
from biotite.sequence import ProteinSequence
from biotite.sequence import align as biotite
from scipy.cluster.hierarchy import DisjointSet

from mutmeta_lib.data.assays import Assay
from mutmeta_lib.errors import DataError

ALL_PAIRS = 100  # up to so many distinct proteins, every pair is aligned
_WORD, _BAND, _SHARED = 4, 16, 3
_MATRIX = biotite.SubstitutionMatrix.std_protein_matrix()
_UNRESOLVED = ProteinSequence("X").code[0]


def _aligned(a: str, b: str, gaps: tuple[int, int], **how: bool) -> biotite.Alignment:
    both, how = (ProteinSequence(a), ProteinSequence(b)), {"max_number": 1, **how}
    return biotite.align_optimal(*both, _MATRIX, gap_penalty=gaps, **how)[0]


def identity(a: str, b: str) -> float:
    """Return the share of identical residues, from 0 to 1, over the length of the shorter one.

    Residues are paired by an optimal alignment (BLOSUM62, gaps -10 and -1, end gaps free). An
    unresolved residue ``X`` is identical to nothing.
    """
    # Of equally good alignments one is taken; sorting makes it the same one either way round.
    upper, lower = biotite.get_codes(_aligned(*sorted((a, b)), (-10, -1), terminal_penalty=False))
    same = (upper == lower) & (upper >= 0) & (upper != _UNRESOLVED)
    return float(same.sum()) / min(len(a), len(b))


def _evalue(a: str, b: str, residues: int) -> float:
    """Return how often chance gives `a` so good a match in `residues` residues.

    Karlin-Altschul statistics of BLAST (BLOSUM62, gaps -12 and -1: lambda 0.267, K 0.041).
    """
    score = _aligned(a, b, (-12, -1), local=True).score
    return 0.041 * min(len(a), len(b)) * residues * math.exp(-0.267 * score)


def cluster_proteins(assays: Iterable[Assay], threshold: float = 0.3) -> dict[str, int]:
    """Group wild types by single linkage; returns wild type -> cluster number.

    Numbers count from 0 in alphabetical order of each cluster's first sequence. Sequences of one
    length, alike at 90 % of positions (or `threshold`, if that is higher), are merged first; the
    alphabetically first stands for them. Then two are joined whose best local alignment is
    significant (E-value up to 0.001 against all residues given) and whose `identity` reaches
    `threshold`. Of more than 100 only those that share three words of four residues near one
    diagonal are aligned. Raises `DataError` for a threshold outside (0, 1].
    """
    if not 0 < threshold <= 1:
        raise DataError(f"the threshold {threshold} is not in (0, 1]", "use 0.3, say")
    clusters = DisjointSet({assay.wild_type: None for assay in assays})
    for a, b in combinations(clusters, 2):
        if len(a) == len(b) and sum(map(eq, a, b)) >= max(threshold, 0.9) * len(a):
            clusters.merge(a, b)
    proteins = sorted(map(min, clusters.subsets()))
    residues = sum(map(len, proteins))
    for a, b in _candidates(proteins):
        # Two that are joined already need no alignment: linkage is single.
        apart = not clusters.connected(a, b)
        if apart and _evalue(a, b, residues) <= 1e-3 and identity(a, b) >= threshold:
            clusters.merge(a, b)
    groups = sorted(clusters.subsets(), key=min)
    return {sequence: number for number, group in enumerate(groups) for sequence in sorted(group)}


def _candidates(proteins: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the pairs worth aligning: all of few proteins, those that share words of many."""
    if len(proteins) <= ALL_PAIRS:
        yield from combinations(proteins, 2)
        return
    read = [ProteinSequence(protein.ljust(_WORD, "X")) for protein in proteins]
    masks = [sequence.code == _UNRESOLVED for sequence in read]  # X is like nothing
    table = biotite.KmerTable.from_sequences(_WORD, read, ignore_masks=masks)
    longest = max(map(len, proteins))
    for i, protein in enumerate(proteins):
        here, other, there = table.match(read[i]).astype(int).T
        partners: set[int] = set()
        for shift in (0, _BAND // 2):
            bands = np.stack([other, (there - here + longest + shift) // _BAND], axis=1)[other > i]
            found, shared = np.unique(bands, axis=0, return_counts=True)
            partners.update(found[shared >= _SHARED, 0].tolist())
        yield from ((protein, proteins[j]) for j in sorted(partners))
