"""Makes a reply plain before a rule reads it: no thoughts, no tags or markup, one kind of punctuation."""

from __future__ import annotations

import re

# Chat templates often put `<think>` into the prompt, so that the reply holds its end alone. The forms with ◁ and [ are
# those of Kimi-VL and Magistral.
_THOUGHT = re.compile(r"\A.*[<◁\[]/think(?:ing)?[>▷\]]|[<◁\[]think(?:ing)?[>▷\]].*\Z", re.DOTALL | re.IGNORECASE)
_ANSWER_BLOCK = re.compile(r"<(answer|conclusion)>(.*?)(?:</\1>|\Z)", re.DOTALL | re.IGNORECASE)
_TAG = re.compile(r"<\|[^<>|]*\|>|</?(?:[a-z]|[A-Z]\w)\w*/?>|\\(?:text|textbf|mathrm|mathbf)(?=\{)")
_MARKUP = re.compile(r"[*_`\"“”„«»<>{}\[\]()$\\]+")
_APOSTROPHE_QUOTES = re.compile(r"(?<!\w)['‘’]|['‘’](?!\w)")
_PUNCTUATION = str.maketrans("，。、！？：；（）「」『』’", ',.,!?:;()""""\'')
_LIST_MARK = re.compile(r"^\s*(?:[^\w\s]+|\d+[.)])\s*")
_CLAUSE_END = re.compile(r"[.!?:;=\n]+|\s[-–—]+\s|[–—]")

# "If it were longer, the answer would be A", but not "If I had to choose, I would say A".
HYPOTHETICAL = re.compile(
    r"(?:^|[,:])\s*(?:(?:but|and)\s+)?if\s+"
    r"(?:(?:it|this|that|there)\s+(?:were|was|had)\b|(?!i\b|we\b)[^.!?\n]*\b(?:were|was|had)\b[^.!?\n]*\bwould\b)"
    r"|\b(?:otherwise|without\s+(?:it|this|that))\b[^.!?\n]*\bwould\b",
    re.IGNORECASE,
)


def final_text(reply: str) -> str:
    """What the reply says after its thoughts, without tags and LaTeX fonts, and with Chinese punctuation as ASCII.

    All up to the last `</think>` is thought, and so is what follows a `<think>` that does not end. `<answer>B</answer>`
    becomes a line `Answer: B`.
    """
    said = _ANSWER_BLOCK.sub(r"\nAnswer: \2\n", _THOUGHT.sub(" ", reply))
    return _TAG.sub(" ", said).translate(_PUNCTUATION)


def without_markup(text: str) -> str:
    """The text without emphasis, brackets and quotation marks."""
    return _APOSTROPHE_QUOTES.sub(" ", _MARKUP.sub(" ", text))


def clauses(text: str) -> list[str]:
    """The clauses in their order, without list marks and outer space."""
    return [_LIST_MARK.sub("", clause).strip() for clause in _CLAUSE_END.split(text)]
