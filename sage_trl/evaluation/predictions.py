"""One line of `predictions.jsonl`: what a model replied to one question, and whether the reply was right."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from sage_trl.records import Fraction, Letter, Level, Record, Text, Turns

PREDICTIONS_FILE = "predictions.jsonl"

Setting = Literal["zero_shot", "one_shot", "zero_shot_conversation", "one_shot_conversation"]
"""Whether the reference is shown, and whether each question stands alone or a group is one conversation (eq. 10)."""
SETTINGS: tuple[Setting, ...] = ("zero_shot", "one_shot")
"""The settings of single questions; `in_turns` gives those of conversations."""

Control = Literal["blank_image", "shuffled_reference", "shuffled_facts", "no_facts", "hard_facts"]
CONTROLS: tuple[Control, ...] = ("blank_image", "shuffled_reference", "shuffled_facts")
"""The controls that change the input; `no_facts` and `hard_facts` (facts as text) have switches of their own."""

MmadProtocol = Literal["corrected", "original"]
MMAD_PROTOCOLS: tuple[MmadProtocol, ...] = ("corrected", "original")


def in_turns(setting: Setting, turns: Turns) -> Setting:
    """The setting with the same images for `single` questions or a `conversation`."""
    conversations: dict[Setting, Setting] = {
        "zero_shot": "zero_shot_conversation",
        "one_shot": "one_shot_conversation",
    }
    return conversations[setting] if turns == "conversation" else setting


def is_conversation(setting: Setting) -> bool:
    """Whether each question comes after the group's earlier ones and the model's own replies to them."""
    return setting.endswith("_conversation")


def shows_reference(setting: Setting) -> bool:
    """Whether the model sees the reference image."""
    return setting.startswith("one_shot")


class Prediction(Record):
    """A reply and its grade.

    `verdict` is the true answer, None for a question that is not answered by yes or no; `choice` is the letter of the
    right option, None without options. A question with neither is open, and not graded: `correct` is None.
    `predicted_verdict` and `predicted_choice` are None if the reply holds no readable one, which is wrong wherever
    there is a true one.
    `seconds` is the reply's share of its batch's generation time. `yes_probability` is the chance that the model gave
    to yes against no at the start of its answer, None where it cannot tell.
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
            raise ValueError(
                f"correct is {self.correct}, but the predicted answer is {self.answer}, the true {self.truth}"
            )
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


def results_key(setting: str, split: str, control: str | None) -> str:
    """The name under which `metrics.json` keeps one result of a model.

    The setting alone on the split `test`; `one_shot@unseen` on another split; `one_shot+blank_image` under a control.
    """
    place = setting if split == "test" else f"{setting}@{split}"
    return place if control is None else f"{place}+{control}"


def read_results_key(key: str) -> tuple[str, str, str | None]:
    """Setting, split and control: the inverse of `results_key`."""
    place, _, control = key.rpartition("+")
    if control not in get_args(Control):
        place, control = key, ""
    setting, _, split = place.partition("@")
    return setting, split or "test", control or None
