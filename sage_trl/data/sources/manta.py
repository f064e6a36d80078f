"""MANTA: tiny objects, each photographed from five sides; the five views stand side by side in one image.

    ROOT/JsonData/mechanics_QA.json              lists of entries, one file per domain
    ROOT/ImageData/mechanics/gear/0001.png       images, named from the folder of the domain

One entry, shortened:

    {"domain": "mechanics", "test_image": "gear/0001.png", "pair_type": "defect diagnosis",
     "conclusion_en": "The gear is worn. ...",
     "question_answer": [{"question_en": "Is a tooth worn?", "answer": true, "conclusion_en": "One tooth is worn."}]}

The benchmark has a verdict and a conclusion, and no ranking: the best answer is the verdict with the conclusion of the
question (else of the entry), the worst the opposite verdict with the same words. A folder of good parts in the image's
path makes it normal, one of anomalous parts a defect `anomaly` on the whole image; where the path does not say, no
defect is recorded, so score MANTA by its verdicts and not by the rule judge. `--views each` cuts the montage and asks
the same of every view, which may not show the defect. References are given where an entry names a `reference_image`.
All of it is in the split `test`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Annotated

from PIL import Image
from pydantic import Field, StringConstraints, field_validator

from sage_trl.data.faults import FaultList
from sage_trl.data.images import open_image
from sage_trl.data.sources.ad_pl import PairType
from sage_trl.data.sources.asked_parts import LEVEL_OF_PAIR_TYPE, Group, asked_parts, note_repeated
from sage_trl.data.sources.base import ASKED_OPTIONS, Language, Part, SourceOptions, root_of
from sage_trl.data.sources.json_entries import Entry, image_of, json_files, read_entries
from sage_trl.data.sources.photos import GOOD_FOLDERS, NORMAL, Photo, name_of
from sage_trl.errors import DataError
from sage_trl.records import Question

VIEWS = 5
BAD_FOLDERS = ("anomaly", "anomalous", "abnormal", "defect", "defective", "bad", "ng")
Words = Annotated[str, StringConstraints(min_length=1)]


class Asked(Entry):
    """One question with its verdict."""

    question_en: Words
    question_cn: str = ""
    answer: bool
    conclusion_en: str = ""
    conclusion_cn: str = ""

    @field_validator("answer", mode="before")
    @classmethod
    def _read_words(cls, value: object) -> object:
        return {"true": True, "yes": True, "false": False, "no": False}.get(str(value).strip().lower(), value)


class MontageEntry(Entry):
    """The questions on one montage."""

    domain: Words
    test_image: Words
    reference_image: str | None = None
    pair_type: PairType
    conclusion_en: str = ""
    conclusion_cn: str = ""
    question_answer: Annotated[list[Asked], Field(min_length=1)]


class MantaSource:
    """Reads the JSON files of a root."""

    name = "manta"
    licence = "CC BY-NC-SA 4.0 (MANTA): research only"
    uses = ASKED_OPTIONS | {"language", "views"}

    def parts(self, options: SourceOptions) -> Iterator[Part]:
        root = root_of(options, self.name)
        faults = FaultList()
        groups: list[Group] = []
        files = json_files(root / "JsonData")
        for path in files:
            groups += _read_file(path, root, options.language, faults)
        if not files:
            faults.add(root / "JsonData", None, "holds no JSON file", "give the folder of JsonData and ImageData")
        note_repeated(groups, root / "JsonData", faults)
        for part in asked_parts(groups, options, faults, {"test": 1.0}, root):
            if options.views == "whole":
                yield part
            else:
                yield from _views(part)


def _read_file(path: Path, root: Path, language: Language, faults: FaultList) -> Iterator[Group]:
    for field, entry in read_entries(MontageEntry, path, faults):
        folder = root / "ImageData"
        test = image_of(f"{entry.domain}/{entry.test_image}", folder, root, path, f"{field}.test_image", faults)
        reference = None
        if entry.reference_image:
            named = f"{entry.domain}/{entry.reference_image}"
            reference = image_of(named, folder, root, path, f"{field}.reference_image", faults)
        questions = []
        for number, asked in enumerate(entry.question_answer):
            with faults.collecting():
                questions.append(_question(number, asked, entry, path, f"{field}.question_answer.{number}", language))
        if test is None:
            continue
        folders = [part.lower() for part in PurePosixPath(entry.test_image).parts[:-1]]
        label = NORMAL
        if any(name in BAD_FOLDERS for name in folders) and not any(name in GOOD_FOLDERS for name in folders):
            label = "anomaly"
        category = PurePosixPath(entry.test_image).parts[0] if folders else entry.domain
        name = name_of(test, folder)
        # Montages of all levels, and their views, show one object.
        photo = Photo(name, test, category, label, name, reference=reference, physical_unit=name)
        level = LEVEL_OF_PAIR_TYPE[entry.pair_type]
        yield Group(f"{name}/{level}", "manta", photo, level, tuple(questions))


def _question(number: int, asked: Asked, entry: MontageEntry, path: Path, field: str, language: Language) -> Question:
    text, conclusion = asked.question_en, asked.conclusion_en or entry.conclusion_en
    if language == "zh":
        text, conclusion = asked.question_cn, asked.conclusion_cn or entry.conclusion_cn
    if not text or not conclusion:
        suffix = "cn" if language == "zh" else "en"
        problem = f"field {field!r}: no question_{suffix}, or no conclusion_{suffix} here or in the entry"
        raise DataError.at(path, None, problem, "add it, remove the question, or use another --language")
    right, wrong = ("Yes", "No") if asked.answer else ("No", "Yes")
    answers = f"{right}. {conclusion}", f"{wrong}. {conclusion}"
    return Question(id=f"q{number + 1}", question=text, verdict=asked.answer, answers=answers)


def _views(part: Part) -> Iterator[Part]:
    """The part once for each of its five views."""
    tests = _cut(part.test)
    references = [None] * VIEWS if part.reference is None else _cut(part.reference)
    for number, (test, reference) in enumerate(zip(tests, references, strict=True), start=1):
        yield replace(part, name=f"{part.name}/view{number}", test=test, reference=reference)


def _cut(montage: Image.Image | Path) -> list[Image.Image]:
    """Five equal parts along the longer side."""
    picture = open_image(montage) if isinstance(montage, Path) else montage
    width, height = picture.size
    if max(width, height) < VIEWS * 8:
        remedy = "use --views whole"
        raise DataError(f"{montage}: {width}x{height} pixels are no montage of {VIEWS} views\n  remedy: {remedy}")
    cuts = [round(max(width, height) * step / VIEWS) for step in range(VIEWS + 1)]
    if width >= height:
        return [picture.crop((left, 0, right, height)) for left, right in itertools.pairwise(cuts)]
    return [picture.crop((0, top, width, bottom)) for top, bottom in itertools.pairwise(cuts)]
