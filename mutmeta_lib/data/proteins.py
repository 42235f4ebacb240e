"""Which proteins are alike: sequence identity, and clusters that splits have to keep whole."""

import math
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from operator import eq
from pathlib import Path

import numpy as np
from biotite.sequence import ProteinSequence
from biotite.sequence import align as biotite
from scipy.cluster.hierarchy import DisjointSet

from mutmeta_lib.data.assays import Assay
from mutmeta_lib.errors import DataError

METHODS = ("auto", "mmseqs", "align")
ALL_PAIRS = 100  # up to so many distinct proteins, every pair is aligned
_WORD, _BAND, _SHARED = 4, 16, 3
_MATRIX = biotite.SubstitutionMatrix.std_protein_matrix()
_UNRESOLVED = ProteinSequence("X").code[0]


def best_alignment(a: str, b: str) -> biotite.Alignment:
    """Return one optimal alignment of two proteins (BLOSUM62, gaps -10 and -1, end gaps free)."""
    options = {"gap_penalty": (-10, -1), "terminal_penalty": False, "max_number": 1}
    return biotite.align_optimal(ProteinSequence(a), ProteinSequence(b), _MATRIX, **options)[0]


def identity(a: str, b: str) -> float:
    """Return the share of identical residues, from 0 to 1, over the length of the shorter one.

    Residues are paired by `best_alignment`. An unresolved residue ``X`` is identical to nothing.

    >>> identity("MKTAYIAK", "MKTAYIAR")
    0.875
    """
    # Of equally good alignments one is taken; sorting makes it the same one either way round.
    upper, lower = biotite.get_codes(best_alignment(*sorted((a, b))))
    same = (upper == lower) & (upper >= 0) & (upper != _UNRESOLVED)
    return float(same.sum()) / min(len(a), len(b))


def _evalue(a: str, b: str, residues: int) -> float:
    """Return how often chance gives `a` so good a match in `residues` residues.

    Karlin-Altschul statistics of gapped local alignment with BLOSUM62, 11 to open a gap and 1 per
    residue: lambda 0.267, K 0.041, the values BLAST uses.
    """
    options = {"gap_penalty": (-12, -1), "local": True, "max_number": 1}
    best = biotite.align_optimal(ProteinSequence(a), ProteinSequence(b), _MATRIX, **options)[0]
    return 0.041 * min(len(a), len(b)) * residues * math.exp(-0.267 * best.score)


def cluster_proteins(
    assays: Iterable[Assay], threshold: float = 0.3, method: str = "auto"
) -> dict[str, int]:
    """Group wild types by single linkage; returns wild type -> cluster number.

    Numbers count from 0 in alphabetical order of each cluster's first sequence. Sequences of one
    length that are at least 90 % identical position by position (or `threshold`, if that is higher)
    are merged first, and the alphabetically first stands for them all. Then, by `method`:

    - ``align`` joins two whose best local alignment is significant (E-value up to 0.001 against all
      residues given) and whose `identity` reaches `threshold`. Of more than 100 only those that
      share three words of four residues near one diagonal are aligned, which misses distant
      relatives: install MMseqs2 for large collections.
    - ``mmseqs`` asks MMseqs2 (Steinegger and Söding 2017, doi:10.1038/nbt.3988), at its own
      significance of 0.001 and the identity of its local alignment.
    - ``auto`` aligns up to 100, so that small data sets split alike on every machine; above that
      it is ``mmseqs`` where that is installed.

    Raises `DataError` for an unknown method, a threshold outside (0, 1], or MMseqs2 missing.
    """
    if method not in METHODS:
        raise DataError(f"'{method}' is not a method", f"use one of {', '.join(METHODS)}")
    if not 0 < threshold <= 1:
        raise DataError(f"the threshold {threshold} is not in (0, 1]", "use 0.3, say")
    clusters = DisjointSet({assay.wild_type: None for assay in assays})
    for a, b in combinations(clusters, 2):
        if len(a) == len(b) and sum(map(eq, a, b)) >= max(threshold, 0.9) * len(a):
            clusters.merge(a, b)
    proteins = sorted(map(min, clusters.subsets()))
    residues = sum(map(len, proteins))
    large = len(proteins) > ALL_PAIRS and shutil.which("mmseqs")
    if method == "mmseqs" or (method == "auto" and large):
        for a, b in _mmseqs_pairs(proteins, threshold):
            clusters.merge(a, b)
    else:
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


def _mmseqs_pairs(proteins: Sequence[str], threshold: float) -> list[tuple[str, str]]:
    """Return the pairs that MMseqs2 finds at least so identical over the shorter sequence."""
    if (program := shutil.which("mmseqs")) is None:
        raise DataError("MMseqs2 is not installed", "install mmseqs2 or use method='align'")
    with tempfile.TemporaryDirectory() as folder:
        fasta, hits = Path(folder) / "proteins.fasta", Path(folder) / "hits.tsv"
        fasta.write_text("".join(f">{i}\n{protein}\n" for i, protein in enumerate(proteins)))
        command = [program, "easy-search", fasta, fasta, hits, Path(folder) / "scratch"]
        command += ["--min-seq-id", f"{threshold:g}", "--seq-id-mode", "1"]
        command += ["--alignment-mode", "3", "-s", "7.5", "--max-seqs", str(len(proteins) + 1)]
        command += ["--format-output", "query,target", "--threads", "1", "-v", "1"]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        if done.returncode:
            said = (done.stdout + done.stderr).strip().splitlines() or [str(done.returncode)]
            raise DataError(f"MMseqs2 failed ({said[-1]})", "use method='align'")
        pairs = [line.split("\t") for line in hits.read_text().splitlines()]
    return [(proteins[int(i)], proteins[int(j)]) for i, j in pairs]
