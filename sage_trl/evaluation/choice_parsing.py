"""Reads which option of a multiple-choice question a free-text reply chooses."""

from __future__ import annotations

import re
from collections.abc import Mapping

from sage_trl.evaluation.answer_parsing import parse_verdict
from sage_trl.evaluation.reply_text import HYPOTHETICAL, clauses, final_text, without_markup

_EMPHASIS = re.compile(r"[*_`\"“”‘$\\{}<>【】\[\]]+|(?<!\w)'|'(?!\w)")
_BECAUSE = r"(?:because|since|as|due)\b"
# "A" is the article before a small word ("Answer: A dent is visible"), unless no noun can begin with that word.
_ARTICLE = (
    rf"A\s+(?!{_BECAUSE}|(?:and|or|but|is|was|would|for|from|with|over|rather|instead|in|on|by|at|of|if|when|while|where"
    r"|given|based|not|which|that|here|to)\b)[a-z0-9]"
)
_LETTER = rf"(?<![A-Za-z0-9'])\(?(?!{_ARTICLE})(?P<letter>[A-Z])\)?(?![A-Za-z0-9'])"
_END = rf"(?=\s*(?:[.!:;,)]|$)|\s+{_BECAUSE})"

# Declared: the reply calls the letter its answer.
_LINK = (
    r"(?:\s*[:=,–-]|\s*(?:应该是|是|为|选)|\s*\bto\s+(?:the|this)\s+question\b"
    r"|\s*\b(?:is|was|would|must|should|be|it's|it|that|the|option|choice|letter|most|likely|probably|clearly|definitely"
    r"|therefore|still)\b)"
)
_DECLARED = re.compile(
    rf"(?i:(?:\b(?:answer|ans|choose|chose|select|pick|boxed|going\s+with|go\s+with|say|think|believe|guess)\b|答案|选择|选)"
    rf"{_LINK}*|(?:\b(?:option|choice)\b|选项){_LINK}+)\s*{_LETTER}(?!\s*\?)"
)
_DECLARED_SMALL = re.compile(rf"\b[Aa]nswer\s*(?:is\b|:)[\s:]*\(?(?P<letter>[a-z])\)?{_END}", re.MULTILINE)
_GOOD = (
    r"(?:(?:the|my)\s+)?(?:(?:most|more)\s+)?"
    r"(?:correct|right|true|best|accurate|likely|plausible|appropriate|answer|choice)\b"
)
_CALLED_RIGHT = re.compile(
    rf"{_LETTER}(?:\s+(?:is\s+(?:clearly\s+)?{_GOOD}|would\s+be\s+{_GOOD}(?!(?:\s+\w+)?\s+(?:for|if|only)\b)"
    r"|(?:fits|matches)\s+(?:best|better)\b|best\s+(?:fits|matches|describes)\b)|\s*(?:选项)?\s*是?(?:正确|对的))"
)

# Alone: a letter that is a line or a sentence, or opens or ends one.
_OPENING = re.compile(
    r"^[^\S\n]*(?:[^\w\s(]+[^\S\n]*)?\(?(?P<letter>[A-Z])"
    rf"(?:\)|(?=\s*(?:[.,:;!?–—]|$|-\s|\([A-Z]|(?<!A\s)\()|\s+(?:{_BECAUSE}|rather\b|instead\b)))",
    re.MULTILINE,
)
_OPENING_SMALL = re.compile(r"\A\s*\(?(?P<letter>[a-z])(?:\)|(?=[.:]\s)|(?=[.:]?\s*\Z))")
_AFTER_STOP = re.compile(rf"(?:(?<=[.!?:;,]\s)|(?<=\bbut\s))(?P<letter>[A-Z]){_END}", re.MULTILINE)
_AFTER_WORD = re.compile(
    r"(?:\b(?i:is|it's|be|so|thus|hence|therefore|leaves|actually|definitely|clearly|probably|likely|perhaps|maybe|matches"
    r"|second\s+thought|corresponds\s+to|(?:described|classified|identified)\s+as)\s+|(?<!不)是\s*)"
    rf"(?P<letter>[A-Z]){_END}",
    re.MULTILINE,
)

# Labelled: a letter beside what it stands for. "option A" inside a sentence and "(unlike A)" are mentions.
_IN_BRACKETS = re.compile(r"\((?P<letter>[A-Z])\)")
_NAMED_OPTION = re.compile(
    rf"(?i:\b(?:option|choice)\s+|选项\s*)\(?(?P<letter>[A-Za-z])\)?(?:{_END}|(?=\s+(?:matches|fits|describes)\b))",
    re.MULTILINE,
)

_LIST_LINE = re.compile(r"^[^\S\n]*(?:[^\w\s(]+[^\S\n]*)?(?:(?i:option)\s+)?\(?([A-Z])\)?\s*[.:;,)–—-]\s*\S")
_ONE = r"(?:(?i:option|choice)\s+)?\(?[A-Z]\)?"
_FURTHER = rf"(?:\s*(?:,\s*(?:and\b|or\b)?|/|&|\band\b|\bor\b|和|或)\s*{_ONE}(?![A-Za-z0-9']))"
# Not so where a verb follows that speaks of the second alone: "The answer is B, A would be longer."
_SEVERAL = re.compile(
    rf"(?<![A-Za-z0-9']){_ONE}(?:{_FURTHER}{{2,}}|{_FURTHER}(?!\s+(?:is|isn't|was|would|does|doesn't|has)\b|{_FURTHER}))"
)
_NO = r"not|\w+n't|never|cannot\s+be|no(?!\s+doubt)|neither|nor|without(?!\s+a?\s*doubt)"
_INSTEAD = r"rather\s+than|instead\s+of|as\s+opposed\s+to|unlike|rules?\s+out|ruled\s+out|exclude|eliminate"
_ONCE_THOUGHT = r"(?<!second\s)thought\s+(?:it|the|that|this)|might\s+(?:think|say|choose)"
# With at most two words between, and over "or": "not a stain or a scratch".
_NEGATED = re.compile(
    rf"(?:\b(?:{_NO}|{_INSTEAD}|{_ONCE_THOUGHT})\b|不是|不选|排除|而非|没有)"
    r"(?:\s+(?!but\b)\w+){0,2}(?:\s+[\w#]+\s+n?or(?:\s+an?)?)?\W*$",
    re.IGNORECASE,
)
_AFTERWARDS_DENIED = re.compile(
    r"^[\s):]*(?:(?:is|are|was)\s+(?:not|wrong|incorrect|ruled|excluded|unlikely|less)|isn't|does\s+not|doesn't|wrong"
    r"|incorrect|can\s+be\s+(?:ruled|excluded)|would\s+(?:be\s+(?:a|an|\w+er)|show|look|appear|leave|have)\b"
    r"|不对|错误|不符合)",
    re.IGNORECASE,
)


def parse_choice(reply: str, options: Mapping[str, str]) -> str | None:
    """Return the letter of the option that a reply chooses.

    A declared letter ("The answer is B", "B is correct") holds over a letter alone ("B. Scratch"), that over a label
    ("the scratch (B)", "Option B:"), and that over an option's text ("It is a scratch"). Of several the last holds, but
    several labels choose none. What the reply denies ("not A", "A is wrong", "A would be longer") is no choice. Neither
    is a mention ("option A would"), two letters at once ("A and B") or a list of options. Where the options are yes and
    no, a verdict is a choice too.

    Args:
        reply: the model's whole reply.
        options: letter (capital) -> text.

    Returns:
        A key of `options`, or None if the reply chooses none or several.
    """
    text = _EMPHASIS.sub(" ", final_text(reply))
    declared = _letters(_SEVERAL.sub(" ", text), (_DECLARED, _DECLARED_SMALL, _CALLED_RIGHT), options)
    if declared:
        return declared[-1]
    text = _without_lists(text)
    letter_text = _SEVERAL.sub(" ", text)
    alone = _letters(letter_text, (_OPENING, _OPENING_SMALL, _AFTER_STOP, _AFTER_WORD), options)
    if alone and not (len(options) > 1 and set(alone) == set(options)):
        return alone[-1]
    labels = set(_letters(letter_text, (_IN_BRACKETS, _NAMED_OPTION), options))
    if len(labels) == 1 and not alone:
        return labels.pop()
    verdicts = {parse_verdict(option): letter for letter, option in options.items()}
    if set(verdicts) == {True, False}:
        return verdicts.get(parse_verdict(text))
    return None if alone else _by_text(text, options)


def _without_lists(text: str) -> str:
    """The text without lines of which each opens with a later letter than the one before, as a list of options does."""
    blocks: list[list[str]] = []
    last = ""
    for line in filter(str.strip, text.split("\n")):
        item = _LIST_LINE.match(line)
        letter = item[1] if item else ""
        if last and letter > last:
            blocks[-1].append(line)
        else:
            blocks.append([line])
        last = letter
    return "\n".join(block[0] for block in blocks if len(block) == 1)


def _letters(text: str, rules: tuple[re.Pattern[str], ...], options: Mapping[str, str]) -> list[str]:
    found = {match.start("letter"): match for rule in rules for match in rule.finditer(text)}
    chosen = []
    for place, match in sorted(found.items()):
        letter, end = match["letter"].upper(), match.end()
        if letter not in options:
            continue
        # "A. Scratch is wrong" denies A.
        named = re.compile(rf"[\s.:,()–-]*{re.escape(options[letter].strip(' .'))}\b", re.IGNORECASE).match(text, end)
        if not _denied(text, match.start(), named.end() if named else end, place):
            chosen.append(letter)
    return chosen


def _denied(text: str, start: int, end: int, place: int) -> bool:
    return (
        any(_NEGATED.search(_since(".!?;,\n", text, before)) for before in (start, place))
        or _AFTERWARDS_DENIED.match(text[end : end + 80]) is not None
        or HYPOTHETICAL.search(_since(".!?\n", text, end)) is not None
    )


def _since(marks: str, text: str, end: int) -> str:
    """What stands between the last of the marks and `end`."""
    return text[max(text.rfind(mark, 0, end) for mark in marks) + 1 : end]


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
    return re.sub(r"\s+", " ", without_markup(final_text(text)).strip(" .,;:!?")).lower()
