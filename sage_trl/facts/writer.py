"""Who writes fact sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from PIL import Image


class Part(NamedTuple):
    """What a writer gets to see of a test image: never its label, its questions or its defects."""

    category: str
    image: Image.Image


class FactWriter(Protocol):
    """Writes the fact sentences of test images.

    Attributes:
        model: who writes, as `facts.jsonl` names it; equal names must give equal sentences.
        prompt_version: all else that decides the sentences.
        count: sentences that are asked for, per image.
        batch_size: images to write on at a time.
    """

    model: str
    prompt_version: str
    count: int
    batch_size: int

    def write(self, parts: Sequence[Part]) -> list[list[str]]:
        """At most `count` different sentences on each part, in the order of the parts."""
        ...


class FilledWriter:
    """A writer whose missing sentences another one adds; both are named in every row.

    Args:
        writer: writes first.
        filler: writes what is lacking.
    """

    def __init__(self, writer: FactWriter, filler: FactWriter) -> None:
        self._writer = writer
        self._filler = filler
        self.model = f"{writer.model} + {filler.model}"
        self.prompt_version = f"{writer.prompt_version} + {filler.prompt_version}"
        self.count = writer.count
        self.batch_size = writer.batch_size

    def write(self, parts: Sequence[Part]) -> list[list[str]]:
        """The writer's sentences and, where they are too few, the filler's."""
        filled = zip(self._writer.write(parts), self._filler.write(parts), strict=True)
        return [[*own, *(one for one in other if one not in own)][: self.count] for own, other in filled]
