"""Reads the yes/no verdict out of a free-text reply, and the reason beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from sage_trl.evaluation.reply_text import HYPOTHETICAL, clauses, final_text, without_markup
from sage_trl.lexicon.reading import CHINESE_NO, CHINESE_YES

_YES_WORD = r"(?:yes|yeah|yep)"
_NO_WORD = r"(?:no|nope)"
_EITHER = rf"(?:{_YES_WORD}|{_NO_WORD}|true|false)"
_EITHER_CHINESE = r"(?:不是|是|有|没有|否|对|错)"

# An echo of "Answer Yes or No first" and a hedge such as "yes and no" state nothing.
_BOTH = re.compile(
    rf"\b{_EITHER}(?:\s*(?:/|\bor\b|\band\b)\s*{_EITHER}\b|[\s,]+{_EITHER}(?=\s*(?:[,.;!?]|$)|\s+{_EITHER}\b))"
    rf"|{_EITHER_CHINESE}\s*(?:/|或者?|还是)\s*{_EITHER_CHINESE}",
    re.IGNORECASE,
)
# "No (both agree)", but not "no (visible) scratch".
_LAST_BRACKETS = re.compile(r"\(([^()]*)\)(?=\s*(?:[.,;!?]|$))", re.MULTILINE)
_NUMBER_SIGN = re.compile(r"\bno\.\s*(?=\d)", re.IGNORECASE)

# After a verdict "no" a new clause begins ("no the surface is clean"); anything else makes it a determiner
# ("no scratch is visible"), which answers "is it fine?" and "is it scratched?" in opposite ways.
_CLAUSE_OPENER = (
    "the|this|that|these|those|it|its|there|they|i|we|you|he|she|a|an|both|all|in|on|at|as|because|since|from|compared"
    "|based|when|while|but|so|is|are|not|nothing|neither|none|everything|only|just"
)
_END = r"(?=\s*(?:[,.!?:;–—]|$))"
# "True" and "correct" are adjectives too ("true colours"), "certainly" an adverb: they state something when alone.
_YES_ALONE = (
    r"(?:(?:that\s+is\s+|that's\s+)?(?:true|correct|right)"
    rf"|affirmative|indeed|absolutely|certainly|definitely|of\s+course|i\s+think\s+so){_END}"
)
_NO_ALONE = (
    r"(?:(?:that\s+is\s+|that's\s+)?(?:not\s+true|not\s+correct|false|incorrect|wrong)|negative"
    r"|not\s+at\s+all|not\s+really|(?:absolutely|certainly|definitely|probably|clearly)\s+not"
    rf"|i\s+(?:don't|do\s+not)\s+think\s+so){_END}"
)
_YES_CHINESE = rf"(?:{CHINESE_YES}|没错){_END}"
_NO_CHINESE = rf"(?:{CHINESE_NO}){_END}"
_NO_AS_VERDICT = rf"{_NO_WORD}(?:{_END}|(?=\s+(?:{_CLAUSE_OPENER})\b))"
# "Yes would be right only for ..." speaks of the word.
_YES = rf"(?:{_YES_WORD}\b(?!\s+would\b)|{_YES_CHINESE})"
_NO = rf"(?:{_NO_AS_VERDICT}|{_NO_CHINESE})"

_LEADING = re.compile(
    rf"^(?:(?:well|so|okay|ok|hmm|thus|therefore|hence|(?:most\s+)?likely|probably|definitely|clearly)\s+|(?:因此|所以)\s*)?"
    rf"(?:(?P<yes>{_YES})|(?P<no>{_NO}))",
    re.IGNORECASE,
)
_ALONE = re.compile(rf"^(?:(?P<yes>{_YES_ALONE})|(?P<no>{_NO_ALONE}))", re.IGNORECASE)
# A whole clause that repeats the question's verb: "It is.", "There are not."
_SHORT_FORM = re.compile(
    r"^(?:(?:it|there|they|this)\s+(?:is|are|does|do|has|was|were))(?:(?P<yes>)|(?P<no>n't|\s+not))$", re.IGNORECASE
)
_AFTER_COMMA = re.compile(
    r",\s*(?:(?:so|but|thus|therefore|hence)\s+)?"
    rf"(?:(?P<yes>{_YES_WORD}{_END}|{_YES_CHINESE})|(?P<no>{_NO_WORD}{_END}|{_NO_CHINESE}))",
    re.IGNORECASE,
)
_DECLARED = re.compile(
    r"\b(?:(?:answer|verdict|conclusion|response|statement|claim)(?:\s+(?:to|for)\s[\w\s]{0,60}?)?"
    r"\s+(?:is|would\s+be|must\s+be|should\s+be)|(?:would|'d|will|must|to|i)\s+(?:say|answer|choose|think)"
    r"|(?:go|going)\s+with|(?:it|that|this)(?:'s|\s+is)(?=\s+a\s)|boxed|answer)"
    r"\s*,?\s*(?:a\s+|definitely\s+|clearly\s+|therefore\s+)?(?P<not>not\s+)?"
    rf"(?:(?P<yes>{_YES_WORD}\b|true\b|correct\b)|(?P<no>{_NO_AS_VERDICT}|false\b|incorrect\b))",
    re.IGNORECASE,
)
_DECLARED_CHINESE = re.compile(
    r"(?:答案|结论|回答|判断)(?:应该|应)?[是为]?\s*(?P<not>不是)?\s*"
    rf"(?:(?P<yes>肯定的?|{_YES_CHINESE})|(?P<no>否定的?|{_NO_CHINESE}))"
)
_TRUTH_OF = re.compile(
    r"^it\s+is\s+(?:(?P<yes>true|correct)|(?P<no>not\s+true|not\s+correct|false|incorrect))\s+that\b", re.I
)
_RULES = (_LEADING, _AFTER_COMMA, _DECLARED, _DECLARED_CHINESE)
# Such words also comment on what was said ("No, it is fine. True, the light differs."), so a plain yes or no outweighs
# them.
_WEAK_RULES = (_ALONE, _SHORT_FORM, _TRUTH_OF)

_LABEL = r"(?:(?:final\s+)?(?:answer|verdict|conclusion)|assistant|答案|结论|回答)\s*[:：]\s*"
_OPENING = re.compile(rf"^\W*(?:{_LABEL})?(?:{_YES}|{_NO}|{_YES_ALONE}|{_NO_ALONE})\s*[,.:;!?–—-]*\s*", re.IGNORECASE)


class ReplyReading(NamedTuple):
    """What a reply says.

    `verdict` is True for yes, False for no, None if unreadable. `reason` is the reply without the verdict it opens
    with, and without thoughts and markup; the whole reply if it opens otherwise.
    """

    verdict: bool | None
    reason: str


def read_reply(reply: str) -> ReplyReading:
    """Take verdict and reason of a reply apart."""
    plain = re.sub(r"[ \t]+", " ", without_markup(final_text(reply))).strip()
    return ReplyReading(parse_verdict(reply), _OPENING.sub("", plain, count=1).strip())


def parse_verdict(reply: str) -> bool | None:
    """Return the verdict that a reply states.

    Statements are a yes or no (true, false, 是, 否) that opens a clause ("Yes, ...", "Looking closely: no.") and a
    declared answer ("the answer is no"); the last one holds, because models correct themselves. Only without any does a
    clause such as "True." or "It is not." count. A negation such as "no
    scratch is visible" is no statement, because whether it means yes or no depends on the question.

    Returns:
        True for yes, False for no, None if the reply states neither.
    """
    text = _NUMBER_SIGN.sub("number ", final_text(reply))
    text = _BOTH.sub(" ; ", without_markup(_LAST_BRACKETS.sub(r"; \1", text)))
    parts = clauses(text)
    for rules in (_RULES, _WEAK_RULES):
        stated = [verdict for clause in parts for verdict in _statements(clause, rules)]
        if stated:
            return stated[-1]
    return None


def _statements(clause: str, rules: Sequence[re.Pattern[str]]) -> list[bool]:
    """The verdicts of one clause in the order of the text."""
    found = sorted((match for rule in rules for match in rule.finditer(clause)), key=lambda match: match.end())
    return [
        (match["yes"] is not None) != bool(match.groupdict().get("not"))
        for match in found
        if not HYPOTHETICAL.search(clause[: match.end()])
    ]
