"""Reads the yes/no verdict out of a free-text reply."""

from __future__ import annotations

import re

_YES = r"(?:yes|yeah|yep)"
_NO = r"(?:no|nope)"
_EITHER = rf"(?:{_YES}|{_NO})"

_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL | re.IGNORECASE)
_MARKUP = re.compile(r"[*_`\"“”„«»<>{}\[\]()$\\]+")
_APOSTROPHE_QUOTES = re.compile(r"(?<!\w)['‘’]|['‘’](?!\w)")
# An echo of "Answer Yes or No first" and a hedge such as "yes and no" state nothing.
_BOTH = re.compile(
    rf"\b{_EITHER}(?:\s*(?:/|\bor\b|\band\b)\s*{_EITHER}\b|[\s,]+{_EITHER}(?=\s*(?:[,.;!?]|$)|\s+{_EITHER}\b))",
    re.IGNORECASE,
)
_NUMBER_SIGN = re.compile(r"\bno\.\s*(?=\d)", re.IGNORECASE)
_LIST_MARK = re.compile(r"^\s*(?:[-•–—#>]+|\d+[.)])\s*")
_CLAUSE_END = re.compile(r"[.!?:;=\n]+|\s[-–—]+\s|[–—]")

# After a verdict "no" a new clause begins ("no the surface is clean"); anything else makes it a determiner
# ("no scratch is visible"), which answers "is it fine?" and "is it scratched?" in opposite ways.
_CLAUSE_OPENER = (
    "the|this|that|these|those|it|its|there|they|i|we|you|he|she|a|an|both|all|in|on|at|as|because|since|from|compared"
    "|based|when|while|but|so|is|are|not|nothing|neither|none|everything|only|just|one"
)
_NO_AS_VERDICT = rf"{_NO}(?=\s*(?:,|$)|\s+(?:{_CLAUSE_OPENER})\b)"
_LEADING = re.compile(rf"^(?:(?P<yes>{_YES})\b|(?P<no>{_NO_AS_VERDICT}))", re.IGNORECASE)
_AFTER_COMMA = re.compile(rf",\s*(?:(?P<yes>{_YES})|(?P<no>{_NO}))(?=\s*(?:,|$))", re.IGNORECASE)
_DECLARED = re.compile(
    r"\b(?:(?:answer|verdict|conclusion|response)(?:\s+(?:to|for)\s[\w\s]{0,60}?)?\s+(?:is|would\s+be|must\s+be|should\s+be)"
    r"|(?:would|'d|will|must|to|i)\s+(?:say|answer)|boxed|answer)"
    rf"\s*,?\s*(?:a\s+|definitely\s+|clearly\s+)?(?:(?P<yes>{_YES})\b|(?P<no>{_NO_AS_VERDICT}))",
    re.IGNORECASE,
)


def parse_verdict(reply: str) -> bool | None:
    """Return the verdict that a reply states.

    Statements are a yes or no that opens a clause ("Yes, ...", "Looking closely: no.") and a declared answer ("the
    answer is no"). A negation such as "no scratch is visible" is no statement, because whether it means yes or no
    depends on the question.

    Returns:
        True for yes, False for no, None if the reply states neither or both.
    """
    text = _THOUGHT.sub(" ", reply)
    text = _NUMBER_SIGN.sub("number ", text)
    text = _APOSTROPHE_QUOTES.sub(" ", _MARKUP.sub(" ", text))
    text = _BOTH.sub(" ; ", text)
    stated = {verdict for clause in _CLAUSE_END.split(text) for verdict in _statements(clause)}
    return stated.pop() if len(stated) == 1 else None


def _statements(clause: str) -> list[bool]:
    clause = _LIST_MARK.sub("", clause).strip()
    found = [*_AFTER_COMMA.finditer(clause), *_DECLARED.finditer(clause)]
    leading = _LEADING.match(clause)
    if leading is not None:
        found.append(leading)
    return [match["yes"] is not None for match in found]
