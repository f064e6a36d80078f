"""Statistics of a dataset, counted by hand, and through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from sage_trl.data.statistics import compute_statistics, count_words
from sage_trl.records import Inspection
from tests.evaluation.small_ad_pl import write_small_ad_pl
from tests.tools.test_build_dataset import run


def inspection(name: str, image: str, level: str, defects: list[str], verdicts: list[bool | None]) -> Inspection:
    return Inspection.model_validate(
        {
            "id": name,
            "dataset": name[0],
            "category": "plate",
            "split": "train",
            "level": level,
            "test_image": image,
            "reference_image": "good.png",
            "defects": [{"type": kind, "box": [0.1, 0.1, 0.2, 0.2]} for kind in defects],
            "questions": [
                {"id": f"q{number}", "question": "Is it so?", "verdict": verdict, "answers": ["Yes, it is.", "No."]}
                for number, verdict in enumerate(verdicts)
            ],
        }
    )


def test_counts_and_lengths():
    statistics = compute_statistics(
        [
            inspection("a1", "1.png", "defect_diagnosis", ["scratch", "stain"], [True, None]),
            inspection("a2", "1.png", "standard_comparison", ["scratch", "stain"], [True]),
            inspection("b1", "2.png", "standard_comparison", [], [False, False, True]),
        ]
    )
    total = statistics.total
    assert (total.groups, total.images, total.normal_images, total.anomalous_images) == (3, 2, 1, 1)
    assert (total.questions, total.answers, total.yes, total.no, total.open) == (6, 12, 3, 2, 1)
    assert list(statistics.by["level"]) == ["standard_comparison", "defect_diagnosis"]
    comparison = statistics.by["level"]["standard_comparison"]
    assert (comparison.groups, comparison.images, comparison.questions, comparison.no) == (2, 2, 4, 2)
    assert {name: counts.questions for name, counts in statistics.by["source"].items()} == {"a": 3, "b": 3}
    # The image's two defects count once, although two groups show it.
    assert statistics.defect_types == {"scratch": 1, "stain": 1}
    lengths = statistics.lengths["all answers"]
    assert (lengths.texts, lengths.shortest, lengths.longest, lengths.mean) == (12, 1, 3, 2.0)
    assert lengths.histogram == {1: 6, 3: 6}


def test_multiple_choice_questions_are_not_open():
    row = inspection("a1", "1.png", "defect_diagnosis", ["scratch"], [True, None, None])
    lettered = {"options": {"A": "Rust", "B": "Dirt"}, "choice": "B"}
    told = {"options": {"A": "Yes", "B": "No"}, "choice": "A"}
    questions = [
        question.model_copy(update=more) for question, more in zip(row.questions, (told, lettered, {}), strict=True)
    ]
    total = compute_statistics([row.model_copy(update={"questions": tuple(questions)})]).total
    assert (total.questions, total.yes, total.no, total.choice, total.open) == (3, 1, 0, 1, 1)


@pytest.mark.parametrize(
    ("text", "words"), [("Is it so?", 3), ("是，有划痕", 4), ("有a scratch。", 3), ("a - b", 2), ("", 0)]
)
def test_chinese_counts_by_character(text, words):
    assert count_words(text) == words


def test_the_command_prints_and_plots(tmp_path: Path):
    root = write_small_ad_pl(tmp_path / "ad_pl")
    before = {path.name: path.read_bytes() for path in root.iterdir() if path.is_file()}
    result = run("build_dataset.py", "--stats", root, "--output", tmp_path / "figures")
    assert result.returncode == 0, result.stderr
    assert "defect_identification" in result.stdout and "defects: scratch 5" in result.stdout
    figures = json.loads((tmp_path / "figures" / "statistics.json").read_text())
    assert figures["total"]["questions"] == 10 and figures["by"]["split"]["unseen"]["groups"] == 1
    with Image.open(tmp_path / "figures" / "statistics.png") as plot:
        assert plot.width > 1000 and len(plot.convert("RGB").getcolors(1 << 24)) > 10
    assert {path.name: path.read_bytes() for path in root.iterdir() if path.is_file()} == before
    assert run("build_dataset.py", "--stats", root, "--quiet").stdout == ""
    assert (root / "statistics.png").is_file()
    missing = run("build_dataset.py", "--stats", tmp_path / "nothing")
    assert missing.returncode == 2 and "no such dataset" in missing.stderr
