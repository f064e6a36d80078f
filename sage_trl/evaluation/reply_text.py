"""Makes a reply plain before a rule reads it: no thoughts, no markup, one kind of punctuation."""

from __future__ import annotations

import re

_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL | re.IGNORECASE)
_MARKUP = re.compile(r"[*_`\"“”„«»<>{}\[\]()$\\]+")
_APOSTROPHE_QUOTES = re.compile(r"(?<!\w)['‘’]|['‘’](?!\w)")
_PUNCTUATION = str.maketrans("，。、！？：；（）「」『』’", ',.,!?:;()""""\'')
_LIST_MARK = re.compile(r"^\s*(?:[-•–—#>]+|\d+[.)])\s*")
_CLAUSE_END = re.compile(r"[.!?:;=\n]+|\s[-–—]+\s|[–—]")


def without_thoughts(reply: str) -> str:
    """The reply without what stands between `<think>` and `</think>`, and with Chinese punctuation as ASCII."""
    return _THOUGHT.sub(" ", reply).translate(_PUNCTUATION)


def without_markup(text: str) -> str:
    """The text without emphasis, brackets and quotation marks."""
    return _APOSTROPHE_QUOTES.sub(" ", _MARKUP.sub(" ", text))


def clauses(text: str) -> list[str]:
    """The clauses in their order, without list marks and outer space."""
    return [_LIST_MARK.sub("", clause).strip() for clause in _CLAUSE_END.split(text)]
