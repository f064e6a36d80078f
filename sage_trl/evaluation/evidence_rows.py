"""`evidence.jsonl`: where a model looked, as records that can be read without a model."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from sage_trl.evaluation.predictions import Control, Setting
from sage_trl.records import Fraction, Record, Text

EVIDENCE_FILE = "evidence.jsonl"


class PatchEvidence(Record):
    """A patch that facts attend to.

    `box` is (x1, y1, x2, y2) in fractions of the test image, without area if the patch shows padding alone;
    `similarity` the cosine to the reference (eq. 1), None where there is no reference.
    """

    box: Annotated[tuple[Fraction, Fraction, Fraction, Fraction], Field(strict=False)]
    similarity: float | None


class FactEvidence(Record):
    """A fact with its attention (eq. 2) to each patch, the mean over the heads; it sums to one but for rounding."""

    text: Text
    attention: Annotated[tuple[Fraction, ...], Field(strict=False)]


class Evidence(Record):
    """What the fusion of one row sees.

    With a reference, `patches` are the K selected ones, the most distinct first; without one, all patches of the test
    image line by line.
    """

    patches: Annotated[tuple[PatchEvidence, ...], Field(strict=False)]
    facts: Annotated[tuple[FactEvidence, ...], Field(strict=False)]

    @model_validator(mode="after")
    def _attention_goes_to_the_patches(self) -> Evidence:
        for fact in self.facts:
            if len(fact.attention) != len(self.patches):
                raise ValueError(f"{len(fact.attention)} shares of attention for {len(self.patches)} patches")
        return self


class EvidenceRow(Evidence):
    """One line of `evidence.jsonl`; `key` is that of the group's first question."""

    key: str
    model: Text
    setting: Setting
    split: Text
    control: Control | None
    group_id: Text
