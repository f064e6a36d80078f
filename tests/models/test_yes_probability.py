"""The yes-probability by hand, against a plain forward pass, and without a trace in the replies."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from sage_trl.models.encoding import encode_prompts
from sage_trl.models.generation import ModelReplyGenerator
from sage_trl.models.yes_probability import YesNoTokens, YesProbability, find_yes_no_tokens
from tests.models.test_generation import row, tiny

__all__ = ["tiny"]


class Vocabulary:
    """A tokenizer of whole tokens, which calls what it does not know id 0."""

    def __init__(self, *tokens: str) -> None:
        self.tokens = ["<unk>", *tokens]

    def convert_tokens_to_ids(self, tokens: list[str]) -> list[int]:
        return [self.tokens.index(token) if token in self.tokens else 0 for token in tokens]

    def decode(self, ids: list[int]) -> str:
        return "".join(self.tokens[index] for index in ids).replace("Ġ", " ").replace("▁", " ")


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (("Yes", "No"), YesNoTokens((1,), (2,))),
        (("yes", "ĠYes", "x", "NO", "▁no", "Nobody"), YesNoTokens((1, 2), (4, 5))),
        (("Yes", "N", "o"), None),
        (("Ye", "No"), None),
    ],
)
def test_spellings_of_one_token(tokens: tuple[str, ...], expected: YesNoTokens | None) -> None:
    assert find_yes_no_tokens(Vocabulary(*tokens)) == expected


def test_shares_by_hand() -> None:
    chances = YesProbability(YesNoTokens(yes=(1, 2), no=(3,)))
    # Row 0: yes 0.2 + 0.4, no 0.2. Row 1: only no. Row 2: neither.
    shares = torch.tensor([[0.2, 0.2, 0.4, 0.2], [0.5, 0.0, 0.0, 0.5], [1.0, 0.0, 0.0, 0.0]])

    scores = chances(torch.zeros(3, 1), shares.log())
    chances(torch.zeros(3, 2), torch.zeros(3, 4))

    assert torch.equal(scores, shares.log())
    assert chances.of_rows == [pytest.approx(0.75), 0.0, None]


def test_generation_tells_what_a_forward_pass_tells(tiny: tuple[Any, Any]) -> None:
    model, processor = tiny
    rows = [row(number, with_reference=number % 2 == 0) for number in range(3)]
    tokens = find_yes_no_tokens(processor.tokenizer)
    assert tokens is not None

    replies = ModelReplyGenerator(model, processor, max_new_tokens=4)(rows)

    for one, reply in zip(rows, replies, strict=True):
        logits = model(**encode_prompts(processor, [one], facts="fusion", reference_in_prompt=False)).logits[0, -1]
        yes, no = (sum(math.exp(logits[index].item()) for index in ids) for ids in tokens)
        assert reply.yes_probability == pytest.approx(yes / (yes + no), abs=1e-4)


def test_replies_are_those_of_a_generation_without(tiny: tuple[Any, Any]) -> None:
    rows = [row(number, with_reference=True) for number in range(3)]
    generator = ModelReplyGenerator(*tiny, max_new_tokens=6)
    told = generator(rows)
    generator._yes_no = None

    silent = generator(rows)

    assert [reply.text for reply in silent] == [reply.text for reply in told]
    assert {reply.yes_probability for reply in silent} == {None}
