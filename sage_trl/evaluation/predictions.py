"""One line of `predictions.jsonl`: what a model replied to one question, and whether the reply was right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Annotated, Literal

from pydantic import Field, model_validator

from sage_trl.records import Fraction, Letter, Level, Record, Text, iterate_records
from sage_trl.storage import JsonlAppender

PREDICTIONS_FILE = "predictions.jsonl"

Setting = Literal["zero_shot", "one_shot"]
SETTINGS: tuple[Setting, ...] = ("zero_shot", "one_shot")

Control = Literal["blank_image", "shuffled_reference", "shuffled_facts", "no_facts", "hard_facts"]
CONTROLS: tuple[Control, ...] = ("blank_image", "shuffled_reference", "shuffled_facts")
"""The controls that change the input; `no_facts` and `hard_facts` (facts as text) have switches of their own."""

MmadProtocol = Literal["corrected", "original"]
MMAD_PROTOCOLS: tuple[MmadProtocol, ...] = ("corrected", "original")


class Prediction(Record):
    """A reply and its grade.

    `verdict` is the true answer, None for a question that is not answered by yes or no; `choice` is the letter of the
    right option, None without options. A question with neither is open, and not graded: `correct` is None.
    `predicted_verdict` and `predicted_choice` are None if the reply holds no readable one, which is wrong wherever there
    is a true one.
    `seconds` is the reply's share of its batch's generation time. `yes_probability` is the chance that the model gave to
    yes against no at the start of its answer, None where it cannot tell.
    """

    key: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    model: Text
    setting: Setting
    split: Text
    control: Control | None
    group_id: Text
    question_id: Text
    level: Level
    question: Text
    prediction: str
    predicted_verdict: bool | None
    verdict: bool | None
    correct: bool | None
    seconds: Annotated[float, Field(ge=0.0)]
    yes_probability: Fraction | None = None
    predicted_choice: Letter | None = None
    choice: Letter | None = None

    @model_validator(mode="after")
    def _grade_follows_from_the_verdicts(self) -> Prediction:
        if self.correct != grade(self.answer, self.truth):
            raise ValueError(f"correct is {self.correct}, but the predicted answer is {self.answer}, the true {self.truth}")
        return self

    @property
    def answer(self) -> bool | str | None:
        """What the reply says: a letter where there are options, else a verdict; None if unreadable."""
        return self.predicted_verdict if self.choice is None else self.predicted_choice

    @property
    def truth(self) -> bool | str | None:
        """The true answer; None for an open question."""
        return self.verdict if self.choice is None else self.choice


def grade(predicted: bool | str | None, true: bool | str | None) -> bool | None:
    """Whether a predicted verdict or choice is right; None for an open question."""
    return None if true is None else predicted == true


class PredictionLog:
    """The predictions of an output directory by key: those of earlier runs, and new ones as they are added.

    A context manager; what was added is on the disk even if the process is killed right after.

    Raises:
        DataError: on entering, if an earlier file is damaged other than by a cut-off last line.
    """

    def __init__(self, output: Path) -> None:
        self._path = output / PREDICTIONS_FILE

    def __enter__(self) -> PredictionLog:
        # Opening the appender drops a line that a kill cut short, which reading would refuse.
        JsonlAppender(self._path).close()
        self._known = {prediction.key: prediction for _, prediction in iterate_records(Prediction, self._path)}
        self._appender = JsonlAppender(self._path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._appender.close()

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def __getitem__(self, key: str) -> Prediction:
        return self._known[key]

    def add(self, predictions: Sequence[Prediction]) -> None:
        """Write the predictions; returns once they are on the disk."""
        self._appender.append(prediction.model_dump(mode="json") for prediction in predictions)
        self._known.update({prediction.key: prediction for prediction in predictions})


def results_key(setting: str, split: str, control: str | None) -> str:
    """The name under which `metrics.json` keeps one result of a model.

    The setting alone on the split `test`; `one_shot@unseen` on another split; `one_shot+blank_image` under a control.
    """
    place = setting if split == "test" else f"{setting}@{split}"
    return place if control is None else f"{place}+{control}"
