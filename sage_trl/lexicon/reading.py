"""Reads a sentence back: its verdict, the defect types it claims or denies, its places and its reasons."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from sage_trl.lexicon.defects import GOOD_PART, KNOWN_TYPES, terms_for
from sage_trl.lexicon.places import CELLS, HALVES

# Chinese words that say yes or no; "是" and "有" also open sentences ("有划痕", there is a scratch), so that they are a
# verdict only before an end.
CHINESE_YES = "是的|是|有的|有|存在|对的|对|正确"
CHINESE_NO = "不是的|不是|不对|不存在|不正确|不|否|没有|沒有|没|无|错误|错"
_VERDICT = re.compile(
    r"^\W*(?:(?:answer\W+)?(?:(?P<yes>yes)|no)\b"
    rf"|(?:(?P<chinese_yes>{CHINESE_YES})|(?:{CHINESE_NO}))\s*(?:[,，.。!！?？:：;；、—]|$))",
    re.IGNORECASE,
)
_NEGATED = re.compile(r"\b(?:no|not|without|never|neither|nor|free of|free from|instead of|rather than)(?: \w+){0,2} $")
_DENIAL = re.compile(
    r"\b(?:no|not any|without(?: any| a)?|free of|free from|nor any)(?: \w+)? "
    r"(?:defects?|faults?|flaws?|damage|difference|differences|changes?|anomal\w+)\b"
    r"|\bnothing (?:is|looks|seems) (?:wrong|missing|broken|unusual|different)\b"
    r"|\bflawless\b|\bintact\b|\bdefect free\b"
)
_EVERYWHERE = re.compile(r"\b(?:anywhere|everywhere|nowhere|whole|entire)\b")
_PLACES = re.compile(
    r"\b(?:(?P<half>left|right|upper|top|lower|bottom) half"
    r"|(?P<row>upper|top|lower|bottom) (?P<side>left|right)(?: corner| area| part)?"
    r"|(?:on|to|at) the (?P<edge>left|right)|(?P<side2>left|right) (?:side|edge)"
    r"|(?P<middle>centre|center|middle)|(?P<end>top|bottom))\b"
)


@dataclass(frozen=True)
class Reading:
    """What a sentence says.

    Attributes:
        verdict: True for yes, False for no, None when the sentence does not open with either.
        types: defect types that it claims.
        denied_types: defect types that it says are not there.
        denial: it says that there is no defect at all.
        places: names of cells and halves, in the order of the text.
        everywhere: it speaks of the whole part.
        reasons: types whose evidence, cause or consequence it gives; `normal` for a reason why the part is good.
    """

    verdict: bool | None
    types: frozenset[str]
    denied_types: frozenset[str]
    denial: bool
    places: tuple[str, ...]
    everywhere: bool
    reasons: frozenset[str]


def read_verdict(text: str) -> bool | None:
    """Yes or no, if the text opens with one of them, in English or Chinese."""
    found = _VERDICT.match(text)
    return None if found is None else bool(found["yes"] or found["chinese_yes"])


def read_sentence(text: str, extra_types: Iterable[str] = ()) -> Reading:
    """Read `text`; `extra_types` are defect types beyond those of the lexicon that may occur in it."""
    plain = " ".join(re.sub(r"[^\w.,;:!?]+", " ", text.lower()).split())
    plain = re.sub(r"(?<=\w)[.,;:!?]+", " ,", plain)
    body = re.sub(r"^(?:answer\W+)?(?:yes|no)\b", "", plain)
    extra = frozenset(extra_types)
    names = tuple(dict.fromkeys((*extra, *KNOWN_TYPES)))
    nouns = _longest(_spans(body, names, _noun_pattern), extra)
    negated = {span: _NEGATED.search(body[: span.start]) is not None for span in nouns}
    claimed = {span.name for span in nouns if not negated[span]}
    denied = {span.name for span in nouns if negated[span]}
    # A noun of a type that the lexicon lacks may be a clue of one that it has ("rust"): there it is the noun.
    own = [span for span in nouns if span.name in extra]
    clues = [span for span in _spans(body, (*names, GOOD_PART.name), _clue_pattern) if not _is_inside(span, own)]
    return Reading(
        verdict=read_verdict(text),
        types=frozenset(claimed),
        denied_types=frozenset(denied - claimed),
        denial=_DENIAL.search(body) is not None and not claimed,
        places=tuple(dict.fromkeys(_place_name(found) for found in _PLACES.finditer(body))),
        everywhere=_EVERYWHERE.search(body) is not None,
        reasons=frozenset(span.name for span in _longest(clues, extra)),
    )


class _Span(NamedTuple):
    start: int
    end: int
    name: str


def _spans(body: str, names: Iterable[str], pattern: Callable[[str], re.Pattern[str]]) -> list[_Span]:
    return [_Span(found.start(), found.end(), name) for name in names for found in pattern(name).finditer(body)]


def _longest(spans: Iterable[_Span], preferred: frozenset[str]) -> list[_Span]:
    """Of spans that lie in one another ("scratch" in "deep scratch") the longest, of equal ones a preferred one."""
    kept: list[_Span] = []
    for span in sorted(spans, key=lambda span: (span.start - span.end, span.name not in preferred)):
        if not any(other.start <= span.start and span.end <= other.end for other in kept):
            kept.append(span)
    return kept


def _is_inside(span: _Span, others: Iterable[_Span]) -> bool:
    return any(o.start <= span.start and span.end <= o.end and o.name != span.name for o in others)


@cache
def _noun_pattern(name: str) -> re.Pattern[str]:
    nouns = [*terms_for(name).nouns, *_ALSO_READ.get(name, ())]
    return re.compile(rf"\b(?:{'|'.join(re.escape(noun) for noun in nouns)})(?:s|es)?\b")


@cache
def _clue_pattern(name: str) -> re.Pattern[str]:
    clues = GOOD_PART.clues if name == GOOD_PART.name else terms_for(name).clues
    return re.compile(rf"\b(?:{'|'.join(re.escape(clue) for clue in clues)})\b")


# Forms that a model trained on other text may use; the author never writes them.
_ALSO_READ = {
    "scratch": ("scratched",),
    "stain": ("stained", "staining"),
    "missing feature": ("missing hole", "missing part", "missing component"),
    "deformation": ("deformed", "dent"),
    "misplacement": ("misplaced", "displaced"),
    "open": ("an open",),
    "short": ("a short", "shorted"),
    "mousebite": ("mousebite",),
    "copper": ("extra copper",),
    "pin-hole": ("pinhole",),
}


def _place_name(found: re.Match[str]) -> str:
    part = found.groupdict()
    same = {"top": "upper", "bottom": "lower", "upper": "upper", "lower": "lower"}
    if part["half"]:
        name = f"{same.get(part['half'], part['half'])} half"
    elif part["row"]:
        name = f"{same[part['row']]} {part['side']}"
    else:
        name = part["edge"] or part["side2"] or part["end"] or "centre"
    assert name in CELLS or name in HALVES
    return name
