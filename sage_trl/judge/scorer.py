"""Opens a judge by name, and scores all ranked answers of a dataset with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sage_trl.errors import SageError
from sage_trl.judge.criteria import CriterionScores, Judge
from sage_trl.judge.rule import RuleJudge
from sage_trl.records import Inspection, JudgeScore

SCORES_FILE = "scores.jsonl"

__all__ = ["SCORES_FILE", "CriterionScores", "Judge", "open_judge", "score_answers"]


def open_judge(name: str) -> Judge:
    """The judge of that name.

    Raises:
        SageError: no such judge, or one that is not there yet.
    """
    if name == "rule":
        return RuleJudge()
    if name == "openai":
        raise SageError("judge 'openai' comes in a later version\n  remedy: use --judge rule")
    raise SageError(f"judge {name!r} is unknown\n  remedy: use --judge rule")


def score_answers(judge: Judge, inspections: Iterable[Inspection]) -> Iterator[JudgeScore]:
    """Score every ranked answer, in the order of the dataset."""
    for inspection in inspections:
        for question in inspection.questions:
            for index, answer in enumerate(question.answers):
                scores = judge.score(inspection, question, answer)
                yield JudgeScore(
                    group_id=inspection.id,
                    question_id=question.id,
                    answer_index=index,
                    type=scores.type,
                    location=scores.location,
                    logic=scores.logic,
                    mle=scores.mle,
                    judge=judge.name,
                )
