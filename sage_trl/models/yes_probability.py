"""The chance that an answer begins with yes rather than no, read off the first step of generation as it passes."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import LongTensor, Tensor
from transformers import LogitsProcessor

_MARKS = ("", " ", "Ġ", "▁")
"""What a token may begin with instead of a space."""


class YesNoTokens(NamedTuple):
    """Ids of the tokens that alone spell yes and no, in any capitals, with or without a space before."""

    yes: tuple[int, ...]
    no: tuple[int, ...]


def find_yes_no_tokens(tokenizer: Any) -> YesNoTokens | None:
    """The tokens of a tokenizer; None if it spells yes or no with several tokens only."""
    found = YesNoTokens(_tokens_of(tokenizer, "yes"), _tokens_of(tokenizer, "no"))
    return found if found.yes and found.no else None


def _tokens_of(tokenizer: Any, word: str) -> tuple[int, ...]:
    spellings = [mark + cased for mark in _MARKS for cased in (word, word.capitalize(), word.upper())]
    ids = {index for index in tokenizer.convert_tokens_to_ids(spellings) if index is not None}
    # An unknown spelling has the id of the unknown token.
    return tuple(sorted(index for index in ids if tokenizer.decode([index]).strip().lower() == word))


class YesProbability(LogitsProcessor):
    """P(yes) / (P(yes) + P(no)) of the first new token, for one call of `generate`; the scores stay as they are.

    With `output_logits` the logits of all steps would be kept: 1.9 GB for 64 replies of 48 tokens from a vocabulary of
    151,000. What the model's generation settings do to the scores, such as a repetition penalty, is done before.

    Attributes:
        of_rows: one probability a row, 0-1, to six places; None where neither word has any. Empty before the first step.
    """

    def __init__(self, tokens: YesNoTokens) -> None:
        self._tokens = tokens
        self.of_rows: list[float | None] = []

    def __call__(self, input_ids: LongTensor, scores: Tensor) -> Any:
        """See `LogitsProcessor`; scores `[rows, vocabulary]`."""
        if not self.of_rows:
            yes, no = (scores[:, list(ids)].double().logsumexp(dim=1) for ids in self._tokens)
            # Both are minus infinity where both words are suppressed; the difference then is not a number.
            chances = torch.sigmoid(yes - no).tolist()
            self.of_rows = [None if chance != chance else round(chance, 6) for chance in chances]
        return scores
