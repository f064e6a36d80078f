"""What an evaluation may leave beside its predictions: what it was run on, what a judge said, where a model looked."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sage_trl.records import Fraction, Record, Score, Text

JUDGEMENTS_FILE = "judgements.jsonl"
EVIDENCE_FILE = "evidence.jsonl"
MANIFEST_FILE = "evaluation.json"


class Manifest(Record):
    """The content of `evaluation.json`; `models` maps the names of the results to what `--model` said."""

    version: Literal[1] = 1
    dataset: str
    facts: str | None
    seed: int
    splits: list[str]
    settings: list[str]
    models: dict[str, str]


class Judgement(Record):
    """A judge's scores of one reply; `rationale` is None for the rule judge."""

    model: Text
    setting: Text
    split: Text
    control: Text | None
    group_id: Text
    question_id: Text
    judge: Text
    type: Score
    location: Score
    logic: Score
    rationale: str | None


class Patch(Record):
    """A patch that facts attend to: its box in the test image, and its similarity to the reference if there is one."""

    box: Annotated[tuple[Fraction, Fraction, Fraction, Fraction], Field(strict=False)]
    similarity: float | None


class AttendedFact(Record):
    """A fact sentence and the share of its fusion attention (eq. 2) that each patch got."""

    text: Text
    attention: Annotated[tuple[Annotated[float, Field(ge=0.0, allow_inf_nan=False)], ...], Field(strict=False)]


class Evidence(Record):
    """Where a model looked on one group's test image.

    With a reference the patches are the K selected ones, the lowest similarity first; without one all of the image.
    """

    key: str | None = None
    model: Text
    setting: Text
    split: Text
    control: Text | None
    group_id: Text
    patches: Annotated[tuple[Patch, ...], Field(strict=False)]
    facts: Annotated[tuple[AttendedFact, ...], Field(strict=False)]

    @model_validator(mode="after")
    def _attention_goes_to_the_patches(self) -> Evidence:
        for fact in self.facts:
            if len(fact.attention) != len(self.patches):
                raise ValueError(f"{len(fact.attention)} shares of attention for {len(self.patches)} patches")
        return self
