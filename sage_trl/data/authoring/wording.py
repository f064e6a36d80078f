"""Puts claims into words: verdict, type, place, reason, and filler up to one length for all ranks."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache

from sage_trl.data.authoring.claims import EVERYWHERE, Claim
from sage_trl.lexicon import GOOD_PART, DefectTerms, article, place_phrase, terms_for
from sage_trl.records import Level

_FOUND = ("there is {a}{where}", "there is {a} to be seen{where}", "this {part} has {a}{where}")
_ELSE = ("what it has is {a}{where}", "the only defect is {a}{where}", "this {part} has just {a}{where}")
_NONE = ("there is no defect{where}", "there is no defect to be seen{where}", "nothing is wrong{where}")
_SCOPES = (" anywhere", " anywhere on this {part}", " on the whole {part}")
_VAGUE_FOUND = ("because it looks odd there", "as that does not look right")
_VAGUE_NONE = ("because it looks fine", "as it looks right so far")
_JOINS: dict[Level, tuple[tuple[str, str], ...]] = {
    "standard_comparison": (("evidence", "because"), ("evidence", "as")),
    "defect_identification": (("evidence", "because"), ("causes", "probably because")),
    "defect_diagnosis": (("causes", "probably because"), ("consequences", "so")),
}
# Say nothing about verdict, type, place or reason. Every head goes with every tail, so that hardly a length is missing.
_HEADS = (
    "as seen",
    "as found",
    "as it appears",
    "going by what shows",
    "so far as one can tell",
    "judging by all that can be seen",
)
_TAILS = (
    "",
    "here",
    "with care",
    "in the light",
    "in both views",
    "piece by piece",
    "at close range",
)
_FILLERS = ("", *(f", {head} {tail}".rstrip() for head in _HEADS for tail in _TAILS))
DRAWS = 24
# Short answers are cheaper to train on: lengths up to this many words above the shortest common one are drawn.
SPARE_WORDS = 2
# Characters by which answers of one question may differ; if no length is common to all, the next is tried.
LETTER_STEPS = (2, 4, 8, 16, 1000)

Length = tuple[int, int]
"""Words, and characters divided by the step."""


def write_answers(claims: Sequence[Claim], part: str, level: Level, rng: random.Random) -> tuple[str, ...]:
    """One sentence for each claim, all of the same number of words and nearly as many characters.

    Of the lengths that every claim can be worded in, one is drawn: so a length says nothing about a rank.
    """
    cores = [_cores(claim, part, level, rng) for claim in claims]
    for step in LETTER_STEPS:
        lengths = [{length for core in own for length in _fillers_by_length(*_size(core), step)} for own in cores]
        common = sorted(set.intersection(*lengths))
        if common:
            break
    else:
        return tuple(rng.choice([core + filler for core in own for filler in _FILLERS]) + "." for own in cores)
    length = rng.choice([length for length in common if length[0] <= common[0][0] + SPARE_WORDS])
    return tuple(rng.choice(_of_length(own, length, step)) + "." for own in cores)


def _cores(claim: Claim, part: str, level: Level, rng: random.Random) -> list[str]:
    """Some ways to word a claim, without filler."""
    return list(dict.fromkeys(_core(claim, part, level, rng) for _ in range(DRAWS)))


def _of_length(cores: Sequence[str], length: Length, step: int) -> list[str]:
    return [core + filler for core in cores for filler in _fillers_by_length(*_size(core), step).get(length, ())]


def _size(text: str) -> tuple[int, int]:
    return len(text.split()), len(text)


@lru_cache(maxsize=4096)
def _fillers_by_length(words: int, letters: int, step: int) -> dict[Length, list[str]]:
    """Fillers by the length that they give a core of so many words and characters; few sizes of cores occur."""
    found: dict[Length, list[str]] = {}
    for filler in _FILLERS:
        found.setdefault((words + len(filler.strip(", ").split()), (letters + len(filler)) // step), []).append(filler)
    return found


def _core(claim: Claim, part: str, level: Level, rng: random.Random) -> str:
    verdict = "Yes" if claim.verdict else "No"
    return f"{verdict}, {_statement(claim, part, rng)}, {_reason(claim, level, rng)}"


def _statement(claim: Claim, part: str, rng: random.Random) -> str:
    if claim.type is None:
        where = rng.choice(_SCOPES).format(part=part) if claim.place == EVERYWHERE else _where(claim.place)
        return rng.choice(_NONE).format(where=where)
    sentence = rng.choice(_FOUND if claim.match else _ELSE)
    return sentence.format(a=article(rng.choice(terms_for(claim.type).nouns)), where=_where(claim.place), part=part)


def _where(place: str | None) -> str:
    return f" {place_phrase(place)}" if place else ""


def _reason(claim: Claim, level: Level, rng: random.Random) -> str:
    if claim.reason is None:
        return rng.choice(_VAGUE_NONE if claim.type is None else _VAGUE_FOUND)
    terms = GOOD_PART if claim.reason == GOOD_PART.name else terms_for(claim.reason)
    kind, join = rng.choice(_JOINS[level])
    clause = rng.choice(_clauses(terms, kind))
    if claim.type is None and terms is not GOOD_PART:
        return f"and it is normal that {rng.choice(terms.evidence)}"
    return f"{join} {clause}"


def _clauses(terms: DefectTerms, kind: str) -> tuple[str, ...]:
    return {"evidence": terms.evidence, "causes": terms.causes, "consequences": terms.consequences}[kind]
