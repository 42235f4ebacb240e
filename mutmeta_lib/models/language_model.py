r"""Log-odds of substitutions by a protein language model's own head (Meier et al. 2021).

A masked language model gives every site :math:`i` a distribution over residues. With the wild type
:math:`x` and its letter :math:`x_i`, the log-odds of a letter :math:`a` are

.. math:: \log p(a \mid \cdot) - \log p(x_i \mid \cdot)

where the context is the whole wild type (*wild-type marginals*, one forward pass) or the wild type
with the site itself masked (*masked marginals*, one pass per site), doi:10.1101/2021.07.09.450648.
Each site is masked alone, as their code does. Over which tokens the probabilities are normalised
makes no difference: the sum, special tokens included, cancels in the difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from mutmeta_lib.data.variants import AMINO_ACIDS, Substitution
from mutmeta_lib.errors import DataError
from mutmeta_lib.models.encoders import fingerprint
from mutmeta_lib.models.hugging_face import context, hide_unused, read_checkpoint, sample
from mutmeta_lib.tasks.batches import length_buckets
from mutmeta_lib.tasks.encodings import encode_variants
from mutmeta_lib.tasks.vocabulary import Vocabulary

MEND = (
    "use a checkpoint saved with its head, such as facebook/esm2_t6_8M_UR50D or "
    "Rostlab/prot_bert, or leave zero-shot methods out"
)


class Logits(nn.Module):
    """A Hugging Face language model reduced to ``(token_ids, mask) -> logits``."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, token_ids: Tensor, mask: Tensor) -> Tensor:
        """Logits of every token of the vocabulary at every place, ``(n, length, tokens)``."""
        return self.model(input_ids=token_ids, attention_mask=mask.long()).logits


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """An encoder with its masked-language-model head.

    Attributes:
        name: Short name, never a path.
        vocabulary: The tokens it reads and predicts.
        mask: The token of a hidden residue.
        max_tokens: Its context, start and end tokens included.
        module: ``module(token_ids, mask)`` gives logits ``(n, length, tokens)``.
        sha256: Hash over the weights that the logits depend on, and the settings that shape them.

    """

    name: str
    vocabulary: Vocabulary
    mask: str
    max_tokens: int
    module: nn.Module
    sha256: str


def load_language_model(
    name: str, *, local_files_only: bool = False, max_tokens: int | None = None
) -> LanguageModel:
    """Load an encoder together with its head.

    Args:
        name: A directory in Hugging Face's format or a name on the hub.
        local_files_only: Never ask the network.
        max_tokens: A shorter context than the model's own.

    Raises:
        DataError: The name cannot be loaded, or the checkpoint comes without the weights of a head:
            Hugging Face would draw them at random and predict noise.

    """
    with torch.inference_mode(False):
        found = read_checkpoint(name, local_files_only=local_files_only, head=True)
        module = Logits(found.model).eval()
        hide_unused(module, sample(found.vocabulary))
    named = found.vocabulary.name
    trunk = f"{found.model.base_model_prefix}."
    absent = found.lacking(module)
    if head := [key for key in absent if not key.startswith(trunk)]:
        raise DataError(
            f"the checkpoint of encoder '{named}' comes without a language-model head "
            f"({len(head)} weights are missing, first {head[0]})",
            MEND,
        )
    if absent:
        raise DataError(
            f"the checkpoint of encoder '{named}' lacks {len(absent)} weights of the right shape, "
            f"first {absent[0]}",
            "use a complete checkpoint that belongs to its config.json",
        )
    if not found.mask:
        raise DataError(f"the tokenizer of encoder '{named}' has no mask token", MEND)
    return LanguageModel(
        name=named,
        vocabulary=found.vocabulary,
        mask=found.mask,
        max_tokens=max_tokens or context(found.model.config),
        module=module,
        sha256=fingerprint(module, found.settings),
    )


def log_odds(
    model: LanguageModel,
    wild_type: str,
    positions: Sequence[int],
    *,
    masked: bool = True,
    batch_size: int = 32,
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """Log-odds of all 20 letters against the wild type at some sites.

    A wild type longer than the context is read through a window around each site
    (`encodings.window`), the same for both kinds of marginals; several sites that see the same
    text share a pass.

    Args:
        model: The language model.
        wild_type: Its residues, one letter each.
        positions: Sites, counted from 1.
        masked: Masked marginals; else wild-type marginals.
        batch_size: Texts read at a time, at most.
        device: Where to compute.

    Returns:
        Natural logarithms, float32, ``(len(positions), 20)``, columns in the order of
        `mutmeta_lib.data.variants.AMINO_ACIDS`; 0 at the wild type's own letter.

    Raises:
        DataError: A position lies outside the wild type or is X there, or a letter is not in the
            vocabulary.

    """
    if not len(positions):
        return np.empty((0, len(AMINO_ACIDS)), dtype=np.float32)
    for position in positions:
        if 0 < position <= len(wild_type) and wild_type[position - 1] not in AMINO_ACIDS:
            raise DataError(
                f"the wild type has {wild_type[position - 1]} at position {position}, which has no "
                "odds to compare with",
                "leave variants of that site out",
            )
    token_ids, mask, column = _texts(model, wild_type, positions, masked)
    unique, row = torch.unique(token_ids, dim=0, return_inverse=True)
    real = torch.zeros_like(unique, dtype=torch.bool)
    real[row] = mask
    letters = torch.tensor(model.vocabulary.residue_ids(AMINO_ACIDS))
    own = torch.tensor([AMINO_ACIDS.index(wild_type[position - 1]) for position in positions])
    weights = {name: value.to(device) for name, value in model.module.named_parameters()}
    weights |= {name: value.to(device) for name, value in model.module.named_buffers()}
    found = torch.empty(len(positions), len(AMINO_ACIDS))
    with torch.no_grad():
        for part in length_buckets(real.sum(dim=1), batch_size):
            length = int(real[part].sum(dim=1).max())
            reads = unique[part, :length].to(device), real[part, :length].to(device)
            logits = functional_call(model.module, weights, reads).float().cpu()[..., letters]
            place = {int(text): index for index, text in enumerate(part)}
            for site in torch.isin(row, part).nonzero()[:, 0].tolist():
                found[site] = logits[place[int(row[site])], column[site]]
    return (found - found.gather(1, own[:, None])).numpy()


def _texts(
    model: LanguageModel, wild_type: str, positions: Sequence[int], masked: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The text that each site is judged in: token ids, mask, and the column of the site."""
    # The encoding that writes an unknown token at the site, with the mask in its place.
    hiding = replace(model.vocabulary, unknown=model.mask)
    sites = []
    for position in positions:
        letter = wild_type[position - 1 : position] or "A"
        sites.append((Substitution(position, letter, "C" if letter == "A" else "A"),))
    batch = encode_variants("unknown_site", wild_type, sites, hiding, model.max_tokens)
    column = batch.sites.int().argmax(dim=1)
    if masked:
        return batch.token_ids, batch.mask, column
    letters = [wild_type[position - 1] for position in positions]
    shown = torch.tensor(model.vocabulary.residue_ids("".join(letters)))
    return batch.token_ids.masked_scatter(batch.sites, shown), batch.mask, column
