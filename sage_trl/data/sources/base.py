"""What a source of inspection images is: parts, each a test image with its reference and true defects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from PIL import Image

from sage_trl.errors import DataError
from sage_trl.records import Defect


@dataclass(frozen=True)
class Part:
    """One inspected part, or one cut-out of it.

    Attributes:
        name: unique in its source, fit for a file name.
        dataset: value of the `dataset` field; a source may write more than one.
        category: kind of part.
        split: train, validation, test or unseen.
        unit: physical unit; all parts of a unit are in one split.
        test: RGB picture to inspect.
        reference: RGB picture of a good part, or None.
        defects: the true defects, empty for a normal part.
    """

    name: str
    dataset: str
    category: str
    split: str
    unit: str
    test: Image.Image
    reference: Image.Image | None
    defects: tuple[Defect, ...]


@dataclass(frozen=True)
class SourceOptions:
    """Choices of whoever builds a dataset; a source ignores what it has no use for.

    Attributes:
        root: folder with the source's files, None for a source that generates its pictures.
        seed: decides everything that is drawn by chance.
        groups: parts per split; a split that is not named gets the source's default.
        image_size: side of the pictures in pixels, None for the source's default.
        defective_share: share of parts with a defect.
        crops_per_defect: for sources that cut crops: how often each defect is cut out, each time shifted otherwise.
    """

    root: Path | None = None
    seed: int = 0
    groups: Mapping[str, int] = field(default_factory=dict)
    image_size: int | None = None
    defective_share: float = 0.6
    crops_per_defect: int = 2

    def __post_init__(self) -> None:
        """Refuse numbers that no source can work with.

        Raises:
            DataError: names the option.
        """
        if not 0.1 <= self.defective_share <= 0.9:
            remedy = "use 0.1 to 0.9: questions on good parts and on bad ones are needed"
            raise DataError(f"defective share {self.defective_share} is out of range\n  remedy: {remedy}")
        if self.crops_per_defect < 1:
            raise DataError(f"crops per defect {self.crops_per_defect} is out of range\n  remedy: use 1 or more")


class Source(Protocol):
    """A benchmark or generator that parts come from."""

    name: str
    licence: str
    datasets: tuple[str, ...]

    def parts(self, options: SourceOptions) -> Iterator[Part]:
        """Yield every part, in an order and with bytes that depend on the options alone.

        Raises:
            DataError: the files below `options.root` are missing or faulty.
        """
        ...
