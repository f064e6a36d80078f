"""Facts from templates by category. It never looks at defects or questions: good and bad parts get the same facts."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass

from sage_trl.facts.writer import Part


@dataclass(frozen=True)
class CategoryWords:
    """What a category adds to the templates: what it is, its details, and where damage tends to be."""

    kind: str
    details: str
    weak_place: str


_CATEGORIES = {
    "plate": CategoryWords("a flat plate with round holes", "holes", "near the holes and the corners"),
    "capsule": CategoryWords("a long capsule with printed marks", "marks", "on the curved ends"),
    "connector": CategoryWords("a connector body with slots", "slots", "between the slots"),
    "cable": CategoryWords("a piece of cable with marks on it", "marks", "along its edges"),
    "gear": CategoryWords("a gear wheel with holes", "holes", "on the teeth"),
    "washer": CategoryWords("a round washer with rings", "rings", "on the rim"),
    "pad grid": CategoryWords("a square field of pads", "pads", "between the pads"),
    "bottle cap": CategoryWords("a bottle cap with a fine rim", "marks", "on the rim"),
    "pcb": CategoryWords("a bare circuit board with traces", "traces", "where traces run close to each other"),
}

# One list per kind of fact; the first facts asked for are taken in this order.
_TEMPLATES = (
    ("The picture shows {kind}.", "This is {kind}.", "What is inspected here is {kind}."),
    (
        "Parts of this kind tend to have marks on the surface and details that are absent.",
        "Usual faults of such parts are marks on the surface, lost details and a changed outline.",
        "Such parts may show lines, spots, gaps, or details that have moved.",
    ),
    (
        "Damage is most often found {weak_place}.",
        "Faults tend to be {weak_place}.",
        "A check of such a part should begin {weak_place}.",
    ),
    (
        "The {details} should be as many and as large as in the reference.",
        "Each of the {details} should be where the reference has it.",
        "Number and position of the {details} must be those of the reference.",
    ),
    ("Light and noise may differ from the reference without harm.", "A small shift of the view is no fault."),
    ("Size and colour change from part to part.", "No two parts of this kind have the same colours."),
)
MAX_FACTS = len(_TEMPLATES)


class TemplateBank:
    """Draws one wording per kind of fact, by category and a hash of the picture alone."""

    model = "template-bank"
    batch_size = 16

    def __init__(self, count: int = 4, seed: int = 0) -> None:
        if not 1 <= count <= MAX_FACTS:
            raise ValueError(f"{count} facts asked for; the template bank has 1 to {MAX_FACTS}")
        self.count = count
        self._seed = seed
        self.prompt_version = f"templates-1 count-{count} seed-{seed}"

    def write(self, parts: Sequence[Part]) -> list[list[str]]:
        """Facts on the categories; the images only decide the wording."""
        return [self._sentences(part) for part in parts]

    def _sentences(self, part: Part) -> list[str]:
        noun = part.category.replace("_", " ").replace("-", " ").lower()
        words = _CATEGORIES.get(noun) or CategoryWords(f"a part of the kind {noun}", "details", "near its edges")
        digest = hashlib.sha256(part.image.tobytes()).hexdigest()
        rng = random.Random(f"{self._seed} {digest}")
        return [
            rng.choice(variants).format(kind=words.kind, details=words.details, weak_place=words.weak_place)
            for variants in _TEMPLATES[: self.count]
        ]
