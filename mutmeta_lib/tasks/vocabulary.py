"""Vocabularies: the tokens a protein language model knows, and what each is for.

A protein language model reads integers. A `Vocabulary` is the table between those integers and
tokens (residues and special tokens), together with the four roles that special tokens play here:
padding, unknown, start and end of a text, and the separator that the paper's encoding puts around
a mutation (arXiv 2510.20943). Ids are looked up one token at a time, so what the model sees is what
was asked for; a text tokenizer offers no such promise (ESM-2's turns ``[SEP]`` into
``<unk> S E P <unk>``).
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

    Attributes:
        name: What the vocabulary belongs to, for messages.
        tokens: All tokens, in the order of their ids.
        pad: Fills the short rows of a batch; never attended to.
        unknown: Stands for whatever the vocabulary cannot say.
        start: First token of every text, or ``""`` if there is none.
        end: Last token of every text, or ``""`` if there is none.
        separator: One single token that marks a mutation and joins pieces of sequence.
        spaced: Whether the tokenizer's text format has blanks between residues (ProtBERT).
            Ids do not depend on it, a written text would.

    >>> TINY_VOCABULARY.residue_ids("MKX")
    (14, 12, 24)
    >>> TINY_VOCABULARY.show([2, 14, 12])
    ['[CLS]', 'M', 'K']

    """

    name: str
    tokens: tuple[str, ...]
    pad: str
    unknown: str
    start: str
    end: str
    separator: str
    spaced: bool

    def __post_init__(self):
        if len(set(self.tokens)) != len(self.tokens):
            raise DataError(f"the vocabulary '{self.name}' holds a token twice", "keep one of them")
        for role in ("pad", "unknown", "separator", "start", "end"):
            token = getattr(self, role)
            may_be_absent = role in ("start", "end") and token == ""
            if not may_be_absent:
                self._require(token, f"{role} token")
        for letter in AMINO_ACIDS:
            self._residue_id(letter)

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {token: index for index, token in enumerate(self.tokens)}

    @cached_property
    def _residues(self) -> dict[str, int]:
        return {letter: self._residue_id(letter) for letter in AMINO_ACIDS}

    def _require(self, token: str, what: str) -> int:
        found = self._ids.get(token)
        if found is None:
            raise DataError(
                f"the vocabulary '{self.name}' has no {what} '{token}'",
                "use an encoder whose vocabulary holds it",
            )
        return found

    def _residue_id(self, letter: str) -> int:
        # Uncased vocabularies (bert-base-uncased, a control in the public code) hold lower case.
        lower = self._ids.get(letter.lower())
        return lower if lower is not None and letter not in self._ids else self.id(letter)

    def id(self, token: str) -> int:
        """The id of a token that the vocabulary holds.

        Raises:
            DataError: The vocabulary does not hold the token. Nothing becomes unknown silently.

        """
        return self._require(token, "token")

    def residue_ids(self, sequence: str) -> tuple[int, ...]:
        """The ids of a sequence, one per residue, without start and end tokens.

        Raises:
            DataError: A letter is not in the vocabulary.

        """
        ids = self._residues
        if others := set(sequence) - ids.keys():
            ids = ids | {letter: self._residue_id(letter) for letter in others}
        return tuple(map(ids.__getitem__, sequence))

    def show(self, ids: Iterable[int]) -> list[str]:
        """The tokens behind ids, exactly as the model sees them."""
        return [self.tokens[index] for index in ids]

    @property
    def start_ids(self) -> tuple[int, ...]:
        """The start token's id as a tuple of one, or of none."""
        return (self.id(self.start),) if self.start else ()

    @property
    def end_ids(self) -> tuple[int, ...]:
        """The end token's id as a tuple of one, or of none."""
        return (self.id(self.end),) if self.end else ()

    @classmethod
    def from_tokenizer(
        cls, tokenizer: PreTrainedTokenizerBase, *, separator: str | None = None, name: str = ""
    ) -> Vocabulary:
        """Read the vocabulary out of a Hugging Face tokenizer.

        Start and end tokens and the need for blanks are found by asking the tokenizer to write
        two residues, not by knowing its class.

        The separator is `separator` if given, else the tokenizer's own: ``[SEP]`` for BERT and
        ProtBERT, and ``<eos>`` for ESM-2, which has no ``[SEP]``: it is the token that ESM-2's
        tokenizer itself puts between two sequences. A separator is always one single token.

        Raises:
            DataError: The tokenizer has no such separator, no padding or unknown token, no token
                for one of the 20 amino acids, or does not write one token per residue.

        """
        name = name or type(tokenizer).__name__
        ids = tokenizer.get_vocab()
        tokens = tuple(sorted(ids, key=ids.__getitem__))
        if [ids[token] for token in tokens] != list(range(len(tokens))):
            raise DataError(
                f"the ids of the vocabulary '{name}' are not 0, 1, 2, … without gaps",
                "use a tokenizer with gapless ids",
            )
        spaced = len(tokenizer.tokenize("MK")) != 2
        frame = [tokens[index] for index in tokenizer.encode("M K" if spaced else "MK")]
        residues = [place for place, token in enumerate(frame) if token in {"M", "K", "m", "k"}]
        before = frame[: residues[0]] if residues else frame
        after = frame[residues[-1] + 1 :] if residues else frame
        if len(residues) != 2 or len(before) > 1 or len(after) > 1:
            raise DataError(
                f"the tokenizer '{name}' writes the residues M and K as {' '.join(frame)}",
                "use a protein tokenizer, which has one token per residue",
            )
        separator = separator or tokenizer.sep_token or tokenizer.eos_token
        return cls(
            name=name,
            tokens=tokens,
            pad=tokenizer.pad_token or "",
            unknown=tokenizer.unk_token or "",
            start=before[0] if before else "",
            end=after[0] if after else "",
            separator=separator or "",
            spaced=spaced,
        )


TINY_VOCABULARY = Vocabulary(
    name="tiny",
    tokens=("[PAD]", "[UNK]", "[CLS]", "[SEP]", *AMINO_ACIDS, "X"),
    pad="[PAD]",
    unknown="[UNK]",
    start="[CLS]",
    end="",
    separator="[SEP]",
    spaced=False,
)
"""The vocabulary of `models.encoders.tiny_encoder`: 20 amino acids, X, four special tokens."""
