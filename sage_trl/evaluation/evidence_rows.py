"""`evidence.jsonl`: where a model looked, as records that can be read without a model."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from sage_trl.evaluation.predictions import Control, Setting
from sage_trl.records import Fraction, Record, Text

EVIDENCE_FILE = "evidence.jsonl"
# Without a reference facts attend to all patches of an image, thousands of them in a large one.
MOST_UNSELECTED = 16


class PatchEvidence(Record):
    """A patch that facts attend to.

    `box` is (x1, y1, x2, y2) in fractions of the test image; `similarity` the cosine to the reference (eq. 1), None
    where there is no reference.
    """

    box: Annotated[tuple[Fraction, Fraction, Fraction, Fraction], Field(strict=False)]
    similarity: float | None


class FactEvidence(Record):
    """A fact with its attention (eq. 2) to each of `Evidence.patches`, the mean over the heads.

    Over all patches that are attended to it sums to one but for rounding.
    """

    text: Text
    attention: Annotated[tuple[Fraction, ...], Field(strict=False)]


class Evidence(Record):
    """What the fusion of one row sees.

    Attributes:
        selected: whether there is a reference, by which eq. 1 has selected patches. Without one nothing is selected.
        attended: how many patches the facts attend to: K if selected, else all of the test image.
        patches: the K selected ones, the most distinct first. Where nothing is selected all of them line by line, or
            what `strongest` leaves of them.
        facts: the facts of the row.
    """

    selected: bool
    attended: Annotated[int, Field(ge=1)]
    patches: Annotated[tuple[PatchEvidence, ...], Field(strict=False)]
    facts: Annotated[tuple[FactEvidence, ...], Field(strict=False)]

    @model_validator(mode="after")
    def _attention_goes_to_the_patches(self) -> Evidence:
        for fact in self.facts:
            if len(fact.attention) != len(self.patches):
                raise ValueError(f"{len(fact.attention)} shares of attention for {len(self.patches)} patches")
        return self

    @model_validator(mode="after")
    def _a_selection_has_all_its_patches(self) -> Evidence:
        if len(self.patches) > self.attended or (self.selected and len(self.patches) < self.attended):
            raise ValueError(f"{len(self.patches)} patches of {self.attended} attended to, selected: {self.selected}")
        if any((patch.similarity is not None) != self.selected for patch in self.patches):
            raise ValueError("patches have a similarity if, and only if, they are selected")
        return self


class EvidenceRow(Evidence):
    """One line of `evidence.jsonl`; `key` is that of the group's first question."""

    key: str
    model: Text
    setting: Setting
    split: Text
    control: Control | None
    group_id: Text


def strongest(evidence: Evidence, most: int = MOST_UNSELECTED) -> Evidence:
    """A selection as it is; of patches that nothing has selected those to which some fact attends most, in order."""
    places = range(len(evidence.patches))
    if evidence.selected or len(places) <= most:
        return evidence
    attention = [max((fact.attention[place] for fact in evidence.facts), default=0.0) for place in places]
    kept = sorted(sorted(places, key=lambda place: -attention[place])[:most])
    return Evidence(
        selected=False,
        attended=evidence.attended,
        patches=tuple(evidence.patches[place] for place in kept),
        facts=tuple(
            FactEvidence(text=fact.text, attention=tuple(fact.attention[place] for place in kept))
            for fact in evidence.facts
        ),
    )
