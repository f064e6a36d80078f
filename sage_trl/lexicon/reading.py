"""Reads a sentence back: its verdict, the defect types it claims or denies, its places and its reasons."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from sage_trl.lexicon.defects import GOOD_PART, KNOWN_TYPES, terms_for
from sage_trl.lexicon.places import CELLS, HALVES

_VERDICT = re.compile(r"^\W*(?:answer\W+)?(yes|no)\b", re.IGNORECASE)
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
    """Yes or no, if the text opens with one of them."""
    found = _VERDICT.match(text)
    return None if found is None else found.group(1).lower() == "yes"


def read_sentence(text: str, extra_types: Iterable[str] = ()) -> Reading:
    """Read `text`; `extra_types` are defect types beyond those of the lexicon that may occur in it."""
    plain = " ".join(re.sub(r"[^\w.,;:!?]+", " ", text.lower()).split())
    plain = re.sub(r"(?<=\w)[.,;:!?]+", " ,", plain)
    body = re.sub(r"^(?:answer\W+)?(?:yes|no)\b", "", plain)
    names = tuple(dict.fromkeys((*KNOWN_TYPES, *extra_types)))
    claimed, denied = _read_types(body, names)
    return Reading(
        verdict=read_verdict(text),
        types=frozenset(claimed),
        denied_types=frozenset(denied - claimed),
        denial=_DENIAL.search(body) is not None and not claimed,
        places=tuple(dict.fromkeys(_place_name(found) for found in _PLACES.finditer(body))),
        everywhere=_EVERYWHERE.search(body) is not None,
        reasons=frozenset(name for name in (*names, GOOD_PART.name) if _clue_pattern(name).search(body)),
    )


def _read_types(body: str, names: tuple[str, ...]) -> tuple[set[str], set[str]]:
    """Types claimed and types denied. Where nouns overlap ("dent", "dent line"), the longest is the one meant."""
    found = [(match.start(), match.end(), name) for name in names for match in _noun_pattern(name).finditer(body)]
    claimed: set[str] = set()
    denied: set[str] = set()
    for start, end, name in found:
        if any(s <= start and end <= e and e - s > end - start for s, e, _ in found):
            continue
        negated = _NEGATED.search(body[:start]) is not None
        (denied if negated else claimed).add(name)
    return claimed, denied


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
