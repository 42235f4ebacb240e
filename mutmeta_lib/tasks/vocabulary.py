"""Vocabularies: the tokens a protein language model knows, and what each is for.

Ids are looked up one token at a time, so that the model sees what was asked for: ESM-2's own text
tokenizer turns ``[SEP]`` into ``<unk> S E P <unk>``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from mutmeta_lib.data.variants import AMINO_ACIDS
from mutmeta_lib.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of one encoder; a token's id is its index in `tokens`.

    ``pad`` fills the short rows of a batch, ``unknown`` stands for what the vocabulary cannot say,
    and ``separator`` is one token that marks a mutation and joins stretches of sequence. ``start``
    and ``end`` of every text, and the ``mask`` of a hidden residue, are ``""`` if there is none.
    """

    name: str
    tokens: tuple[str, ...]
    pad: str
    unknown: str
    start: str
    end: str
    separator: str
    mask: str = ""

    def __post_init__(self):
        if len(self._ids) != len(self.tokens):
            raise DataError(f"the vocabulary '{self.name}' holds a token twice", "keep one of them")
        for role in ("pad", "unknown", "separator", "start", "end"):
            if (token := getattr(self, role)) or role not in ("start", "end"):
                self.id(token, f"{role} token")
        self.residue_ids(AMINO_ACIDS)

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {token: index for index, token in enumerate(self.tokens)}

    @cached_property
    def _residues(self) -> dict[str, int]:
        # Uncased vocabularies (bert-base-uncased, a control in the public code) hold lower case.
        return {token.upper(): index for token, index in self._ids.items()} | self._ids

    def id(self, token: str, what: str = "token") -> int:
        """The id of a token; a `DataError` says `what` is missing."""
        if token not in self._ids:
            problem = f"the vocabulary '{self.name}' has no {what} '{token}'"
            raise DataError(problem, "use an encoder whose vocabulary holds it")
        return self._ids[token]

    def residue_ids(self, sequence: str) -> tuple[int, ...]:
        """The ids of a sequence, one per residue; raises `DataError` for a letter it lacks."""
        for letter in set(sequence) - self._residues.keys():
            self.id(letter)
        return tuple(map(self._residues.__getitem__, sequence))

    def show(self, ids: Iterable[int]) -> list[str]:
        """The tokens behind ids, exactly as the model sees them."""
        return [self.tokens[index] for index in ids]

    @property
    def frame(self) -> tuple[tuple[int, ...], ...]:
        """The ids that stand before every text, and those behind: of one token each, or none."""
        return tuple((self.id(token),) if token else () for token in (self.start, self.end))

    @classmethod
    def from_tokenizer(cls, tokenizer: PreTrainedTokenizerBase, name: str = "") -> Vocabulary:
        """Read the vocabulary out of a Hugging Face tokenizer; `DataError` where it cannot serve.

        Start and end tokens are found by asking it to write two residues. The separator is what the
        tokenizer itself puts between two sequences: ``[SEP]`` for BERT, ``<eos>`` for ESM-2.
        """
        name = name or type(tokenizer).__name__
        ids = tokenizer.get_vocab()
        tokens = tuple(sorted(ids, key=ids.__getitem__))
        if [ids[token] for token in tokens] != list(range(len(tokens))):
            raise DataError(f"the ids of vocabulary '{name}' have gaps", "use another tokenizer")
        # ProtBERT's text has blanks between residues.
        text = "MK" if len(tokenizer.tokenize("MK")) == 2 else "M K"
        frame = [tokens[index] for index in tokenizer.encode(text)]
        at = [place for place, token in enumerate(frame) if token.upper() in ("M", "K")]
        start, end = (frame[: at[0]], frame[at[-1] + 1 :]) if at else ([], [])
        if len(at) != 2 or len(start) > 1 or len(end) > 1:
            problem = f"the tokenizer '{name}' writes the residues M and K as {' '.join(frame)}"
            raise DataError(problem, "use a protein tokenizer, which has one token per residue")
        return cls(
            name,
            tokens,
            pad=tokenizer.pad_token or "",
            unknown=tokenizer.unk_token or "",
            start="".join(start),
            end="".join(end),
            separator=tokenizer.sep_token or tokenizer.eos_token or "",
            mask=tokenizer.mask_token or "",
        )


TINY_VOCABULARY = Vocabulary(
    name="tiny",
    tokens=("[PAD]", "[UNK]", "[CLS]", "[SEP]", *AMINO_ACIDS, "X"),
    pad="[PAD]",
    unknown="[UNK]",
    start="[CLS]",
    end="",
    separator="[SEP]",
)
"""The vocabulary of `models.encoder.tiny_encoder`: 20 amino acids, X, four special tokens."""
