"""A review under way: the questions of a dataset, what the log has made of them, and the next action."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sage_trl.data.dataset import AdPlDirectory
from sage_trl.errors import DataError
from sage_trl.records import Inspection
from sage_trl.review.log import (
    REVIEW_FILE,
    ReviewAction,
    ReviewedQuestion,
    ReviewLog,
    question_key,
    read_actions,
)

Place = tuple[str, str]
"""Group id and question id."""


class ConflictError(Exception):
    """The question was changed meanwhile, in another tab."""


@dataclass(frozen=True)
class ReviewState:
    """All questions as the log leaves them, and how many actions belong to questions that are no longer there."""

    questions: dict[Place, ReviewedQuestion]
    ignored: int

    def counts(self) -> Counter[str]:
        """Questions per status."""
        return Counter(question.status for question in self.questions.values())


def read_state(dataset: AdPlDirectory) -> ReviewState:
    """Replay `review.jsonl` over a dataset.

    Raises:
        DataError: a line is no action, or cannot be applied to its question.
    """
    path = dataset.root / REVIEW_FILE
    questions = {
        (row.id, question.id): ReviewedQuestion.untouched(question)
        for row in dataset.inspections
        for question in row.questions
    }
    keys: dict[Place, str] = {}
    ignored = 0
    for number, action in read_actions(path):
        place = (action.group_id, action.question_id)
        if place in questions and place not in keys:
            keys[place] = question_key(questions[place].question)
        if keys.get(place) != action.content:
            ignored += 1
            continue
        try:
            questions[place] = questions[place].after(action)
        except ValueError as error:
            raise DataError.at(path, number, str(error), "remove the line") from None
    return ReviewState(questions, ignored)


class ReviewSession:
    """What the page asks for and does; safe to use from several threads.

    Args:
        dataset: the dataset under review.
        reviewer: whose name each action gets.
        splits: splits to show, all where None.

    Raises:
        DataError: a split that no group has, or a faulty log.
        LockedError: another review of the same dataset is running.
    """

    def __init__(self, dataset: AdPlDirectory, reviewer: str, splits: Collection[str] | None = None) -> None:
        self.dataset = dataset
        self.reviewer = reviewer
        self.groups: tuple[Inspection, ...] = dataset.select(splits)
        self._shown = [(row, question.id) for row in self.groups for question in row.questions]
        self._lock = threading.Lock()
        # Opened first: it removes a line that a kill cut short.
        self._log = ReviewLog(dataset.root / REVIEW_FILE)
        state = read_state(dataset)
        self._state = state.questions
        self.ignored = state.ignored

    def __len__(self) -> int:
        return len(self._shown)

    def group(self, index: int) -> Inspection:
        """The group that question `index` belongs to."""
        return self._shown[index][0]

    def statuses(self) -> str:
        """One letter for each question in order: o(pen), a(ccepted), r(ejected)."""
        with self._lock:
            return "".join(self._state[row.id, question_id].status[0] for row, question_id in self._shown)

    def view(self, index: int) -> dict[str, Any]:
        """What the page shows of one question, as JSON."""
        row, question_id = self._shown[index]
        with self._lock:
            state = self._state[row.id, question_id]
        first = index - [question.id for question in row.questions].index(question_id)
        return {
            "index": index,
            "group": {"first": first, "size": len(row.questions), "id": row.id},
            "question_id": question_id,
            **row.model_dump(mode="json", include={"dataset", "category", "split", "level", "defects"}),
            "has_reference": row.reference_image is not None,
            "verdict": state.question.verdict,
            "text": state.text,
            "answers": list(state.answers),
            "order": list(state.order),
            "status": state.status,
            "changed": state.is_changed,
            "revision": state.revision,
            "reviewer": state.reviewer,
        }

    def act(self, group_id: str, question_id: str, revision: int, request: dict[str, Any]) -> None:
        """Do one action: check it, bring it to disk, then let it count.

        Args:
            group_id: with `question_id`, the question. An index would mean another question when a page that outlived
                a server sends its last action to the next one.
            question_id: see `group_id`.
            revision: the state that the reviewer saw.
            request: `action_id`, `action` and what belongs to it, see `ReviewAction`.

        Raises:
            ConflictError: the question has another revision by now.
            ValueError: the action cannot be.
            DataError: it could not be written.
        """
        place = (group_id, question_id)
        with self._lock:
            if place not in self._state:
                raise ValueError(f"there is no question {question_id!r} of group {group_id!r}")
            state = self._state[place]
            action = ReviewAction.model_validate(
                {
                    **request,
                    "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                    "reviewer": self.reviewer,
                    "group_id": group_id,
                    "question_id": question_id,
                    "content": question_key(state.question),
                }
            )
            if action.action_id == state.last_action:
                return  # the page did not hear that it was saved, and sent it again
            if revision != state.revision:
                raise ConflictError
            changed = state.after(action)
            self._log.append(action)
            self._state[place] = changed

    def image_path(self, index: int, kind: str) -> Path | None:
        """The test or reference image of a question; None where there is none, or where a link leads elsewhere."""
        row = self.group(index)
        relative = row.test_image if kind == "test" else row.reference_image
        if relative is None:
            return None
        path = self.dataset.image_path(relative).resolve()
        return path if path.is_relative_to(self.dataset.image_root.resolve()) else None
