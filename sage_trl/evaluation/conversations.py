"""A group of questions as one conversation (paper eq. 10): each comes after the model's own earlier replies."""

from __future__ import annotations

from collections.abc import Sequence

from sage_trl.evaluation.prediction_log import PredictionLog
from sage_trl.evaluation.predictions import Setting, is_conversation
from sage_trl.evaluation.questions import EvaluationQuestion


class Conversations:
    """What was asked and replied in each group so far; nothing where each question stands alone."""

    def __init__(self, setting: Setting) -> None:
        self._goes_on = is_conversation(setting)
        self._turns: dict[str, list[tuple[str, str]]] = {}
        self._broken: set[str] = set()

    def is_broken(self, item: EvaluationQuestion) -> bool:
        """Whether an earlier question of its group got no reply, so that this one cannot be asked."""
        return item.inspection.id in self._broken

    def before(self, item: EvaluationQuestion) -> EvaluationQuestion:
        """The question as the model gets it now."""
        turns = self._turns.get(item.inspection.id)
        return item.after(turns) if turns else item

    def add(self, items: Sequence[EvaluationQuestion], log: PredictionLog) -> None:
        """Note that these were asked, and the log's replies to them."""
        for item in items if self._goes_on else ():
            if item.key not in log:
                self._broken.add(item.inspection.id)
                continue
            turn = (item.question.question, log[item.key].prediction)
            self._turns.setdefault(item.inspection.id, []).append(turn)


def as_asked(asked: Sequence[EvaluationQuestion], setting: Setting, log: PredictionLog) -> list[EvaluationQuestion]:
    """Questions of whole groups, in their order, as the model got them; those that it never got are left out."""
    conversations = Conversations(setting)
    items: list[EvaluationQuestion] = []
    for item in asked:
        if not conversations.is_broken(item):
            items.append(conversations.before(item))
            conversations.add(items[-1:], log)
    return items
