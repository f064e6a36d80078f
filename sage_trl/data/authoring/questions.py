"""Question templates, and what may be asked of a scene.

A template has a probe (presence, type, place, cause, consequence) and a polarity. The probe *matches* if what it names
is there. A positive template is answered yes on a match ("Is there a stain?"), a negative one no ("Is it free of
stains?").
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from sage_trl.data.authoring.scenes import Scene
from sage_trl.lexicon import CELLS, HALVES, article, in_place, place_noun, place_phrase, terms_for, touches
from sage_trl.records import Level

Probe = Literal["presence", "type", "place", "cause", "consequence"]


@dataclass(frozen=True)
class Template:
    """A question with a gap for what it probes."""

    probe: Probe
    positive: bool
    text: str


@dataclass(frozen=True)
class Asked:
    """A question about one scene.

    Attributes:
        template: where the wording comes from.
        slot: the defect type or the place that is asked about, None for presence.
        words: the words that stand for the slot in the text.
        text: the whole question.
        match: whether what the probe names is there.
    """

    template: Template
    slot: str | None
    words: str
    text: str
    match: bool

    @property
    def verdict(self) -> bool:
        """The true yes/no answer."""
        return self.match == self.template.positive


TEMPLATES: dict[Level, tuple[Template, ...]] = {
    "standard_comparison": (
        Template("presence", True, "Does this {part} differ from the reference?"),
        Template("presence", True, "Is there any change between the reference and this {part}?"),
        Template("presence", False, "Is this {part} the same as the reference?"),
        Template("presence", False, "Does all of this {part} match the reference?"),
        Template("type", True, "Compared with the reference, does this {part} have {words}?"),
        Template("type", True, "Does {words} set this {part} apart from the reference?"),
        Template("place", True, "Does the {words} of this {part} differ from the reference?"),
        Template("place", True, "Compared with the reference, is there a change {where}?"),
    ),
    "defect_identification": (
        Template("presence", True, "Is there any defect on this {part}?"),
        Template("presence", True, "Can you find a defect here?"),
        Template("presence", False, "Is this {part} free of defects?"),
        Template("presence", False, "Is this a good {part}?"),
        Template("type", True, "Is there {words} on this {part}?"),
        Template("type", True, "Can you find {words} here?"),
        Template("place", True, "Is there a defect {where}?"),
        Template("place", True, "Can you find a defect {where} of this {part}?"),
    ),
    "defect_diagnosis": (
        Template("presence", True, "Should this {part} be rejected?"),
        Template("presence", True, "Did something go wrong when this {part} was made?"),
        Template("presence", False, "Can this {part} be used as it is?"),
        Template("presence", False, "Will this {part} do its job?"),
        Template("cause", True, "Is it likely that {words}?"),
        Template("cause", True, "Does this {part} look as if {words}?"),
        Template("consequence", True, "Could it happen with this {part} that {words}?"),
        Template("consequence", True, "Should we fear that {words}?"),
        Template("type", True, "Would you reject this {part} because of {words}?"),
    ),
}


def possible_questions(scene: Scene, templates: Iterable[Template], types: Iterable[str]) -> Iterator[Asked]:
    """Everything that templates can ask of a scene; `types` are the defect types that may be asked about.

    A place that a defect touches without having its centre there is left out: its answer would be a matter of taste.
    No place is asked about where that of a defect is not known.
    """
    known = tuple(types)
    for template in templates:
        for slot, words, match in _slots(template.probe, scene, known):
            where = place_phrase(slot) if template.probe == "place" and slot else ""
            text = template.text.format(part=scene.part, words=words, where=where)
            yield Asked(template, slot, words, text, match)


def _slots(probe: Probe, scene: Scene, types: tuple[str, ...]) -> Iterator[tuple[str | None, str, bool]]:
    if probe == "presence":
        yield None, "", bool(scene.defects)
    elif probe == "place":
        for place in (*CELLS, *HALVES) if scene.tells_places else ():
            match = any(in_place(defect.box, place) for defect in scene.defects)
            if match or not any(touches(defect.box, place) for defect in scene.defects):
                yield place, place_noun(place), match
    else:
        for name in types:
            terms = terms_for(name)
            clauses = {"cause": terms.causes, "consequence": terms.consequences}.get(probe)
            for words in clauses or tuple(article(noun) for noun in terms.nouns):
                yield name, words, name in scene.types
