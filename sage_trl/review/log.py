"""`review.jsonl`: every action of every reviewer, appended and on disk before the page hears of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from sage_trl.errors import DataError
from sage_trl.records import Question, Record, Text, parse_record
from sage_trl.storage import JsonlAppender, content_key, read_json_lines

REVIEW_FILE = "review.jsonl"
Action = Literal["order", "edit", "accept", "reject", "reopen"]
Status = Literal["open", "accepted", "rejected"]
_STATUS: dict[Action, Status] = {"accept": "accepted", "reject": "rejected"}
LongText = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=10_000)]


class ReviewAction(Record):
    """One line of `review.jsonl`.

    Answers are named by their 0-based place in `ad_pl.jsonl`, which no review changes. `content` is the content key of
    the question as it stands there, so that a review is never applied to a question of another wording.

    Attributes:
        action_id: drawn by the page; the same action sent twice is one action.
        order: with `order`, the answers best first.
        answer: with `edit`, which answer gets the new `text`; None for the question itself.
    """

    time: Text
    reviewer: Text
    group_id: Text
    question_id: Text
    content: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
    action_id: Annotated[str, StringConstraints(pattern="^[0-9A-Za-z-]{8,64}$")]
    action: Action
    order: Annotated[tuple[int, ...] | None, Field(strict=False)] = None
    answer: Annotated[int | None, Field(ge=0)] = None
    text: LongText | None = None

    @model_validator(mode="after")
    def _fields_fit_the_action(self) -> ReviewAction:
        if (self.order is not None) != (self.action == "order"):
            raise ValueError("'order' belongs to the action 'order', and only to it")
        if (self.text is not None) != (self.action == "edit"):
            raise ValueError("'text' belongs to the action 'edit', and only to it")
        if self.answer is not None and self.action != "edit":
            raise ValueError("'answer' belongs to the action 'edit' alone")
        return self


@dataclass(frozen=True)
class ReviewedQuestion:
    """What the actions so far have made of a question.

    Attributes:
        question: as it stands in `ad_pl.jsonl`.
        text: the question's wording now.
        answers: wordings now, in the order of `ad_pl.jsonl`.
        order: the places of `answers`, best first.
        status: accepted or rejected by the last word on it; a later change opens it again.
        revision: number of actions.
        last_action: `action_id` of the last one.
    """

    question: Question
    text: str
    answers: tuple[str, ...]
    order: tuple[int, ...]
    status: Status = "open"
    revision: int = 0
    last_action: str = ""
    reviewer: str = ""

    @classmethod
    def untouched(cls, question: Question) -> ReviewedQuestion:
        return cls(question, question.question, question.answers, tuple(range(len(question.answers))))

    @property
    def is_changed(self) -> bool:
        """Whether it differs from `ad_pl.jsonl`."""
        return self.result() != self.question

    def result(self) -> Question:
        """The question with its new wording and order.

        Raises:
            ValidationError: two answers became identical; `after` never lets that happen.
        """
        ranked = [self.answers[place] for place in self.order]
        return Question.model_validate({**dict(self.question), "question": self.text, "answers": ranked})

    def after(self, action: ReviewAction) -> ReviewedQuestion:
        """The question after one more action.

        Raises:
            ValueError: the action cannot be: no such answer, no permutation, or an answer that exists already.
        """
        order, text, answers = self.order, self.text, list(self.answers)
        if action.order is not None:
            if sorted(action.order) != list(range(len(answers))):
                raise ValueError(f"order {list(action.order)} does not name each of the {len(answers)} answers once")
            order = action.order
        elif action.text is not None and action.answer is None:
            text = action.text
        elif action.text is not None and action.answer is not None:
            if action.answer >= len(answers):
                raise ValueError(f"there is no answer {action.answer}")
            answers[action.answer] = action.text
            if len(set(answers)) != len(answers):
                raise ValueError("another answer says the same; ranked answers must differ")
        return replace(
            self,
            text=text,
            answers=tuple(answers),
            order=order,
            status=_STATUS.get(action.action, "open"),
            revision=self.revision + 1,
            last_action=action.action_id,
            reviewer=action.reviewer,
        )


def question_key(question: Question) -> str:
    """What `ReviewAction.content` holds for a question."""
    return content_key(question.model_dump(mode="json"))


def read_actions(path: Path) -> Iterator[tuple[int, ReviewAction]]:
    """Line number and action of each line; nothing where the file is not there.

    A last line that a kill cut short was never confirmed, and is left out.

    Raises:
        DataError: a line is no action.
    """
    if not path.is_file():
        return
    whole = path.read_bytes().count(b"\n")
    for number, value in read_json_lines(path):
        if number > whole:
            return
        if isinstance(value, DataError):
            raise value
        yield number, parse_record(ReviewAction, value, path, number)


class ReviewLog:
    """Appends actions; each is on disk when `append` returns. One process at a time holds it.

    Raises:
        LockedError: another review of the same dataset is running.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._appender = JsonlAppender(path)
        self._failure: str | None = None

    def append(self, action: ReviewAction) -> None:
        """Write one action.

        Raises:
            DataError: it could not be written, now or earlier: what a failed write leaves behind is only mended when
                the file is opened anew.
        """
        if self._failure is None:
            try:
                self._appender.append([action.model_dump(mode="json", exclude_none=True)])
                return
            except OSError as error:
                self._failure = str(error)
        remedy = "make room on the disk, then start the review again"
        raise DataError.at(self._path, None, f"cannot be written: {self._failure}", remedy)
