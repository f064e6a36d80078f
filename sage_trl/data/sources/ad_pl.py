"""AD-PL as its authors store it: five questions on an image pair, each with four answers ranked by order.

    ROOT/**/NAME.json          lists of entries; images are named from ROOT
    ROOT/MPDD/tubes/test/anomalous/000.png

One entry, shortened:

    {"test_image": "MPDD/tubes/test/anomalous/000.png", "reference_image": "MPDD/tubes/train/good/004.png",
     "pair_type": "defect identification",
     "question_answer": [{"question_en": "Is a tube bent?", "question_cn": "...",
                          "answer_options": [{"answer_en": "Yes, ...", "answer_cn": "..."}, "three more, ever worse"]}]}

The `dataset` field is the first folder of the image (`mvtec`, `visa`, `mpdd`), the category the second. The verdict is
the Yes or No that the best English answer opens with, null where it opens with neither. Groups of MPDD are the test
set, as in the paper; the others are divided into `train` and `validation`. Defects come from the folder of the test
image, as in MVTec and VisA, and their places from its mask, where the dataset lies there with its masks.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator

from sage_trl.data.faults import FaultList
from sage_trl.data.sources.asked_parts import LEVEL_OF_PAIR_TYPE, Group, asked_parts, note_repeated
from sage_trl.data.sources.base import ASKED_OPTIONS, Language, Part, SourceOptions, root_of
from sage_trl.data.sources.json_entries import Entry, image_of, json_files, read_entries
from sage_trl.data.sources.photos import photo_by_folders
from sage_trl.lexicon import read_verdict
from sage_trl.records import Question

SHARES = {"train": 0.9, "validation": 0.1}
TEST_DATASETS = ("mpdd",)
_DATASETS = {"mvtec_ad": "mvtec", "mvtec_anomaly_detection": "mvtec"}

PairType = Literal["standard comparison", "defect identification", "defect diagnosis"]
Words = Annotated[str, StringConstraints(min_length=1)]


class Answer(Entry):
    """One ranked answer."""

    answer_en: Words
    answer_cn: str = ""


class Asked(Entry):
    """One question with its answers, best first."""

    question_en: Words
    question_cn: str = ""
    answer_options: Annotated[list[Answer], Field(min_length=2)]

    @field_validator("answer_options")
    @classmethod
    def _answers_differ(cls, answers: list[Answer]) -> list[Answer]:
        for field in ("answer_en", "answer_cn"):
            texts = [getattr(answer, field) for answer in answers if getattr(answer, field)]
            if len(set(texts)) != len(texts):
                raise ValueError(f"two answers have the same {field}; ranked answers must differ")
        return answers


class PairEntry(Entry):
    """The questions on one image pair."""

    test_image: Words
    reference_image: str | None
    pair_type: PairType
    question_answer: Annotated[list[Asked], Field(min_length=1)]


class AdPlSource:
    """Reads the JSON files below a root."""

    name = "ad_pl"
    licence = "as of MVTec AD, VisA and MPDD (CC BY-NC-SA 4.0, CC BY 4.0, CC BY-NC-SA 4.0)"
    uses = ASKED_OPTIONS | {"language"}

    def parts(self, options: SourceOptions) -> Iterator[Part]:
        root = root_of(options, self.name)
        faults = FaultList()
        groups: list[Group] = []
        files = json_files(root, "**/*")
        for path in files:
            groups += _read_file(path, root, options.language, faults)
        if not files:
            faults.add(root, None, "holds no JSON file", "give the folder that holds the JSON files and the images")
        note_repeated(groups, root, faults)
        yield from asked_parts(groups, options, faults, SHARES, root)


def _read_file(path: Path, root: Path, language: Language, faults: FaultList) -> Iterator[Group]:
    for field, entry in read_entries(PairEntry, path, faults):
        test = image_of(entry.test_image, root, root, path, f"{field}.test_image", faults)
        reference = None
        if entry.reference_image:
            reference = image_of(entry.reference_image, root, root, path, f"{field}.reference_image", faults)
        if reference is not None and reference == test:
            problem = f"field '{field}.reference_image': is the test image {entry.test_image!r}"
            faults.add(path, None, problem, "name another good image")
        questions = tuple(
            _question(number, asked, path, f"{field}.question_answer.{number}", language, faults)
            for number, asked in enumerate(entry.question_answer)
        )
        if test is None:
            continue
        folders = PurePosixPath(entry.test_image).parts
        dataset = folders[0].lower() if len(folders) > 2 else "ad_pl"
        dataset = _DATASETS.get(dataset, dataset)
        category = folders[1] if len(folders) > 2 else test.parent.name
        level = LEVEL_OF_PAIR_TYPE[entry.pair_type]
        photo = photo_by_folders(test, root, category, reference)
        split = "test" if dataset in TEST_DATASETS else None
        yield Group(f"{photo.name}/{level}", dataset, photo, level, questions, split)


def _question(number: int, asked: Asked, path: Path, field: str, language: Language, faults: FaultList) -> Question:
    text = asked.question_en
    answers = tuple(answer.answer_en for answer in asked.answer_options)
    if language == "zh":
        chinese = tuple(answer.answer_cn for answer in asked.answer_options)
        if asked.question_cn and all(chinese):
            text, answers = asked.question_cn, chinese
        else:
            remedy = "add the Chinese texts, or use --language en"
            faults.add(path, None, f"field {field!r}: no question_cn or answer_cn", remedy)
    return Question(
        id=f"q{number + 1}",
        question=text,
        verdict=read_verdict(asked.answer_options[0].answer_en),
        answers=answers,
    )
