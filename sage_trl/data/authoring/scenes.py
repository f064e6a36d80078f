"""What the author knows of one image pair before it has questions."""

from __future__ import annotations

from dataclasses import dataclass

from sage_trl.lexicon import has_place, readable_category
from sage_trl.records import Defect


@dataclass(frozen=True)
class Scene:
    """One image pair with its ground truth; the fields are those of `Inspection`."""

    id: str
    dataset: str
    category: str
    split: str
    test_image: str
    reference_image: str | None
    defects: tuple[Defect, ...]
    unit: str | None = None

    @property
    def types(self) -> tuple[str, ...]:
        """Defect types in the order of the defects, each once."""
        return tuple(dict.fromkeys(defect.type for defect in self.defects))

    @property
    def tells_places(self) -> bool:
        """Whether the place of each defect is known; so it is of none."""
        return all(has_place(defect.box) for defect in self.defects)

    @property
    def part(self) -> str:
        """The category as a noun."""
        return readable_category(self.category)
