"""An AD-PL directory of any size for the judge: five questions with four answers per group, one picture for all."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from sage_trl.data.dataset import DatasetInfo, write_ad_pl
from sage_trl.records import Defect, Inspection, Question


def write_judged_ad_pl(root: Path, groups: int) -> Path:
    """Write `groups` groups, 20 judgements each."""
    root.mkdir(parents=True)
    Image.new("RGB", (16, 16), (90, 10, 10)).save(root / "part.png")
    Image.new("RGB", (16, 16), (90, 90, 90)).save(root / "good.png")
    rows = [_group(number) for number in range(groups)]
    info = DatasetInfo(name="j", licence="CC0", sources={"s": "CC0"}, seed=0, splits={}, sha256="0" * 64)
    write_ad_pl(root, rows, info)
    return root


def _group(number: int) -> Inspection:
    questions = tuple(
        Question(
            id=f"q{index}",
            question=f"Is plate {number} scratched, seen from side {index}?",
            verdict=True,
            answers=tuple(f"Yes, answer {rank} to {number}." for rank in range(4)),
        )
        for index in range(5)
    )
    return Inspection(
        id=f"g{number:05}",
        dataset="s",
        category="plate",
        split="train" if number % 2 else "test",
        level="defect_identification",
        test_image="part.png",
        reference_image="good.png",
        defects=(Defect(type="scratch", box=(0.1, 0.1, 0.3, 0.3)),),
        questions=questions,
    )
