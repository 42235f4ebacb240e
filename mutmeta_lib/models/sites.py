r"""What a substitution looks like to a model that has never measured its protein.

A substitution is a *site* and a *change*. The site is read from the wild type alone, so that one
forward pass serves all variants of a protein (`READS`):

- ``no_encoder``: descriptors of the residue and of five neighbours on each side, hydropathy over
  windows, its place in the chain: 63 numbers;
- ``wild_type_pass``: beside these the last hidden state of a language model at the site, and the
  mean over nine residues around it.

The change is which residue goes and which comes, how their descriptors differ, and BLOSUM62.
A variant is the sum of its substitutions (`trunk`), the wild type the empty sum.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from biotite.sequence.align import SubstitutionMatrix

from mutmeta_lib.data.assays import PROPERTIES, Assay
from mutmeta_lib.data.variants import AMINO_ACIDS, Variant
from mutmeta_lib.models.encoder import Encoder, on_device
from mutmeta_lib.tasks.batches import TokenBatch
from mutmeta_lib.tasks.tasks import EncodedAssay

READS = {"no_encoder": False, "wild_type_pass": True}
"""How sites are read, and whether an encoder is needed."""

_DESCRIPTORS = {  # in the order of AMINO_ACIDS
    # Kyte and Doolittle 1982, doi:10.1016/0022-2836(82)90515-0
    "hydropathy": "1.8 2.5 -3.5 -3.5 2.8 -.4 -3.2 4.5 -3.9 3.8 1.9 -3.5 -1.6 -3.5 -4.5 -.8 -.7 4.2 "
    "-.9 -1.3",
    # Å^3, Zamyatnin 1972, doi:10.1016/0079-6107(72)90005-3
    "volume": "88.6 108.5 111.1 138.4 189.9 60.1 153.2 166.7 168.6 166.7 162.9 114.1 112.7 143.8 "
    "173.4 89 116.1 140 227.8 193.6",
    "charge": "0 0 -1 -1 0 0 .3 0 1 0 0 0 0 0 1 0 0 0 0 0",
    # kcal/mol against alanine, Pace and Scholtz 1998, doi:10.1016/S0006-3495(98)77529-0
    "helix": "0 .68 .69 .4 .54 1 .61 .41 .26 .21 .24 .65 3.16 .39 .21 .5 .66 .61 .49 .53",
    "proline": "0 0 0 0 0 0 0 0 0 0 0 0 1 0 0 0 0 0 0 0",
    # Grantham 1974, doi:10.1126/science.185.4154.862
    "polarity": "8.1 5.5 13 12.3 5.2 9 10.4 5.2 11.3 4.9 5.7 11.6 8 10.5 10.5 9.2 8.6 5.9 5.4 6.2",
    # Chou and Fasman 1978, doi:10.1002/9780470122921.ch2
    "strand": ".83 1.19 .54 .37 1.38 .75 .87 1.6 .74 1.3 1.05 .89 .55 1.1 .93 .75 1.19 1.7 1.37 "
    "1.47",
    "aromatic": "0 0 0 0 1 0 1 0 0 0 0 0 0 0 0 0 0 0 1 1",
    "glycine": "0 0 0 0 0 1 0 0 0 0 0 0 0 0 0 0 0 0 0 0",
    "branched": "0 0 0 0 0 0 0 1 0 0 0 0 0 0 0 0 1 1 0 0",
}
_TABLE = np.array([row.split() for row in _DESCRIPTORS.values()], dtype=float).T
DESCRIPTORS = (_TABLE - _TABLE.mean(axis=0)) / _TABLE.std(axis=0)
"""Ten numbers of each of `AMINO_ACIDS`, standardised over them, ``(20, 10)``."""

_BLOSUM62 = SubstitutionMatrix.std_protein_matrix()
_NEAR, _WINDOWS, _AROUND = 5, (2, 4, 7, 15), 4
_CODE = {letter: code for code, letter in enumerate(AMINO_ACIDS)}

UNTOLD = len(PROPERTIES)
"""The property of an assay whose property is not told."""


def _changes() -> np.ndarray:
    """Numbers of every pair of residues, ``(20, 20, 71)``: from, to, differences, BLOSUM62."""
    n, one = len(AMINO_ACIDS), np.eye(len(AMINO_ACIDS))
    shape = (n, n, -1)
    before, after = np.broadcast_to(one[:, None], (n, n, n)), np.broadcast_to(one, (n, n, n))
    differ = DESCRIPTORS - DESCRIPTORS[:, None]
    becomes = np.broadcast_to(DESCRIPTORS, differ.shape)
    alike = [[_BLOSUM62.get_score(a, b) / 2 for b in AMINO_ACIDS] for a in AMINO_ACIDS]
    parts = [before, after, differ, np.abs(differ), becomes, np.reshape(alike, shape)]
    return np.concatenate(parts, axis=2).astype(np.float32)


CHANGES = _changes()
_CHANGES = torch.from_numpy(CHANGES)


def window_means(values: np.ndarray, radius: int) -> np.ndarray:
    """Means over up to ``2 * radius + 1`` residues around each, ``(length, d)``.

    >>> window_means(np.array([[0.0], [3.0], [6.0]]), 1)[:, 0].tolist()
    [1.5, 3.0, 4.5]
    """
    length = len(values)
    summed = np.vstack([np.zeros_like(values[:1]), np.cumsum(values, axis=0, dtype=float)])
    low = np.maximum(np.arange(length) - radius, 0)
    high = np.minimum(np.arange(length) + radius + 1, length)
    return (summed[high] - summed[low]) / (high - low)[:, None]


def neighbourhood(wild_type: str) -> np.ndarray:
    """Sites by their neighbours' descriptors and their place, float32 ``(length, d)``.

    An unresolved residue ``X`` has the descriptors of the average one.
    """
    length, place = len(wild_type), np.arange(len(wild_type))
    code = np.array([AMINO_ACIDS.find(letter) for letter in wild_type])
    five = np.where((code >= 0)[:, None], DESCRIPTORS[code, :5], 0.0)
    padded = np.pad(five, ((_NEAR, _NEAR), (0, 0)))
    columns = [five, *(padded[i : i + length] for i in range(2 * _NEAR + 1) if i != _NEAR)]
    columns += [window_means(five[:, :1], radius) for radius in _WINDOWS]
    ends = np.minimum(np.stack([place, length - 1 - place]), 20) / 20
    columns += [(place / length)[:, None], ends.T, np.full((length, 1), np.log(length) / 6)]
    return np.concatenate(columns, axis=1).astype(np.float32)


def hidden_states(
    encoder: Encoder, wild_type: str, device: torch.device | str = "cpu"
) -> np.ndarray:
    """Last hidden states of the residues of one pass over the wild type, ``(length, width)``.

    Wild types longer than the encoder's context are read in overlapping windows, and states that
    are read twice are averaged.
    """
    start, end = encoder.vocabulary.frame
    length, room = len(wild_type), encoder.max_tokens - len(start) - len(end)
    begins = [0] if length <= room else [*range(0, length - room, room // 2), length - room]
    total, times = np.zeros((length, encoder.width), dtype=np.float32), np.zeros((length, 1))
    weights = on_device(encoder.module, device)
    for first in begins:
        part = wild_type[first : first + room]
        ids = [*start, *encoder.vocabulary.residue_ids(part), *end]
        given = torch.tensor([ids], device=device)
        with torch.no_grad():
            states = torch.func.functional_call(encoder.module, weights, (given, None))[0]
        total[first : first + room] += (
            states[len(start) : len(start) + len(part)].float().cpu().numpy()
        )
        times[first : first + room] += 1
    return (total / times).astype(np.float32)


def site_numbers(
    read: str, wild_type: str, encoder: Encoder | None = None, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """All sites of a wild type as a read of `READS` has them, float32 ``(length, d)``."""
    parts = [neighbourhood(wild_type)]
    if READS[read]:
        states = hidden_states(encoder, wild_type, device)
        parts += [states, window_means(states, _AROUND).astype(np.float32)]
    return torch.from_numpy(np.concatenate(parts, axis=1))


@dataclass(frozen=True, eq=False)
class SiteRows:
    """Variants ``(n, m)`` as places and changes, in the place of tokens.

    ``sites`` are the numbers of the wild type's sites ``(length, d)``; ``places`` count from 0,
    ``pairs`` are codes of the residues that go and come ``(n, m, 2)``, ``mask`` is False at padding
    and ``told`` a number of `PROPERTIES`, or `UNTOLD`.
    """

    sites: torch.Tensor
    places: torch.Tensor
    pairs: torch.Tensor
    mask: torch.Tensor
    told: int = UNTOLD

    def __len__(self) -> int:
        return len(self.mask)

    def rows(self, index: Sequence[int] | np.ndarray | torch.Tensor) -> TokenBatch:
        """Some rows, looked up: ``hidden`` is ``(n, m, d + 73)``, as `trunk` reads it."""
        index = torch.as_tensor(np.asarray(index))
        places, pairs, mask = self.places[index], self.pairs[index], self.mask[index]
        changes = _CHANGES[pairs[..., 0], pairs[..., 1]]
        told = torch.full_like(places, self.told)
        own = torch.stack([places, told], dim=-1).float()
        hidden = torch.cat([self.sites[places], changes, own], dim=-1)
        return TokenBatch(torch.zeros_like(places), mask, mask, hidden)


def site_rows(sites: torch.Tensor, variants: Sequence[Variant], property: str = "") -> SiteRows:
    """Variants of the protein that has these sites; an empty ``property`` is not told."""
    shape = len(variants), max([1, *map(len, variants)])
    places, mask = np.zeros(shape, dtype=int), np.zeros(shape, dtype=bool)
    pairs = np.zeros((*shape, 2), dtype=int)
    for row, variant in enumerate(variants):
        for column, one in enumerate(variant):
            places[row, column], mask[row, column] = one.position - 1, True
            pairs[row, column] = _CODE[one.wild_type], _CODE[one.mutant]
    told = PROPERTIES.index(property) if property else UNTOLD
    return SiteRows(sites, *map(torch.from_numpy, (places, pairs, mask)), told)


def site_assay(assay: Assay, read: str, sites: torch.Tensor, told: bool = True) -> EncodedAssay:
    """An assay as a read of `READS` has it; its property may be told."""
    rows = site_rows(sites, assay.variants, assay.property if told else "")
    return EncodedAssay(assay, read, rows)
