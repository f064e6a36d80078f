"""Reads which option of a multiple-choice question a free-text reply chooses."""

from __future__ import annotations

import re
from collections.abc import Mapping

from sage_trl.evaluation.answer_parsing import parse_verdict
from sage_trl.evaluation.reply_text import clauses, without_markup, without_thoughts

_EMPHASIS = re.compile(r"[*_`\"“”$\\{}]+|\[|\]")
_LETTER = r"\(?(?P<letter>[A-Z])\)?(?![\w'])"
_DECLARED = re.compile(
    r"(?i:\b(?:answer|option|choice|choose|chose|select|pick|boxed)\b|答案|选项|选择|选)"
    rf"(?i:\s*(?:to\s+(?:the|this)\s+question\s*)?(?:\s*(?:is|would\s+be|must\s+be|should\s+be|option|letter|应该是|是|为)\b|是|为)*)"
    rf"\s*[:,]?\s*{_LETTER}"
)
_IN_BRACKETS = re.compile(r"(?<![\w'])\(?(?P<letter>[A-Z])\)")
_OPENING = re.compile(r"^\s*(?:[-•#>]+\s*)?(?P<letter>[A-Z])(?=\s*(?:[.,:;!?–—-]|$))", re.MULTILINE)
_AFTER_FULL_STOP = re.compile(r"(?<=[.!?:;,]\s)(?P<letter>[A-Z])(?=\s*(?:[.!?:;,]|$))", re.MULTILINE)
_IS_LETTER = re.compile(
    r"\b(?:is|it's|but|be)\s+(?P<letter>[A-Z])(?=\s*(?:[.!?:;,]|$|\s(?:because|since|as)\b))", re.MULTILINE
)
_SMALL_LETTER = re.compile(r"^\s*\(?([a-z])[).:]?\s*$")
_SEVERAL = re.compile(r"(?<![\w'])\(?[A-Z]\)?\s*(?:/|&|,|\band\b|\bor\b|和|或)\s*\(?[A-Z]\)?(?![\w'])")
_NEGATED = re.compile(
    r"(?:\b(?:not|isn't|never|cannot\s+be|can't\s+be|rather\s+than|instead\s+of|rule\s+out|rules\s+out|ruled\s+out|exclude"
    r"|eliminate|no|neither|nor|without)\b|不是|不选|排除|而非|没有)(?:\s+\w+){0,2}\W*$",
    re.IGNORECASE,
)
_AFTERWARDS_DENIED = re.compile(
    r"^\W*(?:(?:is|are|was)\s+(?:not|wrong|incorrect|ruled|excluded)|isn't|can\s+be\s+(?:ruled|excluded)|不对|错误)",
    re.IGNORECASE,
)


def parse_choice(reply: str, options: Mapping[str, str]) -> str | None:
    """Return the letter of the option that a reply chooses.

    A declared letter ("The answer is B") holds over a letter alone ("B. Scratch"), and that over an option's text ("It
    is a scratch"); of several the last holds. What the reply denies ("not A", "A is wrong") is no choice, and neither
    are two letters at once ("A and B") or a list of all options. Where the options are yes and no, a verdict is a
    choice too.

    Args:
        reply: the model's whole reply.
        options: letter (capital) -> text.

    Returns:
        A key of `options`, or None if the reply chooses none or several.
    """
    text = _EMPHASIS.sub(" ", without_thoughts(reply)).replace("’", "'")
    lone = _SMALL_LETTER.match(text)
    if lone is not None:
        letter = lone[1].upper()
        return letter if letter in options else None
    letter_text = _SEVERAL.sub(" ", text)
    declared = _letters(letter_text, (_DECLARED,), options)
    if declared:
        return declared[-1]
    stated = _letters(letter_text, (_IN_BRACKETS, _OPENING, _AFTER_FULL_STOP, _IS_LETTER), options)
    if stated and not (len(options) > 1 and set(stated) == set(options)):
        return stated[-1]
    verdicts = {parse_verdict(option): letter for letter, option in options.items()}
    if set(verdicts) == {True, False}:
        return verdicts.get(parse_verdict(reply))
    return None if stated else _by_text(text, options)


def _letters(text: str, rules: tuple[re.Pattern[str], ...], options: Mapping[str, str]) -> list[str]:
    found = {match.start("letter"): match for rule in rules for match in rule.finditer(text)}
    return [
        match["letter"]
        for place, match in sorted(found.items())
        if match["letter"] in options and not _denied(text, min(place, match.start()), match.end(), place)
    ]


def _denied(text: str, start: int, end: int, place: int) -> bool:
    before = (re.split(r"[.!?;,\n]", text[:start])[-1], re.split(r"[.!?;,\n]", text[:place])[-1])
    return any(_NEGATED.search(part) for part in before) or _AFTERWARDS_DENIED.match(text[end:]) is not None


def _by_text(text: str, options: Mapping[str, str]) -> str | None:
    """The option whose text stands in the last clause that holds one undenied; None if that clause holds several."""
    wanted = {letter: _plain(option) for letter, option in options.items()}
    # Longest first and then blanked, so that "surface scratch" is not read as "scratch" too.
    order = sorted(wanted, key=lambda letter: -len(wanted[letter]))
    chosen: set[str] = set()
    for clause in clauses(without_markup(text)):
        rest, here = _plain(clause), set()
        for letter in order:
            pattern = re.compile(rf"(?<![a-z0-9]){re.escape(wanted[letter])}(?![a-z0-9])")
            for match in pattern.finditer(rest):
                if not _denied(rest, match.start(), match.end(), match.start()):
                    here.add(letter)
            rest = pattern.sub(lambda match: "#" * len(match[0]), rest)
        chosen = here or chosen
    return chosen.pop() if len(chosen) == 1 else None


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", without_markup(without_thoughts(text)).strip(" .,;:!?")).lower()
