"""What a judge is and what it gives: three scores from 1 to 5 (eq. 3)."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from sage_trl.preferences.entropy import mle_score
from sage_trl.records import Inspection, Question


class CriterionScores(NamedTuple):
    """Scores of the three criteria of eq. 3, 1 (worst) to 5 (best)."""

    type: float
    location: float
    logic: float

    @property
    def mle(self) -> float:
        """Their mean, S_i of eq. 3."""
        return mle_score(self.type, self.location, self.logic)


class Judge(Protocol):
    """Scores one answer to one question of an inspection."""

    name: str

    def score(self, inspection: Inspection, question: Question, answer: str) -> CriterionScores: ...
