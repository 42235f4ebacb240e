"""Which proteins are alike: sequence identity and single-linkage clusters.

Two assays belong to one cluster when a chain of proteins joins them in which neighbours are at
least `threshold` identical. Splits that keep clusters whole are the ones under which a test
protein is new; how identity is found at scale is told in `cluster_proteins`.
"""

from __future__ import annotations

import math
import shutil
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from biotite.sequence import ProteinSequence
from biotite.sequence.align import Alignment, SubstitutionMatrix, align_optimal, get_codes

from mutmeta_lib.data.assays import Assay
from mutmeta_lib.data.variants import AMINO_ACIDS
from mutmeta_lib.errors import DataError

METHODS = ("auto", "mmseqs", "align")
ALL_PAIRS = 100
"""Up to this many distinct proteins, every pair is aligned."""
NEAR_IDENTICAL = 0.9
"""Sequences of one length that agree at this share of positions are one protein to begin with."""
MAX_EVALUE = 1e-3
"""How many matches as good as this one chance may give before a match counts as none."""
_WORD, _BAND, _SHARED = 4, 16, 3
_MATRIX = SubstitutionMatrix.std_protein_matrix()


def best_alignment(a: str, b: str) -> Alignment:
    """Return one optimal alignment of two proteins (BLOSUM62, gaps -10 and -1, end gaps free)."""
    return align_optimal(
        ProteinSequence(a),
        ProteinSequence(b),
        _MATRIX,
        gap_penalty=(-10, -1),
        terminal_penalty=False,
        max_number=1,
    )[0]


def identity(a: str, b: str) -> float:
    """Return the share of identical residues, from 0 to 1, over the length of the shorter one.

    Residues are paired by `best_alignment`. An unresolved residue ``X`` is identical to nothing.

    >>> identity("MKTAYIAK", "MKTAYIAR")
    0.875
    """
    # Of equally good alignments one is taken; sorting makes it the same one either way round.
    upper, lower = get_codes(best_alignment(*sorted((a, b))))
    unresolved = ProteinSequence("X").code[0]
    same = (upper == lower) & (upper >= 0) & (upper != unresolved)
    return float(same.sum()) / min(len(a), len(b))


def _evalue(a: str, b: str, residues: int) -> float:
    """Return how often chance gives `a` so good a match in `residues` residues.

    Karlin-Altschul statistics of gapped local alignment with BLOSUM62, 11 to open a gap and 1 per
    residue: lambda 0.267, K 0.041, the values BLAST uses.
    """
    first, second = ProteinSequence(a), ProteinSequence(b)
    best = align_optimal(first, second, _MATRIX, gap_penalty=(-12, -1), local=True, max_number=1)
    return 0.041 * min(len(a), len(b)) * residues * math.exp(-0.267 * best[0].score)


def cluster_proteins(
    assays: Iterable[Assay], threshold: float = 0.3, method: str = "auto"
) -> dict[str, int]:
    """Group wild types by single linkage; returns wild type -> cluster number.

    Numbers count from 0 in alphabetical order of each cluster's first sequence, so they depend on
    neither the order nor the repetition of assays. First, equal-length sequences at least 90 %
    identical position by position (or `threshold`, if that is higher) are merged, and the
    alphabetically first stands for them all. Then these representatives are compared, by `method`:

    - ``align``: two proteins are joined when their best local alignment is significant (E-value
      up to 0.001 against all residues given) and their `identity` reaches `threshold`. Above 100
      representatives only pairs that share three words of four residues near one diagonal are
      aligned, which misses some distant relatives: install MMseqs2 for large collections.
    - ``mmseqs``: MMseqs2 all against all (Steinegger and Söding 2017, doi:10.1038/nbt.3988), at
      its own significance of 0.001 and the identity of its local alignment.
    - ``auto``: ``align`` up to 100 representatives, so that small data sets split alike on every
      machine; above that ``mmseqs`` where it is installed.

    Raises `DataError` for an unknown method, a threshold outside (0, 1], or MMseqs2 missing.
    """
    if method not in METHODS:
        raise DataError(f"'{method}' is not a method", f"use one of {', '.join(METHODS)}")
    if not 0 < threshold <= 1:
        raise DataError(f"the threshold {threshold} is not in (0, 1]", "use 0.3, say")
    sequences = sorted({assay.wild_type for assay in assays})
    links = _Links(len(sequences))
    for i, j in _near_identical(sequences, max(threshold, NEAR_IDENTICAL)):
        links.join(i, j)
    heads = [i for i in range(len(sequences)) if links.head(i) == i]
    proteins = [sequences[i] for i in heads]
    if resolve_method(method, len(proteins)) == "mmseqs":
        for i, j in _mmseqs_pairs(proteins, threshold):
            links.join(heads[i], heads[j])
    else:
        residues = sum(map(len, proteins))
        for i, j in _candidates(proteins):
            # Two that are joined already need no alignment: linkage is single.
            if links.head(heads[i]) == links.head(heads[j]):
                continue
            significant = _evalue(proteins[i], proteins[j], residues) <= MAX_EVALUE
            if significant and identity(proteins[i], proteins[j]) >= threshold:
                links.join(heads[i], heads[j])
    numbers = {head: n for n, head in enumerate(sorted({links.head(i) for i in heads}))}
    return {sequence: numbers[links.head(i)] for i, sequence in enumerate(sequences)}


def resolve_method(method: str, n_proteins: int) -> str:
    """Return what ``auto`` means here, ``mmseqs`` or ``align``, for so many proteins."""
    if method != "auto":
        return method
    return "mmseqs" if n_proteins > ALL_PAIRS and shutil.which("mmseqs") else "align"


class _Links:
    """Disjoint sets in which the head of a set is its smallest member."""

    def __init__(self, n: int):
        self.parent = list(range(n))

    def head(self, i: int) -> int:
        while self.parent[i] != i:
            self.parent[i] = self.parent[self.parent[i]]
            i = self.parent[i]
        return i

    def join(self, i: int, j: int) -> None:
        low, high = sorted((self.head(i), self.head(j)))
        self.parent[high] = low


def _near_identical(sequences: Sequence[str], threshold: float) -> Iterator[tuple[int, int]]:
    """Yield pairs of one length that agree position by position."""
    by_length: dict[int, list[int]] = defaultdict(list)
    for i, sequence in enumerate(sequences):
        by_length[len(sequence)].append(i)
    for length, members in by_length.items():
        codes = np.array([list(sequences[i].encode()) for i in members], dtype=np.uint8)
        for row, i in enumerate(members):
            same = (codes[row + 1 :] == codes[row]).sum(axis=1)
            for offset in np.flatnonzero(same >= threshold * length):
                yield i, members[row + 1 + offset]


def _candidates(proteins: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield the pairs worth aligning: all of few proteins, those that share words of many."""
    if len(proteins) <= ALL_PAIRS:
        yield from combinations(range(len(proteins)), 2)
        return
    words = [_words(protein) for protein in proteins]
    owner = np.repeat(np.arange(len(words)), [len(w) for w in words])
    place = np.concatenate([np.arange(len(w)) for w in words])
    code = np.concatenate(words)
    order = np.argsort(code, kind="stable")
    code, owner, place = code[order], owner[order], place[order]
    lengths = np.array([len(protein) for protein in proteins])
    span = 2 * lengths.max() // _BAND + 4
    for i, own in enumerate(words):
        low, high = np.searchsorted(code, own), np.searchsorted(code, own, side="right")
        counts = high - low
        at = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        hits = at + np.repeat(low, counts)
        shift = place[hits] - np.repeat(np.arange(len(own)), counts) + lengths.max()
        later = owner[hits] > i
        partners = set()
        for offset in (0, _BAND // 2):
            bands = owner[hits][later] * span + (shift[later] + offset) // _BAND
            band, shared = np.unique(bands, return_counts=True)
            partners.update((band[shared >= _SHARED] // span).tolist())
        yield from ((i, j) for j in sorted(partners))


def _words(protein: str) -> np.ndarray:
    """Return each word of four residues as a number; words with ``X`` are unlike all others."""
    letters = np.array([AMINO_ACIDS.find(letter) for letter in protein])
    if len(letters) < _WORD:
        return np.empty(0, dtype=int)
    windows = np.lib.stride_tricks.sliding_window_view(letters, _WORD)
    codes = windows @ 20 ** np.arange(_WORD)
    unknown = (windows < 0).any(axis=1)
    return np.where(unknown, -1 - np.arange(len(codes)), codes)


def _mmseqs_pairs(proteins: Sequence[str], threshold: float) -> list[tuple[int, int]]:
    """Return the pairs that MMseqs2 finds at least so identical over the shorter sequence."""
    program = shutil.which("mmseqs")
    if program is None:
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
            said = (done.stdout + done.stderr).strip().splitlines()
            raise DataError(
                f"MMseqs2 failed ({said[-1] if said else done.returncode})", "use method='align'"
            )
        pairs = [line.split("\t") for line in hits.read_text().splitlines()]
    return sorted((int(i), int(j)) for i, j in pairs if i != j)
