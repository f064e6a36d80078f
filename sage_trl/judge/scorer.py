"""Opens a judge by name, and scores all ranked answers of a dataset with it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from sage_trl.data.dataset import SCORES_FILE
from sage_trl.errors import DataError, SageError
from sage_trl.judge.criteria import CriterionScores, Judge
from sage_trl.judge.rule import RuleJudge
from sage_trl.records import Inspection, JudgeScore, iterate_records

__all__ = ["SCORES_FILE", "CriterionScores", "Judge", "merge_scores", "open_judge", "score_answers"]


def open_judge(name: str) -> Judge:
    """The judge of that name.

    Raises:
        SageError: no such judge, or one that is not opened by name.
    """
    if name == "rule":
        return RuleJudge()
    if name == "openai":
        raise SageError("judge 'openai' does not judge one by one\n  remedy: use --judge rule here")
    raise SageError(f"judge {name!r} is unknown\n  remedy: use one of openai, rule")


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


def merge_scores(
    path: Path, new: Sequence[JudgeScore], inspections: Iterable[Inspection], judge: str, asked: Collection[str]
) -> list[JudgeScore]:
    """`new` and the scores of other groups that `path` holds already, in the order of the dataset.

    Args:
        path: an earlier score file, which need not exist.
        new: scores of some groups.
        inspections: all of the dataset.
        judge: who gave the new ones.
        asked: ids of the groups that were to be scored, of which `new` may lack some.

    Raises:
        DataError: a faulty file, or scores of other groups by another judge, which must not be mixed.
    """
    if not path.exists():
        return list(new)
    by_group: defaultdict[str, list[JudgeScore]] = defaultdict(list)
    scored = {score.group_id for score in new}
    for line, earlier in iterate_records(JudgeScore, path):
        if earlier.group_id in scored or (earlier.group_id in asked and earlier.judge != judge):
            continue
        if earlier.judge != judge:
            problem = f"holds scores of other groups by {earlier.judge!r}, not by {judge}"
            raise DataError.at(path, line, problem, "write to another --output, or score all splits without --limit")
        by_group[earlier.group_id].append(earlier)
    for score in new:
        by_group[score.group_id].append(score)
    return [score for inspection in inspections for score in by_group[inspection.id]]
