"""One line of `predictions.jsonl`: what a model replied to one question, and whether the reply was right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Annotated, Literal

from pydantic import Field, model_validator

from sage_trl.records import Level, Record, Text, iterate_records
from sage_trl.storage import JsonlAppender

PREDICTIONS_FILE = "predictions.jsonl"

Setting = Literal["zero_shot", "one_shot"]
SETTINGS: tuple[Setting, ...] = ("zero_shot", "one_shot")

Control = Literal["blank_image", "shuffled_reference", "shuffled_facts", "no_facts", "hard_facts"]
CONTROLS: tuple[Control, ...] = ("blank_image", "shuffled_reference", "shuffled_facts")
"""The controls that change the input; `no_facts` and `hard_facts` (facts as text) have switches of their own."""


class Prediction(Record):
    """A reply and its grade.

    `verdict` is the true answer, None for an open question, which is then not graded: `correct` is None.
    `predicted_verdict` is None if the reply holds no readable verdict, which is wrong wherever there is a true one.
    `seconds` is the reply's share of its batch's generation time.
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

    @model_validator(mode="after")
    def _grade_follows_from_the_verdicts(self) -> Prediction:
        if self.correct != grade(self.predicted_verdict, self.verdict):
            raise ValueError(
                f"correct is {self.correct}, but the predicted verdict is {self.predicted_verdict} "
                f"and the true one {self.verdict}"
            )
        return self


def grade(predicted_verdict: bool | None, verdict: bool | None) -> bool | None:
    """Whether a predicted verdict is right; None for an open question."""
    return None if verdict is None else predicted_verdict == verdict


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
