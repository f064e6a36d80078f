"""A small AD-PL directory on disk: five groups of two questions."""

from __future__ import annotations

import hashlib
from pathlib import Path

from PIL import Image

from sage_trl.storage import file_sha256, read_json, write_json, write_jsonl

LEVELS = ["standard_comparison", "defect_identification", "defect_diagnosis", "defect_diagnosis"]


def write_small_ad_pl(root: Path) -> Path:
    """Write the directory, with facts: g0 to g3 of split `test`, g3 without a reference, and g4 of split `unseen`."""
    (root / "images").mkdir(parents=True)
    write_jsonl(root / "ad_pl.jsonl", (_group(root, number) for number in range(5)))
    write_json(
        root / "dataset.json",
        {
            "name": "small",
            "licence": "CC0",
            "sources": {"synthetic": "CC0"},
            "image_root": ".",
            "seed": 0,
            "splits": {"test": 4, "unseen": 1},
            "sha256": hashlib.sha256((root / "ad_pl.jsonl").read_bytes()).hexdigest(),
            "version": 1,
        },
    )
    write_jsonl(
        root / "facts.jsonl",
        (
            {
                "test_image_sha256": file_sha256(root / f"images/{number}_test.png"),
                "facts": [f"Parts of kind {number} get scratched.", "They get stained."],
                "model": "template",
                "prompt_version": "1",
            }
            for number in range(5)
        ),
    )
    return root


def move_images_out(root: Path, to: str) -> Path:
    """Move the images to the folder `to` of the directory's parent, as sources leave them in place; returns it."""
    place = root.parent / to
    place.mkdir(parents=True)
    (root / "images").rename(place / "images")
    write_json(root / "dataset.json", read_json(root / "dataset.json") | {"image_root": f"../{to}"})
    return place


def _group(root: Path, number: int) -> dict[str, object]:
    Image.new("RGB", (16, 16), (40 * number, 10, 10)).save(root / f"images/{number}_test.png")
    Image.new("RGB", (16, 16), (10, 40 * number, 10)).save(root / f"images/{number}_reference.png")
    questions = [("q1", "Is the part scratched?", True), ("q2", "Does the part look as good as it should?", False)]
    defect = {"type": "scratch", "box": [0.1, 0.1, 0.3, 0.3]}
    return {
        "id": f"g{number}",
        "dataset": "synthetic",
        "category": "plate",
        "split": "unseen" if number == 4 else "test",
        "level": LEVELS[number % 4],
        "test_image": f"images/{number}_test.png",
        "reference_image": None if number == 3 else f"images/{number}_reference.png",
        "defects": [defect],
        "questions": [
            {"id": name, "question": text, "verdict": verdict, "answers": _answers(verdict)}
            for name, text, verdict in questions
        ],
    }


def _answers(verdict: bool) -> list[str]:
    right, wrong = ("Yes", "No") if verdict else ("No", "Yes")
    return [f"{right}, scratch at the top left.", f"{right}, a scratch.", f"{right}, a stain.", f"{wrong}, fine."]
