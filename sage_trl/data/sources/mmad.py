"""MMAD: multiple-choice questions on images of MVTec AD, MVTec LOCO, VisA and GoodsAD.

    ROOT/mmad.json
    ROOT/DS-MVTec/bottle/image/broken_large/000.png      test images
    ROOT/MVTec-AD/bottle/train/good/001.png              templates: good parts

One entry of `mmad.json`:

    "DS-MVTec/bottle/image/broken_large/000.png": {
        "conversation": [{"Question": "Where is the defect?", "Answer": "B", "type": "Defect Localization",
                          "Options": {"A": "At the bottom.", "B": "On the rim."}, "annotation": true}],
        "mask_path": "rgb_mask/broken_large/000.png",
        "similar_templates": ["MVTec-AD/bottle/train/good/001.png"], "random_templates": ["..."]}

Choices stay choices: the options stand in the question with their letters, the right one is the best answer and the
others follow in their order, unranked; the verdict is null. Where the options are Yes and No, they are the answers and
the verdict, and do not stand in the question. Options, right letter and MMAD's type of each question are kept. An
image's questions are up to three groups, by level. The reference is the first similar template, or with
`--pairing random` a random template. All of it is in the split `test`.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import Field, StringConstraints, model_validator

from sage_trl.data.faults import FaultList
from sage_trl.data.sources.asked_parts import Group, asked_parts
from sage_trl.data.sources.base import ASKED_OPTIONS, Part, SourceOptions, root_of
from sage_trl.data.sources.json_entries import Entry, image_of, read_entries
from sage_trl.data.sources.photos import photo_by_folders
from sage_trl.lexicon import read_verdict
from sage_trl.records import Letter, Level, Question

FILE = "mmad.json"
Paths = Annotated[tuple[str, ...], Field(strict=False)]
Words = Annotated[str, StringConstraints(min_length=1)]


class Choice(Entry):
    """One multiple-choice question."""

    Question: Words
    Answer: Words
    Options: dict[Letter, Words]
    type: Words

    @model_validator(mode="after")
    def _answer_is_an_option(self) -> Choice:
        texts = {text.casefold().strip(" .") for text in self.Options.values()}
        if len(self.Options) < 2 or len(texts) < len(self.Options):
            raise ValueError("fewer than two different options")
        if self.Answer not in self.Options:
            raise ValueError(f"answer {self.Answer!r} is none of the options {', '.join(self.Options)}")
        level_of_type(self.type)
        return self


class ImageEntry(Entry):
    """The questions on one image, keyed by its path."""

    conversation: Annotated[list[Choice], Field(min_length=1)]
    mask_path: str | None = None
    similar_templates: Paths = ()
    random_templates: Paths = ()


class MmadSource:
    """Reads `mmad.json` below a root."""

    name = "mmad"
    licence = "as of MVTec AD and LOCO, VisA and GoodsAD; the questions CC BY-NC-SA 4.0 (MMAD): research only"
    uses = ASKED_OPTIONS

    def parts(self, options: SourceOptions) -> Iterator[Part]:
        root = root_of(options, self.name)
        faults = FaultList()
        groups: list[Group] = []
        path = root / FILE
        for image, entry in read_entries(ImageEntry, path, faults):
            groups += _groups(image, entry, root, options, faults)
        yield from asked_parts(groups, options, faults, {"test": 1.0}, root, ("given", "random", "none"))


def level_of_type(kind: str) -> Level:
    """The level that a question type of MMAD belongs to: whole part, defect, or what it leads to.

    Raises:
        ValueError: a type that is none of MMAD's.
    """
    if kind.startswith(("Anomaly", "Object")):
        return "standard_comparison"
    if kind == "Defect Analysis":
        return "defect_diagnosis"
    if kind.startswith("Defect"):
        return "defect_identification"
    raise ValueError(f"type {kind!r} is none of MMAD's: Anomaly ..., Object ... or Defect ...")


def _groups(image: str, entry: ImageEntry, root: Path, options: SourceOptions, faults: FaultList) -> Iterator[Group]:
    path = root / FILE
    test = image_of(image, root, root, path, image, faults)
    templates, field = (
        (entry.random_templates, "random_templates")
        if options.pairing == "random" and entry.random_templates
        else (entry.similar_templates, "similar_templates")
    )
    reference = None
    if templates:
        rng = random.Random(f"{options.seed} {image}")
        number = rng.randrange(len(templates)) if options.pairing == "random" else 0
        reference = image_of(templates[number], root, root, path, f"{image}.{field}.{number}", faults)
    mask = _mask_of(image, entry, root, faults) if entry.mask_path else None
    if test is None:
        return
    folders = PurePosixPath(image).parts
    photo = photo_by_folders(test, root, folders[1] if len(folders) > 2 else test.parent.name, reference, mask)
    by_level: defaultdict[Level, list[Choice]] = defaultdict(list)
    for choice in entry.conversation:
        by_level[level_of_type(choice.type)].append(choice)
    for level, choices in by_level.items():
        questions = tuple(_question(number, choice) for number, choice in enumerate(choices, start=1))
        yield Group(f"{photo.name}/{level}", "mmad", photo, level, questions)


def _mask_of(image: str, entry: ImageEntry, root: Path, faults: FaultList) -> Path | None:
    """The mask, whose path is given from the root, from the dataset or from the category."""
    folders = PurePosixPath(image).parts
    starts = [root / PurePosixPath(*folders[:depth]) for depth in range(min(4, len(folders)))]
    found = next((start for start in starts if (start / str(entry.mask_path)).is_file()), root)
    return image_of(str(entry.mask_path), found, root, root / FILE, f"{image}.mask_path", faults)


def _question(number: int, choice: Choice) -> Question:
    right = choice.Options[choice.Answer]
    others = [text for letter, text in choice.Options.items() if letter != choice.Answer]
    if all(read_verdict(text) is not None for text in choice.Options.values()) and len(choice.Options) == 2:
        text, answers, verdict = choice.Question, (right, *others), read_verdict(right)
    else:
        lettered = {letter: f"{letter}. {text}" for letter, text in choice.Options.items()}
        text = "\n".join([choice.Question, *lettered.values()])
        wrong = [line for letter, line in lettered.items() if letter != choice.Answer]
        answers, verdict = (lettered[choice.Answer], *wrong), None
    return Question(
        id=f"q{number}",
        question=text,
        verdict=verdict,
        answers=answers,
        options=choice.Options,
        choice=choice.Answer,
        type=choice.type,
    )
