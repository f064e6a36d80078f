"""`parse_choice` on replies as vision-language models write them."""

from __future__ import annotations

import pytest

from sage_trl.evaluation.choice_parsing import parse_choice

DEFECTS = {"A": "Scratch.", "B": "Missing hole", "C": "Stain", "D": "Surface scratch"}
YES_NO = {"A": "Yes.", "B": "No."}
CHINESE = {"A": "划痕", "B": "污渍"}

CASES = [
    ("A", DEFECTS, "A"),
    ("B.", DEFECTS, "B"),
    ("(C)", DEFECTS, "C"),
    ("b", DEFECTS, "B"),
    ("(d)", DEFECTS, "D"),
    ("c.", DEFECTS, "C"),
    ("**B**", DEFECTS, "B"),
    ("B: Missing hole", DEFECTS, "B"),
    ("B) Missing hole", DEFECTS, "B"),
    ("C. Stain", DEFECTS, "C"),
    ("D - the scratch lies on the surface", DEFECTS, "D"),
    ("Answer: C", DEFECTS, "C"),
    ("The answer is B.", DEFECTS, "B"),
    ("The correct answer is (D).", DEFECTS, "D"),
    ("The correct option is C because of the dark spot.", DEFECTS, "C"),
    ("I would choose B, since a hole is gone.", DEFECTS, "B"),
    ("Option A", DEFECTS, "A"),
    ("\\boxed{B}", DEFECTS, "B"),
    ("$\\boxed{C}$", DEFECTS, "C"),
    ("It is B.", DEFECTS, "B"),
    ("It is not A, but B.", DEFECTS, "B"),
    ("Not A. The answer is C.", DEFECTS, "C"),
    ("A is wrong, so the answer is B.", DEFECTS, "B"),
    ("A. Wait, the hole is gone. The answer is B.", DEFECTS, "B"),
    ("The answer is A. On second thought, the answer is C.", DEFECTS, "C"),
    ("<think>A or B?</think>B", DEFECTS, "B"),
    ("A: Scratch\nB: Missing hole\nC: Stain\nD: Surface scratch\nAnswer: B", DEFECTS, "B"),
    ("The image shows a stain.", DEFECTS, "C"),
    ("There is a missing hole near the centre.", DEFECTS, "B"),
    ("A scratch is visible.", DEFECTS, "A"),
    ("This is a surface scratch.", DEFECTS, "D"),
    ("It is a scratch, not a stain.", DEFECTS, "A"),
    ("It looked like a scratch at first. It is a stain.", DEFECTS, "C"),
    ("There is no stain, only a missing hole.", DEFECTS, "B"),
    ("missing hole", DEFECTS, "B"),
    ("Yes, there is a defect.", YES_NO, "A"),
    ("No, both agree.", YES_NO, "B"),
    ("No.", YES_NO, "B"),
    ("B. No.", YES_NO, "B"),
    ("A", YES_NO, "A"),
    ("答案是B。", CHINESE, "B"),
    ("选A", CHINESE, "A"),
    ("答案：B", CHINESE, "B"),
    ("A和B", CHINESE, None),
    ("A and B", DEFECTS, None),
    ("A, B", DEFECTS, None),
    ("E", DEFECTS, None),
    ("The answer is E.", DEFECTS, None),
    ("Neither A nor B. C", DEFECTS, "C"),
    ("Option B is incorrect; option C is right.", DEFECTS, "C"),
    ("A. Scratch\n\nExplanation: B and C do not fit.", DEFECTS, "A"),
    ("The correct answer is:\n\nB. Missing hole", DEFECTS, "B"),
    ("The answer is not A.", DEFECTS, None),
    ("", DEFECTS, None),
    ("I cannot tell.", DEFECTS, None),
    ("A: Scratch\nB: Missing hole\nC: Stain\nD: Surface scratch", DEFECTS, None),
    ("A stain and a missing hole are visible.", DEFECTS, None),
    ("It is not a stain.", DEFECTS, None),
    ("No stain is visible.", YES_NO, None),
    ("A dent is visible.", DEFECTS, None),
]


@pytest.mark.parametrize(("reply", "options", "expected"), CASES, ids=[case[0] for case in CASES])
def test_choice(reply: str, options: dict[str, str], expected: str | None) -> None:
    assert parse_choice(reply, options) == expected
