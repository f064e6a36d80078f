"""What a source of inspection images is: parts, each a test image with its reference and true defects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from PIL import Image

from sage_trl.data.pairing import Pairing
from sage_trl.errors import DataError
from sage_trl.records import Defect, Level, Question

Language = Literal["en", "zh"]
Views = Literal["whole", "each"]


@dataclass(frozen=True)
class Part:
    """One inspected part, or one cut-out of it.

    Attributes:
        name: unique in its source, fit for a relative path.
        dataset: value of the `dataset` field; a source may write more than one.
        category: kind of part.
        split: train, validation, test or unseen.
        unit: the physical object it shows (a board, one part), where the source tells; all its parts are in one split.
        test: picture to inspect: RGB, or a file below the source's root that can be used as it is.
        reference: picture of a good part of the same kind as `test`, or None.
        defects: the true defects, empty for a normal part.
        level: level of the source's own questions.
        questions: questions that the source brings; without any, an author writes them.
    """

    name: str
    dataset: str
    category: str
    split: str
    unit: str | None
    test: Image.Image | Path
    reference: Image.Image | Path | None
    defects: tuple[Defect, ...]
    level: Level = "standard_comparison"
    questions: tuple[Question, ...] = ()


@dataclass(frozen=True)
class SourceOptions:
    """Choices of whoever builds a dataset; a source ignores what it has no use for.

    Attributes:
        root: folder with the source's files, None for a source that generates its pictures; for `datasets`, the name
            of a dataset on the hub may stand here.
        seed: decides everything that is drawn by chance.
        groups: parts per split, or for sources with files at most this many; a split that is not named gets the
            source's default.
        image_size: side of the pictures in pixels, None for the source's default.
        defective_share: share of parts with a defect.
        crops_per_defect: for sources that cut crops: how often each defect is cut out, each time shifted otherwise.
        pairing: how a reference is picked, None for the source's default.
        split_shares: share of each split where the source does not say; None for the source's default.
        split_file: name of VisA's split file, without its ending.
        category: kind of part, for sources that do not name one.
        licence: licence of the pictures, for sources that do not state one.
        language: language of the questions, where a source has them in English and Chinese.
        views: montages as they are, or each view by itself.
        columns: for `datasets`: our name of a column -> the dataset's.
    """

    root: Path | None = None
    seed: int = 0
    groups: Mapping[str, int] = field(default_factory=dict)
    image_size: int | None = None
    defective_share: float = 0.6
    crops_per_defect: int = 2
    pairing: Pairing | None = None
    split_shares: Mapping[str, float] | None = None
    split_file: str = "2cls_highshot"
    category: str | None = None
    licence: str | None = None
    language: Language = "en"
    views: Views = "whole"
    columns: Mapping[str, str] = field(default_factory=dict)

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
        shares = self.split_shares
        if shares is not None and (abs(sum(shares.values()) - 1) > 1e-6 or min(shares.values()) <= 0):
            remedy = "use shares above 0 that add up to 1, such as train=0.8 test=0.2"
            raise DataError(f"split shares {dict(shares)} do not add up to 1\n  remedy: {remedy}")


class Source(Protocol):
    """A benchmark or generator that parts come from."""

    name: str
    licence: str

    def parts(self, options: SourceOptions) -> Iterator[Part]:
        """Yield every part, in an order and with bytes that depend on the options alone.

        Raises:
            DataError: the files below `options.root` are missing or faulty; it shows every fault.
        """
        ...


def root_of(options: SourceOptions, source: str) -> Path:
    """The folder that a source reads.

    Raises:
        DataError: none was given.
    """
    if options.root is None:
        raise DataError(f"source {source!r} needs its files\n  remedy: give their directory with --root")
    return options.root
