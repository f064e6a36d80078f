"""A group of questions as one conversation (paper eq. 10): each comes after the model's own earlier replies."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sage_trl.evaluation.predictions import Setting, is_conversation
from sage_trl.evaluation.questions import EvaluationQuestion


class Conversations:
    """What was asked and replied in each group so far; nothing where each question stands alone.

    A conversation in which a reply failed to come has ended.
    """

    def __init__(self, setting: Setting) -> None:
        self._goes_on = is_conversation(setting)
        self._turns: dict[str, list[tuple[str, str]]] = {}
        self._ended: set[str] = set()

    def before(self, items: Sequence[EvaluationQuestion]) -> list[EvaluationQuestion]:
        """The questions as the model gets them now, without those of conversations that have ended."""
        return [
            item.after(self._turns[item.inspection.id]) if item.inspection.id in self._turns else item
            for item in items
            if item.inspection.id not in self._ended
        ]

    def add(self, item: EvaluationQuestion, reply: str | None) -> None:
        """Note that this was asked, and what was replied, None if nothing came."""
        if not self._goes_on:
            return
        if reply is None:
            self._ended.add(item.inspection.id)
        else:
            self._turns.setdefault(item.inspection.id, []).append((item.question.question, reply))


def as_asked(
    asked: Sequence[EvaluationQuestion], setting: Setting, reply_of: Callable[[EvaluationQuestion], str | None]
) -> list[EvaluationQuestion]:
    """Questions of whole groups, in their order, as a model gets them that replies so."""
    conversations = Conversations(setting)
    put = []
    for one in asked:
        for item in conversations.before([one]):
            put.append(item)
            conversations.add(item, reply_of(item))
    return put
