"""MMAD's numbers by hand, with and without the faults of its script, and through the harness."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sage_trl.data.building import build_dataset
from sage_trl.data.dataset import read_ad_pl
from sage_trl.data.sources import SourceOptions, open_source
from sage_trl.evaluation.harness import EvaluationRun, measure
from sage_trl.evaluation.mmad import MmadAnswer, mmad_figures, read_letter
from sage_trl.evaluation.report import mmad_table
from tests.data.sources.trees import grow
from tests.evaluation.test_harness import Scripted, model

DETECTION, LOCALIZATION, ANALYSIS = "Anomaly Detection", "Defect Localization", "Object Analysis"
YES_NO = {"A": "Yes.", "B": "No."}
PLACES = {"A": "At the top.", "B": "At the bottom.", "C": "On the left.", "D": "On the right."}


def answer(kind: str, choice: str, reply: str, image: str = "D1/bottle/image/broken/0.png", **other: Any) -> MmadAnswer:
    options = YES_NO if kind == DETECTION else PLACES
    fields = {"dataset": image.split("/")[0], "unit": image, "is_normal": "/good/" in image, "options": options}
    return MmadAnswer(**{**fields, "image": image, "type": kind, "choice": choice, "reply": reply, **other})


ANSWERS = [
    # D1: both kinds of image, all types. Normal 1 of 1, defective 1 of 2.
    answer(DETECTION, "B", "B", "D1/bottle/image/good/0.png"),
    answer(DETECTION, "A", "A. Yes."),
    answer(DETECTION, "A", "B", "D1/bottle/image/broken/1.png"),
    answer(LOCALIZATION, "C", "C"),
    answer(LOCALIZATION, "C", "D", "D1/bottle/image/broken/1.png"),
    answer("Object Structure", "A", "A"),
    answer("Object Details", "A", "B"),
    # D2: one defective image, detection only.
    answer(DETECTION, "A", "A", "D2/can/test/dent/0.png"),
]


def test_corrected_figures_by_hand() -> None:
    found = mmad_figures(ANSWERS, "corrected")

    assert found is not None
    assert found.by_dataset["D1"] == {
        DETECTION: pytest.approx((1 / 1 + 1 / 2) / 2),
        LOCALIZATION: 0.5,
        ANALYSIS: 0.5,
        "average": pytest.approx((0.75 + 0.5 + 0.5) / 3),
    }
    assert found.by_dataset["D2"] == {DETECTION: 1.0, "average": 1.0}
    assert found.accuracy_by_type == {DETECTION: pytest.approx((0.75 + 1) / 2), LOCALIZATION: 0.5, ANALYSIS: 0.5}
    assert found.average == pytest.approx((1.75 / 3 + 1) / 2)
    assert (found.questions, found.left_out) == (8, 0)
    # All of Object Analysis is on one of the four images, which is too few to say how images vary.
    assert set(found.intervals) == {DETECTION, LOCALIZATION, "average"}


def test_original_figures_by_hand() -> None:
    found = mmad_figures(ANSWERS, "original")

    assert found is not None
    # D2 has no normal image and none of the other types: each counts as accuracy 0.
    assert found.by_dataset["D2"] == {
        DETECTION: pytest.approx((0 + 1) / 2),
        LOCALIZATION: 0.0,
        ANALYSIS: 0.0,
        "average": pytest.approx(0.5 / 3),
    }
    assert found.accuracy_by_type == {
        DETECTION: pytest.approx((0.75 + 0.5) / 2),
        LOCALIZATION: pytest.approx((0.5 + 0) / 2),
        ANALYSIS: pytest.approx((0.5 + 0) / 2),
    }
    assert found.average == pytest.approx((1.75 / 3 + 0.5 / 3) / 2)


def test_the_answer_after_one_that_cannot_be_counted_is_lost() -> None:
    six = {**PLACES, "E": "In the middle.", "F": "Nowhere."}
    unread = answer(LOCALIZATION, "F", "F", options=six)
    right = answer(LOCALIZATION, "C", "C")

    original = mmad_figures([unread, right, right, unread, unread, right], "original")
    corrected = mmad_figures([unread, right, right, unread, unread, right], "corrected")

    # Lost are the first, the one after it, the fourth and the fifth: the last is counted again.
    assert original is not None and corrected is not None
    assert (original.questions, original.left_out) == (2, 4)
    assert (corrected.questions, corrected.left_out, corrected.average) == (6, 0, 1.0)


def test_an_unreadable_reply_is_wrong_and_not_the_option_most_alike() -> None:
    asked = [answer(LOCALIZATION, "C", "somewhere on the leftmost side")]

    original, corrected = mmad_figures(asked, "original"), mmad_figures(asked, "corrected")

    assert original is not None and corrected is not None
    assert (original.average, corrected.average) == (1.0, 0.0)


def test_normal_is_said_by_the_ground_truth_and_not_by_the_path() -> None:
    asked = [
        answer(DETECTION, "A", "A", "D1/goodyear_tyre/image/cut/0.png"),
        answer(DETECTION, "A", "B", "D1/bottle/image/cut/0.png"),
    ]

    original, corrected = mmad_figures(asked, "original"), mmad_figures(asked, "corrected")

    assert original is not None and corrected is not None
    # By the path: normal 1 of 1, defective 0 of 1.
    assert (original.average, corrected.average) == (0.5, 0.5)
    assert mmad_figures(asked[:1], "corrected").average == 1.0  # type: ignore[union-attr]
    assert mmad_figures(asked[:1], "original").average == 0.5  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("reply", "letter"),
    [("B", "B"), ("The answer is B, not C.", "C"), ("A dent is on the left.", "A"), ("left", "C"), ("bottom", "B")],
)
def test_letters_as_the_script_reads_them(reply: str, letter: str) -> None:
    assert read_letter(reply, PLACES) == letter


@pytest.mark.parametrize("reply", ["", "F", "I cannot tell."])
def test_the_script_always_reads_a_letter(reply: str) -> None:
    assert read_letter(reply, PLACES) in PLACES


def test_nothing_asked_has_no_table() -> None:
    assert mmad_figures([], "corrected") is None
    assert mmad_table({"m": {"one_shot": {"mmad": None}, "zero_shot": {}}}) is None


def test_through_the_harness(tmp_path: Path) -> None:
    tree = grow("mmad", tmp_path / "root")
    build_dataset(open_source("mmad"), SourceOptions(root=tree.root), tmp_path / "ad_pl")
    run = EvaluationRun(directory=read_ad_pl(tmp_path / "ad_pl"), output=tmp_path / "out", quiet=True)
    generator = Scripted(lambda row: "Yes, it is broken." if "any defect" in row["question"] else "C. On the left.")

    [measured] = measure(model(generator), "one_shot", ["test"], run).values()

    # Eight images, two of them good, a question on a defect and one on its place for each.
    metrics = measured.metrics
    assert (metrics.questions, metrics.open, metrics.unreadable) == (16, 0, 0)
    assert metrics.accuracy == pytest.approx(14 / 16)
    assert metrics.balanced_accuracy == 0.5
    assert metrics.majority_accuracy == pytest.approx(14 / 16)
    assert {row.predicted_choice for row in measured.predictions} == {"A", "C"}
    assert {(row.predicted_verdict, row.verdict is None) for row in measured.predictions} == {
        (True, False),
        (None, True),
    }
    assert metrics.mmad is not None
    corrected = metrics.mmad["corrected"]
    assert corrected is not None
    assert corrected.by_dataset == {"DS-MVTec": {DETECTION: 0.5, LOCALIZATION: 1.0, "average": 0.75}}
    prompts = {row["prompt"][-1]["content"].splitlines()[-1] for row in generator.rows}
    assert prompts == {
        "Answer Yes or No first, then give the reason.",
        "Answer with the letter of the right option first, then give the reason.",
    }
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(mmad_table({"m": {"one_shot": metrics.as_json()}}))
    assert [line.count("75.0") for line in console.export_text().splitlines() if "corrected" in line] == [1]
