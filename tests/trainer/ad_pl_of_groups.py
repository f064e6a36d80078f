"""An AD-PL directory whose groups have unequal numbers of questions, with facts and scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sage_trl.storage import file_sha256, write_json, write_jsonl
from tests.conftest import picture

QUESTIONS = (
    "Is there a scratch on this plate?",
    "Does the plate match the reference?",
    "Is there a stain on this plate, or a dent?",
    "Where is the scratch?",
    "Why is there a scratch?",
)
ANSWERS = ("Yes, a scratch on the left{}.", "Yes, a scratch{}.", "Yes, a stain{}.", "No, it is fine{}.")
SCORES = ((5, 5, 4), (4, 3, 4), (3, 2, 2), (1, 1, 1))


def write_groups(root: Path, questions: dict[str, Sequence[int]]) -> Path:
    """Write the directory.

    Args:
        root: the directory.
        questions: split -> the number of questions of each group; every third group has no reference.
    """
    (root / "images").mkdir(parents=True)
    groups, facts, scores = [], [], []
    for split, counts in questions.items():
        for count in counts:
            number = len(groups)
            for seed, kind in ((number, "test"), (100 + number, "reference")):
                picture(seed).save(root / f"images/{number}_{kind}.png")
            groups.append(_group(number, split, count))
            facts.append(
                {
                    "test_image_sha256": file_sha256(root / f"images/{number}_test.png"),
                    "facts": [f"Plate {number} can have a scratch.", "It can be stained."],
                    "model": "template",
                    "prompt_version": "1",
                }
            )
            scores += [
                {
                    "group_id": f"g{number}",
                    "question_id": f"q{index}",
                    "answer_index": answer,
                    **dict(zip(("type", "location", "logic"), of_answer, strict=True)),
                    "mle": sum(of_answer) / 3,
                    "judge": "by hand",
                }
                for index in range(count)
                for answer, of_answer in enumerate(SCORES)
            ]
    write_jsonl(root / "ad_pl.jsonl", groups)
    write_jsonl(root / "facts.jsonl", facts)
    write_jsonl(root / "scores.jsonl", scores)
    write_json(
        root / "dataset.json",
        {
            "name": "groups",
            "licence": "CC0",
            "sources": {"synthetic": "CC0"},
            "image_root": ".",
            "seed": 0,
            "splits": {split: len(counts) for split, counts in questions.items()},
            "sha256": file_sha256(root / "ad_pl.jsonl"),
            "version": 1,
        },
    )
    return root


def _group(number: int, split: str, count: int) -> dict[str, object]:
    return {
        "id": f"g{number}",
        "dataset": "synthetic",
        "category": "plate",
        "split": split,
        "level": "defect_identification",
        "test_image": f"images/{number}_test.png",
        "reference_image": None if number % 3 == 2 else f"images/{number}_reference.png",
        "defects": [{"type": "scratch", "box": [0.1, 0.1, 0.3, 0.3]}],
        "questions": [
            {
                "id": f"q{index}",
                "question": QUESTIONS[index],
                "verdict": True,
                "answers": [answer.format(" here" * index) for answer in ANSWERS],
            }
            for index in range(count)
        ],
    }
