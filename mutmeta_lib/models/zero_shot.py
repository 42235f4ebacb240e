"""Zero-shot control: an encoder's own language-model head ranks variants, labels unused.

The score of a variant is the sum of the log-odds of its substitutions, from
`models.language_model` (Meier et al. 2021, doi:10.1101/2021.07.09.450648). Each site is judged
beside the wild type's other residues, so that several mutations add up and one table per protein
serves all its variants. It is what a model knows of a variant from sequences alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch

from mutmeta_lib.data.assays import Assay
from mutmeta_lib.data.variants import AMINO_ACIDS, Variant
from mutmeta_lib.errors import DataError
from mutmeta_lib.models.encoders import Encoder
from mutmeta_lib.models.language_model import MEND, LanguageModel, load_language_model, log_odds
from mutmeta_lib.records.store import Store
from mutmeta_lib.tasks.tasks import Examples

MASKED = {"zero_shot": True, "zero_shot_wt": False}
"""The methods by name, and whether a site is masked: *masked marginals*, one pass per site, and
*wild-type marginals*, one pass per protein."""


@dataclass(frozen=True, eq=False)
class ZeroShot:
    """A method that has nothing to learn; its predictions are in natural logarithms.

    They have no scale on the axis of labels, hence no errors, only ranks.
    """

    name: str
    scores: Callable[[Assay], np.ndarray]
    ranks_only: bool = True

    def adapt(self, support: Examples, generator: torch.Generator) -> None:
        """Nothing to learn."""

    def predict(self, state: None, query: Examples) -> np.ndarray:
        """Scores ``(n,)``: high for variants that the model finds likely, 0 for the wild type."""
        return self.scores(query.assay.assay)[query.rows]


def head_of(encoder: Encoder) -> LanguageModel:
    """The encoder with its language-model head, loaded from where the encoder was.

    Raises:
        DataError: There is no head: ``tiny`` has none, and a checkpoint may have lost its own.

    """
    if not encoder.source:
        raise DataError(
            f"the encoder '{encoder.name}' has no language-model head, which zero-shot scores need",
            MEND,
        )
    return load_language_model(encoder.source, max_tokens=encoder.max_tokens)


def describe_head(methods: Sequence[str], encoder: Encoder) -> dict:
    """What a record adds about the encoder if zero-shot methods are asked for, else nothing.

    Called before anything is trained, it finds out then whether there is a head.

    Raises:
        DataError: There is none.

    """
    if not MASKED.keys() & set(methods):
        return {}
    return {"head_sha256": head_of(encoder).sha256}


def zero_shot(
    name: str, encoder: Encoder, *, cache_dir: str | None = None, device: str = "cpu"
) -> ZeroShot:
    """One of the methods `MASKED`; every protein is run once, or read from `cache_dir`.

    Raises:
        DataError: The encoder has no language-model head.

    """
    model, masked = head_of(encoder), MASKED[name]

    @cache
    def table(wild_type: str, positions: tuple[int, ...]) -> np.ndarray:
        def compute() -> np.ndarray:
            return log_odds(model, wild_type, positions, masked=masked, device=device)

        about = {"head": model.sha256, "max_tokens": model.max_tokens, "masked": masked}
        about |= {"wild_type": wild_type, "positions": list(positions)}
        store = Store(Path(cache_dir) if cache_dir else None, about)
        return store.tensor("log-odds", compute).numpy()

    @cache
    def scores(assay: Assay) -> np.ndarray:
        sites = sorted({change.position for variant in assay.variants for change in variant})
        return add_up(assay.variants, sites, table(assay.wild_type, tuple(sites)))

    return ZeroShot(name, scores)


def add_up(variants: Sequence[Variant], positions: Sequence[int], table: np.ndarray) -> np.ndarray:
    """Sum the log-odds of each variant's substitutions.

    Args:
        variants: ``n`` variants.
        positions: The sites of the table's rows, counted from 1.
        table: Log-odds, ``(len(positions), 20)``.

    Returns:
        float64, ``(n,)``; the wild type has 0.

    >>> from mutmeta_lib.data.variants import parse_variant
    >>> table = np.arange(40).reshape(2, 20)
    >>> add_up([parse_variant(text) for text in ("K2A", "K2C:T5A", "WT")], [2, 5], table)
    array([ 0., 21.,  0.])

    """
    row = {position: place for place, position in enumerate(positions)}
    column = {letter: place for place, letter in enumerate(AMINO_ACIDS)}
    return np.array(
        [
            sum((float(table[row[one.position], column[one.mutant]]) for one in variant), 0.0)
            for variant in variants
        ]
    )
