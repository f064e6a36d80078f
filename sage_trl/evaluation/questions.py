"""The questions of an evaluation: rows for the model, each with a key that decides whether it was answered before."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from sage_trl.data.dataset import AdPlDirectory
from sage_trl.data.images import open_image
from sage_trl.errors import DataError
from sage_trl.evaluation.controls import Row, apply_control
from sage_trl.evaluation.predictions import Control, Setting, shows_reference
from sage_trl.models.prompt import question_messages
from sage_trl.records import FactSet, Inspection, Question
from sage_trl.storage import content_key, file_sha256


@dataclass(frozen=True)
class EvaluationQuestion:
    """One question as it is put to the model.

    `row` holds `images` [test image], `reference_image` or None, `facts`, `prompt` (chat messages without images and
    facts), `question`, `group_id` and `question_id`; images are paths, or PIL images where a control replaced them.
    `content` is what decides the reply, and so the key, beside the prompt.
    """

    inspection: Inspection
    question: Question
    row: Row
    content: Mapping[str, Any]

    @cached_property
    def key(self) -> str:
        """SHA-256 of all that decides the reply."""
        return content_key({**self.content, "prompt": self.row["prompt"]})

    def after(self, earlier: Sequence[tuple[str, str]]) -> EvaluationQuestion:
        """The same question after (question, reply) pairs of its group (eq. 10)."""
        return replace(self, row={**self.row, "prompt": question_messages(self.question.question, list(earlier))})


def build_questions(
    directory: AdPlDirectory,
    facts: Mapping[str, FactSet] | None,
    *,
    split: str,
    setting: Setting,
    control: Control | None = None,
    limit: int | None = None,
    seed: int = 0,
    identity: Mapping[str, Any],
) -> list[EvaluationQuestion]:
    """Build the questions of one split.

    Args:
        directory: the dataset.
        facts: by SHA-256 of the test image, or None for a model that takes none.
        split: which split.
        setting: whether the reference is shown. A conversation's questions are made as if each came first; see
            `EvaluationQuestion.after`.
        control: what to change about the rows.
        limit: the first so many groups only.
        seed: of the shuffling controls.
        identity: what else decides a reply and so belongs to the key (model, prompt, generation settings).

    Raises:
        DataError: the split has no group, no reference where the setting needs one, or a test image has no facts.
    """
    inspections = _select(directory, split, setting)[:limit]
    asked = [(inspection, question) for inspection in inspections for question in inspection.questions]
    hashes = _ImageHashes()
    rows = [_row(directory, facts, inspection, question, hashes) for inspection, question in asked]
    rows = apply_control(rows, control, seed)
    if not shows_reference(setting):
        rows = [{**row, "reference_image": None} for row in rows]
    identity = {**identity, "setting": setting, "split": split, "control": control}
    return [
        EvaluationQuestion(inspection, question, row, _content(row, identity, hashes))
        for (inspection, question), row in zip(asked, rows, strict=True)
    ]


def open_images(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with every image decoded; rows that share a file share the decoded image."""
    decode = cache(open_image)

    def opened(image: Path | Image.Image | None) -> Image.Image | None:
        return decode(image) if isinstance(image, Path) else image

    return [
        {**row, "images": [opened(image) for image in row["images"]], "reference_image": opened(row["reference_image"])}
        for row in rows
    ]


def _select(directory: AdPlDirectory, split: str, setting: Setting) -> tuple[Inspection, ...]:
    inspections = directory.select(splits=[split])
    if shows_reference(setting) and all(inspection.reference_image is None for inspection in inspections):
        raise DataError(f"split {split!r}: no group has a reference image\n  remedy: use --setting zero_shot")
    return inspections


def _row(
    directory: AdPlDirectory,
    facts: Mapping[str, FactSet] | None,
    inspection: Inspection,
    question: Question,
    hashes: _ImageHashes,
) -> Row:
    test_image = directory.image_path(inspection.test_image)
    reference = None if inspection.reference_image is None else directory.image_path(inspection.reference_image)
    return {
        "images": [test_image],
        "reference_image": reference,
        "facts": [] if facts is None else _facts_of(test_image, facts, hashes),
        "prompt": question_messages(question.question),
        "question": question.question,
        "group_id": inspection.id,
        "question_id": question.id,
    }


def _facts_of(test_image: Path, facts: Mapping[str, FactSet], hashes: _ImageHashes) -> list[str]:
    sha256 = hashes(test_image)
    if sha256 is None or sha256 not in facts:
        raise DataError(
            f"{test_image}: no facts for this test image\n"
            "  remedy: run tools/generate_facts.py on the dataset, or evaluate with --no-facts"
        )
    return list(facts[sha256].facts)


class _ImageHashes:
    """SHA-256 of images, each computed once: of a file's bytes, or of a PIL image's size and pixels."""

    def __init__(self) -> None:
        self._known: dict[Path | int, str] = {}

    def __call__(self, image: Path | Image.Image | None) -> str | None:
        if image is None:
            return None
        name = image if isinstance(image, Path) else id(image)
        if name not in self._known:
            self._known[name] = _file_hash(image) if isinstance(image, Path) else _pixel_hash(image)
        return self._known[name]


def _file_hash(path: Path) -> str:
    if not path.is_file():
        raise DataError.at(path, None, "no such image", "check image_root in dataset.json, or build the dataset again")
    return file_sha256(path)


def _pixel_hash(image: Image.Image) -> str:
    return content_key([image.mode, image.size, hashlib.sha256(image.tobytes()).hexdigest()])


def _content(row: Row, identity: Mapping[str, Any], hashes: _ImageHashes) -> dict[str, Any]:
    return {
        **identity,
        "group": row["group_id"],
        "question_id": row["question_id"],
        "images": [hashes(image) for image in row["images"]],
        "reference": hashes(row["reference_image"]),
        "facts": row["facts"],
    }
