"""What a source of inspection images is: parts, each a test image with its reference and true defects."""

from __future__ import annotations

import re
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
# It stands in paths, and names a split on the hub.
_SPLIT_NAME = re.compile(r"\w+(\.\w+)*", re.ASCII)


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
    """Choices of whoever builds a dataset; `refuse_unused` refuses what a source has no use for.

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
        config: for `datasets`: which configuration, None where there is one.
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
    config: str | None = None

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
        if self.image_size is not None and self.image_size < 1:
            raise DataError(f"image size {self.image_size} is out of range\n  remedy: use 1 or more")
        shares = self.split_shares
        # Said so that a share that is no number is refused too.
        if shares is not None and not (abs(sum(shares.values()) - 1) <= 1e-6 and min(shares.values()) > 0):
            remedy = "use shares above 0 that add up to 1, such as train=0.8 test=0.2"
            raise DataError(f"split shares {dict(shares)} do not add up to 1\n  remedy: {remedy}")
        odd = [name for name in shares or () if not _SPLIT_NAME.fullmatch(name)]
        if odd:
            raise DataError(f"split {odd[0]!r} is no name\n  remedy: use letters, digits, underscores and dots")
        for option, text in (("category", self.category), ("licence", self.licence)):
            if text is not None and not (text.strip() and text.isprintable()):
                raise DataError(f"{option} {text!r} is no name\n  remedy: write words, or leave --{option} out")


class Source(Protocol):
    """A benchmark or generator that parts come from.

    Attributes:
        name: what `--source` calls it.
        licence: of its pictures.
        uses: names of the options that it reads, beside those that every source does; `author` where its parts bring
            no questions.
    """

    name: str
    licence: str
    uses: frozenset[str]

    def parts(self, options: SourceOptions) -> Iterator[Part]:
        """Yield every part, in an order and with bytes that depend on the options alone.

        Raises:
            DataError: the files below `options.root` are missing or faulty; it shows every fault.
        """
        ...


PHOTO_OPTIONS = frozenset({"root", "pairing", "split_shares", "defective_share", "author"})
"""What a source uses whose parts come from `photo_parts`; without `defective_share` where it names the references."""
ASKED_OPTIONS = frozenset({"root", "pairing", "split_shares"})
"""What a source uses whose parts come from `asked_parts`."""
_OF_ALL = frozenset({"seed", "groups", "licence"})


def refuse_unused(source: Source, options: SourceOptions) -> None:
    """Refuse options that would silently do nothing.

    Raises:
        DataError: names the first.
    """
    default = SourceOptions()
    for option in vars(default):
        if option not in source.uses | _OF_ALL and getattr(options, option) != getattr(default, option):
            name = f"--{option.replace('_', '-')}"
            raise DataError(f"{name} means nothing to source {source.name!r}\n  remedy: leave it out")


def root_of(options: SourceOptions, source: str) -> Path:
    """The folder that a source reads.

    Raises:
        DataError: none was given.
    """
    if options.root is None:
        raise DataError(f"source {source!r} needs its files\n  remedy: give their directory with --root")
    return options.root
