"""Scores answers from ground truth by reading verdict, type, place and reason; free and deterministic.

Its scores are called `mle_rule` in results, never MLE: it stands in for the language model that judges in the paper.
"""

from __future__ import annotations

from sage_trl.judge.criteria import CriterionScores
from sage_trl.lexicon import GOOD_PART, Reading, place_score, read_sentence, same_family
from sage_trl.records import Defect, Inspection, Question

BEST, WORST = 5, 1


class RuleJudge:
    """The rules, by whether the part has a defect.

    An answer with the wrong verdict scores 1 on type and logic, or 2 where it still names the right type or reason; it
    keeps the score of its place.
    """

    name = "rule"

    def score(self, inspection: Inspection, question: Question, answer: str) -> CriterionScores:
        """Integer scores 1-5. An open question (verdict None) is scored without regard to the verdict."""
        reading = read_sentence(answer, (defect.type for defect in inspection.defects))
        scores = _on_defective(reading, inspection.defects) if inspection.defects else _on_normal(reading)
        if question.verdict is None or reading.verdict == question.verdict:
            return scores
        return CriterionScores(_capped(scores.type), scores.location, _capped(scores.logic))


def _capped(score: float) -> float:
    return 2 if score == BEST else WORST


def _on_defective(reading: Reading, defects: tuple[Defect, ...]) -> CriterionScores:
    true_types = {defect.type for defect in defects}
    if reading.denial and not reading.types:
        return CriterionScores(WORST, WORST, WORST)
    location = _location_score(reading, defects)
    return CriterionScores(_type_score(reading, true_types), location, _logic_score(reading, true_types))


def _type_score(reading: Reading, true_types: set[str]) -> int:
    """5 all claimed types true, 4 some, 3 a defect of no named type or one of the true type's family, 2 another."""
    if not reading.types:
        return 2 if reading.denied_types & true_types else 3
    if reading.types <= true_types:
        return BEST
    if reading.types & true_types:
        return 4
    alike = any(same_family(claimed, true) for claimed in reading.types for true in true_types)
    return 3 if alike else 2


def _location_score(reading: Reading, defects: tuple[Defect, ...]) -> int:
    """Mean over the named places, rounded down, each at the nearest true defect; so naming all places wins nothing.

    Where the ground truth tells no place, 3 for any place and for none.
    """
    meant = [defect for defect in defects if defect.type in reading.types] or list(defects)
    if not reading.places:
        return WORST if reading.everywhere else max(place_score(None, defect.box) for defect in meant)
    scores = [max(place_score(place, defect.box) for defect in meant) for place in reading.places]
    return sum(scores) // len(scores)


def _logic_score(reading: Reading, true_types: set[str]) -> int:
    """5 signs of the true type, 4 among others, 3 no sign that is known, 2 signs of another type, 1 of a good part."""
    if GOOD_PART.name in reading.reasons:
        return WORST
    if not reading.reasons:
        return 3
    if reading.reasons <= true_types:
        return BEST
    return 4 if reading.reasons & true_types else 2


def _on_normal(reading: Reading) -> CriterionScores:
    """Type: is any defect denied; location: of the whole part, of no named place, of a part of it; logic: why."""
    if reading.types:
        return CriterionScores(2 if reading.denied_types else WORST, WORST, WORST)
    type_score = BEST if reading.denial else 4 if GOOD_PART.name in reading.reasons or reading.denied_types else 3
    location = BEST if reading.everywhere and not reading.places else 2 if reading.places else 3
    if reading.reasons - {GOOD_PART.name}:
        return CriterionScores(type_score, location, 2)
    return CriterionScores(type_score, location, BEST if GOOD_PART.name in reading.reasons else 3)
