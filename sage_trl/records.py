"""The validated rows that pass between the parts: what one line of each JSONL file may hold.

Every record is immutable and refuses unknown fields. `parse_record` turns pydantic's report into one `DataError` that
names file, line, field, value and remedy.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from sage_trl.errors import DataError
from sage_trl.storage import read_json_lines

Level = Literal["standard_comparison", "defect_identification", "defect_diagnosis"]
LEVELS: tuple[Level, ...] = ("standard_comparison", "defect_identification", "defect_diagnosis")
PairKind = Literal["min", "max"]
Turns = Literal["single", "conversation"]
"""Whether each question stands alone, or after the earlier questions of its group (paper eq. 10)."""

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Score = Annotated[float, Field(ge=1.0, le=5.0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Letter = Annotated[str, StringConstraints(pattern="^[A-Z]$")]


def check_relative_path(value: str) -> str:
    """Refuse absolute paths, URLs and paths that climb out of the dataset's directory."""
    if "://" in value or value.startswith("data:"):
        raise ValueError("is a URL; images must be files below the dataset's image root")
    windows = PureWindowsPath(value)
    if PurePosixPath(value).is_absolute() or windows.is_absolute() or windows.drive:
        raise ValueError("is absolute; write it relative to the dataset's image root")
    if ".." in windows.parts:
        raise ValueError("leaves the dataset's directory; keep every image below the image root")
    return value


class Record(BaseModel):
    """Base of all rows: immutable, strict about types, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _without_unknown(fields: dict[str, Any], *optional: str) -> dict[str, Any]:
    """The fields to write: an optional one that is not known is left out."""
    return {name: value for name, value in fields.items() if name not in optional or value is not None}


class Defect(Record):
    """One defect of the test image.

    `box` is (x1, y1, x2, y2) as fractions of the image's width and height, `share` the defect's size as a share of the
    part where a mask tells it; without one the field is not written.
    """

    type: Text
    box: Annotated[tuple[Fraction, Fraction, Fraction, Fraction], Field(strict=False)]
    share: Fraction | None = None

    @model_serializer(mode="wrap")
    def _leave_out_an_unknown_share(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without_unknown(write(self), "share")

    @model_validator(mode="after")
    def _box_has_an_area(self) -> Defect:
        x1, y1, x2, y2 = self.box
        if x1 >= x2 or y1 >= y2:
            raise ValueError(f"box {list(self.box)} has no area; write x1 < x2 and y1 < y2 as fractions 0-1")
        return self


class Question(Record):
    """A question with its answers ranked best first (paper: a_1 .. a_{L_N}).

    `verdict` is the true yes/no answer, None for an open question. A multiple-choice question has `options`, letter ->
    text, and `choice`, the letter of the right one; the options stand in the question too, one a line ("A. Scratch"),
    unless they are a mere yes and no, which `verdict` then says as well. `type` is what its benchmark calls this kind of
    question. What a question does not have is not written.
    """

    id: Text
    question: Text
    verdict: bool | None
    answers: Annotated[tuple[Text, ...], Field(strict=False, min_length=2)]
    options: Annotated[dict[Letter, Text], Field(min_length=2)] | None = None
    choice: Letter | None = None
    type: Text | None = None

    @property
    def is_graded(self) -> bool:
        """Whether a reply can be right or wrong."""
        return self.verdict is not None or self.choice is not None

    @field_validator("answers")
    @classmethod
    def _answers_differ(cls, answers: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(answers)) != len(answers):
            raise ValueError("two answers are identical; ranked answers must differ")
        return answers

    @model_validator(mode="after")
    def _choice_is_an_option(self) -> Question:
        options = self.options or {}
        if (self.options is None) != (self.choice is None) or (self.choice is not None and self.choice not in options):
            raise ValueError(f"choice {self.choice!r} is none of the options {', '.join(options) or '(there are none)'}")
        return self

    @model_serializer(mode="wrap")
    def _leave_out_what_it_does_not_have(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without_unknown(write(self), "options", "choice", "type")


class Inspection(Record):
    """One group of AD-PL: the questions on one test/reference image pair (paper section 4).

    `unit` is the physical object that the test image shows (a board, one part), where the source tells: groups of one
    unit are not independent. Without it the field is not written, and each test image is a unit of its own.
    """

    id: Text
    dataset: Text
    category: Text
    split: Text
    level: Level
    test_image: Text
    reference_image: Text | None
    defects: Annotated[tuple[Defect, ...], Field(strict=False)]
    questions: Annotated[tuple[Question, ...], Field(strict=False, min_length=1)]
    unit: Text | None = None

    _test_path = field_validator("test_image")(check_relative_path)

    @field_validator("reference_image")
    @classmethod
    def _reference_path(cls, value: str | None) -> str | None:
        return None if value is None else check_relative_path(value)

    @field_validator("questions")
    @classmethod
    def _question_ids_differ(cls, questions: tuple[Question, ...]) -> tuple[Question, ...]:
        ids = [question.id for question in questions]
        repeated = sorted({i for i in ids if ids.count(i) > 1})
        if repeated:
            raise ValueError(f"question id {repeated[0]!r} occurs twice; ids must be unique inside a group")
        return questions

    @model_serializer(mode="wrap")
    def _leave_out_an_unknown_unit(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without_unknown(write(self), "unit")


class FactSet(Record):
    """The fact sentences of one test image (paper section 3.2), keyed by the image's bytes."""

    test_image_sha256: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
    facts: Annotated[tuple[Text, ...], Field(strict=False, min_length=1)]
    model: Text
    prompt_version: Text


class JudgeScore(Record):
    """The three criteria of one answer and their mean, the MLE score S_i (eq. 3)."""

    group_id: Text
    question_id: Text
    answer_index: Annotated[int, Field(ge=0)]
    type: Score
    location: Score
    logic: Score
    mle: Score
    judge: Text

    @model_validator(mode="after")
    def _mle_is_the_mean(self) -> JudgeScore:
        mean = (self.type + self.location + self.logic) / 3
        if not math.isclose(self.mle, mean, abs_tol=1e-6):
            raise ValueError(f"mle {self.mle} is not the mean {mean:.6f} of type, location and logic (eq. 3)")
        return self


class PreferencePair(Record):
    """Winner and loser of one question by 0-based rank, with dH of eq. 6 in nats."""

    group_id: Text
    question_id: Text
    winner: Annotated[int, Field(ge=0)]
    loser: Annotated[int, Field(ge=0)]
    delta_entropy: Annotated[float, Field(ge=0.0)]
    kind: PairKind


AnyRecord = TypeVar("AnyRecord", bound=BaseModel)


def parse_record(kind: type[AnyRecord], value: Any, path: Path | str, line: int | None = None) -> AnyRecord:
    """Validate `value` as `kind`.

    Raises:
        DataError: names `path`, `line`, every faulty field, its value and what is expected there.
    """
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        problems = []
        for fault in error.errors(include_url=False)[:5]:
            field = ".".join(str(part) for part in fault["loc"]) or kind.__name__
            shown = repr(fault.get("input"))
            shown = shown if len(shown) <= 80 else shown[:77] + "..."
            problems.append(f"field {field!r}: {fault['msg']} (value: {shown})")
        raise DataError.at(
            path, line, "; ".join(problems), f"write a valid {kind.__name__}, see docs/formats.md"
        ) from None


def iterate_records(kind: type[AnyRecord], path: Path) -> Iterator[tuple[int, AnyRecord]]:
    """Yield (line number from 1, record) for each non-empty line of a JSONL file.

    Raises:
        DataError: the file is missing, a line is not JSON or is no valid record.
    """
    for number, value in read_json_lines(path):
        if isinstance(value, DataError):
            raise value
        yield number, parse_record(kind, value, path, number)
