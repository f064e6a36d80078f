"""What the four ranked answers claim: rank 1 the truth, each further rank less of it.

Answers of one rank differ in how wrong they are (a neighbouring or an opposite place, a similar or another type), so
that a judge's scores, and with them the entropy gaps of eq. 5, differ from question to question.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sage_trl.data.authoring.questions import Asked
from sage_trl.data.authoring.scenes import Scene
from sage_trl.lexicon import CELLS, GOOD_PART, HALVES, cell_of, halves_of, in_place, place_score, same_family
from sage_trl.lexicon.places import ADJACENT, WRONG, bounds
from sage_trl.records import Defect

EVERYWHERE = "everywhere"
NORMAL = GOOD_PART.name
PLACES = (*CELLS, *HALVES)


@dataclass(frozen=True)
class Claim:
    """What an answer says.

    Attributes:
        verdict: opens with Yes (True) or No.
        type: the defect claimed, None where the answer denies any.
        place: a place name, `everywhere` (denials), or None where no place is named.
        reason: a defect type whose signs are given, `normal` for a reason why a part is good, None for a vague one.
        match: whether what the question probes is there, in the world of this claim; decides the wording.
    """

    verdict: bool
    type: str | None
    place: str | None
    reason: str | None
    match: bool


def ranked_claims(
    scene: Scene, asked: Asked, types: Sequence[str], rng: random.Random, *, names_places: bool = True
) -> list[Claim]:
    """Claims of the four answers, best first.

    Args:
        scene: the image pair.
        asked: the question.
        types: the defect types that a wrong answer may name.
        rng: decides how wrong the answers are.
        names_places: whether answers may name places, which they never do where that of a defect is not known.
    """
    claims = _on_normal(asked, types, rng) if not scene.defects else _on_defective(scene, asked, types, rng)
    return claims if names_places and scene.tells_places else _without_places(scene, claims)


def _without_places(scene: Scene, claims: Sequence[Claim]) -> list[Claim]:
    """The claims without places; what only a worse place set below the best, or apart, now has a worse reason."""
    best, second, third, worst = (
        claim if claim.place == EVERYWHERE else replace(claim, place=None) for claim in claims
    )
    if scene.defects:
        second = replace(second, reason=None)
        return [best, second, replace(third, reason=NORMAL) if third == second else third, worst]
    return [best, replace(second, reason=NORMAL) if third == second else second, third, worst]


def _pick(rng: random.Random, shares: dict[str, float]) -> str:
    return rng.choices(list(shares), list(shares.values()))[0]


def _main_defect(scene: Scene, asked: Asked) -> Defect:
    """The defect that the answer is about: the one asked for, else the largest."""

    def is_meant(defect: Defect) -> bool:
        if asked.slot is None or not asked.match:
            return False
        return in_place(defect.box, asked.slot) if asked.template.probe == "place" else defect.type == asked.slot

    def area(defect: Defect) -> float:
        return (defect.box[2] - defect.box[0]) * (defect.box[3] - defect.box[1])

    return max(scene.defects, key=lambda defect: (is_meant(defect), area(defect)))


def _overlap(one: str, other: str) -> bool:
    a, b = bounds(one), bounds(other)
    margin = 1e-6
    return a[0] < b[2] - margin and b[0] < a[2] - margin and a[1] < b[3] - margin and b[1] < a[3] - margin


def _sayable(place: str, asked: Asked, match: bool) -> bool:
    """Whether naming this place goes with saying that what is asked for is (not) there."""
    if asked.template.probe != "place" or asked.slot is None:
        return True
    return _overlap(place, asked.slot) == match


def _place_near(scene: Scene, defect: Defect, kind: str, asked: Asked, rng: random.Random) -> str | None:
    """A place name of the wanted quality for a true defect: exact, half, neighbour, wrong or missing.

    Beside one of several defects another may lie: a place is as good as it is for the one that it fits best.
    """
    if kind == "exact":
        return cell_of(defect.box)
    if kind == "half":
        options = list(halves_of(defect.box))
    else:
        wanted = {"neighbour": ADJACENT, "wrong": WRONG}.get(kind)
        options = [place for place in PLACES if max(place_score(place, other.box) for other in scene.defects) == wanted]
    options = [place for place in options if _sayable(place, asked, asked.match)]
    return rng.choice(options) if options else None


def _other_type(true: Sequence[str], asked: Asked, types: Sequence[str], rng: random.Random) -> str | None:
    """A wrong type that leaves the verdict right: none of the true ones and not the one asked for."""
    options = [name for name in types if name not in true and name != asked.slot]
    alike = [name for name in options if any(same_family(name, known) for known in true)]
    if alike and rng.random() < 0.5:
        options = alike
    return rng.choice(options) if options else None


def _on_defective(scene: Scene, asked: Asked, types: Sequence[str], rng: random.Random) -> list[Claim]:
    defect = _main_defect(scene, asked)
    best = _truth(defect, asked)
    kind = _pick(rng, {"half": 0.3, "neighbour": 0.25, "missing": 0.25, "wrong": 0.2})
    second = replace(
        best,
        place=_place_near(scene, defect, kind, asked, rng),
        reason=_pick(rng, {defect.type: 0.65, "": 0.35}) or None,
    )
    third = _third_on_defective(scene, asked, types, rng)
    return [best, second, third, _worst(scene, best, asked, types, rng)]


def _truth(defect: Defect, asked: Asked) -> Claim:
    return Claim(asked.verdict, defect.type, cell_of(defect.box), defect.type, asked.match)


def _third_on_defective(scene: Scene, asked: Asked, types: Sequence[str], rng: random.Random) -> Claim:
    defect = _main_defect(scene, asked)
    best = _truth(defect, asked)
    kind = _pick(rng, {"exact": 0.45, "half": 0.15, "neighbour": 0.1, "missing": 0.2, "wrong": 0.1})
    place = _place_near(scene, defect, kind, asked, rng)
    wrong = _other_type(scene.types, asked, types, rng)
    names_type = asked.template.probe in ("type", "cause", "consequence")
    if wrong is None:
        return replace(best, place=None, reason=None)
    if (names_type and asked.match) or rng.random() < 0.3:
        # The verdict says that the asked type is there, so only the reason can be wrong.
        return replace(best, place=place, reason=wrong)
    return replace(best, type=wrong, place=place, reason=_pick(rng, {wrong: 0.7, "": 0.3}) or None)


def _worst(scene: Scene, best: Claim, asked: Asked, types: Sequence[str], rng: random.Random) -> Claim:
    """Wrong verdict on a defective part: denies what is asked for, or claims it."""
    worst = replace(best, verdict=not best.verdict, match=not best.match)
    probe = asked.template.probe
    if not asked.match:
        vague = _pick(rng, {"kept": 0.75, "": 0.25}) == ""
        if probe == "place":
            return replace(worst, place=asked.slot, reason=None if vague else best.reason)
        place = _pick(rng, {best.place or "": 0.6, rng.choice(PLACES): 0.4})
        return replace(worst, type=asked.slot, place=place, reason=None if vague else asked.slot)
    if probe != "presence" and rng.random() < 0.5:
        if probe == "place":
            elsewhere = [place for place in CELLS if asked.slot and not _overlap(place, asked.slot)]
            return replace(worst, place=rng.choice(elsewhere))
        other = _other_type(scene.types, asked, types, rng)
        if other is not None:
            return replace(worst, type=other, reason=other)
    return _denial(worst, rng)


def _denial(claim: Claim, rng: random.Random) -> Claim:
    scope = _pick(rng, {EVERYWHERE: 0.5, rng.choice(PLACES): 0.25, "": 0.25}) or None
    return replace(claim, type=None, place=scope, reason=_pick(rng, {"normal": 0.75, "": 0.25}) or None)


def _on_normal(asked: Asked, types: Sequence[str], rng: random.Random) -> list[Claim]:
    best = Claim(asked.verdict, None, EVERYWHERE, "normal", asked.match)
    part_only = asked.slot if asked.template.probe == "place" and asked.slot else rng.choice(PLACES)
    second = replace(
        best,
        place=_pick(rng, {part_only: 0.5, "": 0.5}) or None,
        reason=_pick(rng, {"normal": 0.65, "": 0.35}) or None,
    )
    return [best, second, _third_on_normal(best, part_only, asked, types, rng), _invented(best, asked, types, rng)]


def _third_on_normal(best: Claim, part_only: str, asked: Asked, types: Sequence[str], rng: random.Random) -> Claim:
    """The right verdict for a wrong reason, or with another invented defect where the verdict allows one."""
    wrong = _other_type((), asked, types, rng)
    if wrong is None:
        return replace(best, place=None, reason=None)
    if asked.template.probe != "presence" and rng.random() < 0.6:
        places = [place for place in PLACES if _sayable(place, asked, asked.match)]
        return replace(best, type=wrong, place=rng.choice([*places, None]), reason=rng.choice([wrong, wrong, None]))
    scope = _pick(rng, {EVERYWHERE: 0.4, part_only: 0.3, "": 0.3}) or None
    return replace(best, place=scope, reason=wrong)


def _invented(best: Claim, asked: Asked, types: Sequence[str], rng: random.Random) -> Claim:
    names_type = asked.template.probe in ("type", "cause", "consequence")
    name = asked.slot if names_type and asked.slot else rng.choice(list(types))
    place: str | None = asked.slot if asked.template.probe == "place" else rng.choice([*PLACES, None])
    reason = name if rng.random() < 0.75 else None
    return Claim(not best.verdict, name, place, reason, not best.match)
