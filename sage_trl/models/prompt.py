"""The prompt (paper section 3.1): image tokens, fact placeholders, the auxiliary sentence, the question.

Prompts are ordinary chat messages, so any chat template of any backbone applies.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal

FACT_TOKEN = "<fact>"
FactUse = Literal["none", "hard", "fusion"]
"""What becomes of a row's facts: nothing, text in the prompt (the ablation's Fact[Hard]), or fusion (eq. 2)."""

FACT_SENTENCE = "Above is the feature related to the anomaly facts."
HARD_FACTS_SENTENCE = "Above are facts about parts of this kind."
ANSWER_INSTRUCTION = "Answer Yes or No first, then give the reason."
CHOICE_INSTRUCTION = "Answer with the letter of the right option first, then give the reason."
# By number, because some chat templates put all images before all text.
REFERENCE_SENTENCE = "The first image shows a good part: take it as the baseline."
TEST_SENTENCE = "The second image shows the part to inspect."

_OPTION = re.compile(r"^[A-Z]\. \S", re.MULTILINE)

Message = dict[str, Any]


def question_messages(question: str, earlier_turns: list[tuple[str, str]] | None = None) -> list[Message]:
    """The user's messages without images and facts: what a row's `prompt` holds.

    Args:
        question: the question to answer now.
        earlier_turns: (question, answer) pairs of the same group that came before (eq. 10).
    """
    messages: list[Message] = []
    for asked, answer in earlier_turns or []:
        messages.append({"role": "user", "content": _with_instruction(asked)})
        messages.append({"role": "assistant", "content": answer})
    return [*messages, {"role": "user", "content": _with_instruction(question)}]


def _with_instruction(question: str) -> str:
    """The question with how to answer it; lettered options, one a line, are to be chosen from."""
    instruction = CHOICE_INSTRUCTION if len(_OPTION.findall(question)) > 1 else ANSWER_INSTRUCTION
    return f"{question}\n{instruction}"


def with_images_and_facts(
    messages: list[Message], facts: Sequence[str], fact_use: FactUse, with_reference: bool
) -> list[Message]:
    """Put the image and the facts, as text or as placeholders, before the first user message.

    Args:
        messages: chat messages with text content, as `question_messages` makes them.
        facts: sentences; none to write nothing.
        fact_use: `fusion` writes a placeholder for each, `hard` their text.
        with_reference: put a reference image first, as the baseline to compare with.
    """
    image: Message = {"type": "image"}
    parts: list[Message] = [image]
    if with_reference:
        parts = [image, _text(f"{REFERENCE_SENTENCE}\n"), image, _text(f"{TEST_SENTENCE}\n")]
    if facts and fact_use == "fusion":
        parts.append(_text(f"{FACT_TOKEN * len(facts)}\n{FACT_SENTENCE}\n"))
    elif facts and fact_use == "hard":
        sentences = "\n".join(facts)
        parts.append(_text(f"{sentences}\n{HARD_FACTS_SENTENCE}\n"))
    first, *rest = as_parts(messages)
    return [{"role": first["role"], "content": [*parts, *first["content"]]}, *rest]


def as_parts(messages: Iterable[Message]) -> list[Message]:
    """The same messages with each text content as a list of one text part, which every chat template understands."""
    return [
        {**message, "content": [_text(content)] if isinstance(content := message["content"], str) else content}
        for message in messages
    ]


def _text(text: str) -> Message:
    return {"type": "text", "text": text}
