"""Multiple-choice questions under the check: the best answer must be the right option, and say the verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sage_trl.data.checks.answers import answer_faults, stated_option
from sage_trl.records import Inspection

OPTIONS = {"A": "A scratch.", "B": "Rust", "C": "+5%", "D": "-5%"}
SHOWN = "What is it?\nA. A scratch.\nB. Rust\nC. +5%\nD. -5%"
YES_NO = {"A": "Yes.", "B": "No."}


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("A. A scratch.", "A"),
        ("B", "B"),
        ("(B) Rust", "B"),
        ("B: because the surface is brown", "B"),
        ("a  SCRATCH", "A"),
        ("A scratch.", "A"),
        ("-5%", "D"),
        ("B. A scratch.", None),
        ("E. Rust and dirt", None),
        ("A rusty part", None),
    ],
)
def test_the_option_of_an_answer(answer: str, letter: str | None) -> None:
    assert stated_option(answer, OPTIONS) == letter


def found(**question: Any) -> list[tuple[str, str, str]]:
    """Severity, field and problem of each finding on one question."""
    row = Inspection.model_validate(
        {
            "id": "a",
            "dataset": "a",
            "category": "plate",
            "split": "train",
            "level": "defect_diagnosis",
            "test_image": "1.png",
            "reference_image": None,
            "defects": [],
            "questions": [{"id": "q1", "question": SHOWN, "verdict": None, **question}],
        }
    )
    faults = list(answer_faults(row, Path("ad_pl.jsonl"), 7))
    assert all(fault.kind == "choice" and fault.line == 7 and fault.remedy for fault in faults)
    return [(fault.severity, str(fault.field).removeprefix("questions.0."), fault.problem) for fault in faults]


def test_sound_questions_have_no_finding() -> None:
    assert found(options=OPTIONS, choice="B", answers=["B. Rust", "A. A scratch."]) == []
    assert found(options=OPTIONS, choice="D", answers=["-5%", "+5%"]) == []
    assert found(question="Is it?", options=YES_NO, choice="B", verdict=False, answers=["No.", "Yes."]) == []
    assert found(question="What is it?", answers=["Rust", "Dirt"]) == []


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        (
            {"options": OPTIONS, "choice": "B", "answers": ["A. A scratch.", "B. Rust"]},
            ("error", "answers.0", "the best answer is option A, but the right one is B"),
        ),
        (
            {"options": OPTIONS, "choice": "B", "answers": ["It is old.", "B. Rust"]},
            ("warning", "answers.0", "the best answer gives no option"),
        ),
        (
            {"question": "What is it?\nA. A scratch.", "options": OPTIONS, "choice": "B", "answers": ["B", "C"]},
            ("warning", "question", "the text of option B, C, D does not stand in the question"),
        ),
        (
            {"options": {**OPTIONS, "D": "rust."}, "choice": "A", "answers": ["A", "B"]},
            ("error", "options", "two options say the same"),
        ),
        (
            {"question": "Is it?", "options": YES_NO, "choice": "A", "verdict": False, "answers": ["No.", "Yes."]},
            ("error", "choice", "the right option, A, does not say no, which is the verdict"),
        ),
        (
            {"options": OPTIONS, "choice": "B", "verdict": True, "answers": ["Yes, B. Rust", "No."]},
            ("error", "choice", "the right option, B, does not say yes, which is the verdict"),
        ),
    ],
)
def test_faults_of_a_question(question: dict[str, Any], expected: tuple[str, str, str]) -> None:
    assert found(**question) == [expected]
