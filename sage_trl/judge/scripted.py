"""A judge that says what it was told to say, for tests."""

from __future__ import annotations

from collections.abc import Mapping

from sage_trl.judge.criteria import CriterionScores
from sage_trl.records import Inspection, Question


class ScriptedJudge:
    """Looks scores up by answer text and remembers what it was asked."""

    name = "scripted"

    def __init__(self, scores: Mapping[str, CriterionScores]) -> None:
        self._scores = dict(scores)
        self.asked: list[tuple[str, str, str]] = []

    def score(self, inspection: Inspection, question: Question, answer: str) -> CriterionScores:
        """The scripted scores; a KeyError for an answer that has none."""
        self.asked.append((inspection.id, question.id, answer))
        return self._scores[answer]
