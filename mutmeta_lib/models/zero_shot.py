r"""Zero-shot control: an encoder's own language-model head ranks variants, labels unused.

A masked language model gives every site :math:`i` a distribution over residues. With the wild type
:math:`x` and its letter :math:`x_i`, the log-odds of a letter :math:`a` are

.. math:: \log p(a \mid \cdot) - \log p(x_i \mid \cdot)

where the context is the whole wild type (*wild-type marginals*, one forward pass) or the wild type
with the site itself masked (*masked marginals*, one pass per site), Meier et al. 2021,
doi:10.1101/2021.07.09.450648. Each site is masked alone, as their code does. Over which tokens the
probabilities are normalised makes no difference: the sum cancels. The score of a variant is the sum
over its substitutions, each judged beside the wild type's other residues.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from mutmeta_lib.data.assays import Assay
from mutmeta_lib.data.variants import AMINO_ACIDS, Substitution
from mutmeta_lib.errors import DataError
from mutmeta_lib.models.encoder import Encoder, fingerprint, on_device, read_checkpoint
from mutmeta_lib.models.layers import WholeModel
from mutmeta_lib.records.store import Store
from mutmeta_lib.tasks.batches import TokenBatch, distinct_rows, run_batches
from mutmeta_lib.tasks.encodings import encode_variants
from mutmeta_lib.tasks.tasks import Examples

MASKED = {"zero_shot": True, "zero_shot_wt": False}
"""The methods by name, and whether a site is masked."""

MEND = (
    "use a checkpoint saved with its language-model head, such as facebook/esm2_t6_8M_UR50D or "
    "Rostlab/prot_bert, or leave zero-shot methods out"
)


def head_of(encoder: Encoder) -> Encoder:
    """The encoder with its language-model head: its module gives logits ``(n, length, tokens)``.

    Its hash is of what these depend on. A checkpoint without the weights of a head, which Hugging
    Face would draw at random, is a DataError, and so is one without a mask.
    """
    if not encoder.source:
        raise DataError(
            f"the encoder '{encoder.name}' has no language-model head, which zero-shot scores need",
            MEND,
        )
    with torch.inference_mode(False):
        found = read_checkpoint(encoder.source, head=True)
        module = found.checked(WholeModel(found.model).eval(), MEND)
    if not encoder.vocabulary.mask:
        raise DataError(f"the tokenizer of encoder '{encoder.name}' has no mask", MEND)
    return replace(encoder, module=module, sha256=fingerprint(module, found.settings))


def describe_head(methods: Sequence[str], encoder: Encoder) -> dict:
    """What a record adds about the encoder if zero-shot methods are asked for; as `head_of`."""
    return {"head_sha256": head_of(encoder).sha256} if MASKED.keys() & set(methods) else {}


def log_odds(
    model: Encoder,
    wild_type: str,
    positions: Sequence[int],
    *,
    masked: bool = True,
    batch_size: int = 32,
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """Log-odds of all 20 letters against the wild type at some sites, counted from 1.

    Natural logarithms, float32, ``(len(positions), 20)``, columns in the order of `AMINO_ACIDS`. A
    wild type longer than the context is read through a window around each site; sites that see the
    same text share a pass. A position that is X or outside the wild type is a DataError.
    """
    if not len(positions):
        return np.empty((0, len(AMINO_ACIDS)), dtype=np.float32)
    for position in positions:
        if wild_type[position - 1 : position] == "X":
            problem = f"the wild type has X at position {position}: no odds to compare with"
            raise DataError(problem, "leave variants of that site out")
    batch, column = _texts(model, wild_type, positions, masked)
    first, text = distinct_rows(batch, "cls")
    letters = torch.tensor(model.vocabulary.residue_ids(AMINO_ACIDS))
    own = torch.tensor([AMINO_ACIDS.index(wild_type[position - 1]) for position in positions])
    weights = on_device(model.module, device)
    found = torch.empty(len(positions), len(AMINO_ACIDS))
    with torch.no_grad():
        for rows, part in run_batches(batch.rows(first), batch_size, siblings=False):
            reads = part.token_ids.to(device), part.mask.to(device)
            logits = functional_call(model.module, weights, reads).float().cpu()[..., letters]
            for row, read in zip(rows, logits, strict=True):
                sites = np.flatnonzero(text == row)
                found[sites] = read[column[sites]]
    return (found - found.gather(1, own[:, None])).numpy()


def _texts(
    model: Encoder, wild_type: str, positions: Sequence[int], masked: bool
) -> tuple[TokenBatch, Tensor]:
    """The text that each site is judged in, and the column of the site."""
    # The encoding that writes an unknown token at the site, with the mask in its place.
    hiding = replace(model.vocabulary, unknown=model.vocabulary.mask)
    sites = []
    for position in positions:
        letter = wild_type[position - 1 : position] or "A"
        sites.append((Substitution(position, letter, "C" if letter == "A" else "A"),))
    batch = encode_variants("unknown_site", wild_type, sites, hiding, model.max_tokens)
    column = batch.sites.int().argmax(dim=1)
    if not masked:
        letters = "".join(wild_type[position - 1] for position in positions)
        shown = torch.tensor(model.vocabulary.residue_ids(letters))
        batch = replace(batch, token_ids=batch.token_ids.masked_scatter(batch.sites, shown))
    return batch, column


@dataclass(frozen=True, eq=False)
class ZeroShot:
    """A method that has nothing to learn; its predictions, natural logarithms, only rank."""

    name: str
    scores: Callable[[Assay], np.ndarray]
    ranks_only: bool = True

    def adapt(self, support: Examples, generator: torch.Generator) -> None:
        """Nothing to learn."""

    def predict(self, state: None, query: Examples) -> np.ndarray:
        """Scores ``(n,)``: high for variants that the model finds likely, 0 for the wild type."""
        return self.scores(query.assay.assay)[query.rows]


def zero_shot(
    name: str, encoder: Encoder, *, cache_dir: str | None = None, device: str = "cpu"
) -> ZeroShot:
    """One of the methods `MASKED`; every protein is run once, or read from `cache_dir`."""
    model, masked = head_of(encoder), MASKED[name]

    @cache
    def scores(assay: Assay) -> np.ndarray:
        wild_type = assay.wild_type
        sites = sorted({change.position for variant in assay.variants for change in variant})
        about = {"head": model.sha256, "max_tokens": model.max_tokens, "masked": masked}
        about |= {"wild_type": wild_type, "positions": sites}
        table = Store(Path(cache_dir) if cache_dir else None, about).tensor(
            "log-odds", lambda: log_odds(model, wild_type, sites, masked=masked, device=device)
        )
        odds = dict(zip(sites, table.tolist(), strict=True))
        own = ([odds[s.position][AMINO_ACIDS.index(s.mutant)] for s in v] for v in assay.variants)
        return np.array([sum(terms, 0.0) for terms in own])

    return ZeroShot(name, scores)
