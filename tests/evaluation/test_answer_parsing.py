"""`parse_verdict` on replies as vision-language models write them."""

from __future__ import annotations

import pytest

from sage_trl.evaluation.answer_parsing import parse_verdict

YES = [
    "Yes",
    "yes.",
    "YES!",
    " Yes, there is a short between the two traces near the centre.",
    "Yes. There is a scratch. No other defects are visible.",
    "**Yes**, the test image shows a stain at the top left.",
    "**Answer:** Yes\n\nThe hole in the middle is missing.",
    '"Yes," the capsule is dented.',
    "'Yes'",
    "Yes the plate is scratched",
    "Yes - a mouse bite is visible.",
    "Yes—the connector lacks a pin.",
    "Answer: yes",
    "Assistant: Yes, it is.",
    "The answer is yes.",
    "The correct answer is **Yes**, because the trace is open.",
    "The answer to the question is yes, the part is damaged.",
    "Final answer: Yes.",
    "I would say yes, the cable is bent.",
    "Is there a defect? Yes, a stain.",
    "Compared with the reference, one hole is missing. Yes, the part is defective.",
    "Well, yes, it deviates from the reference.",
    '{"answer": "yes", "reason": "a scratch"}',
    "\\boxed{Yes}",
    "<think>No, wait. The reference has five holes.</think>Yes, a hole is missing.",
    "1. Yes, there is.",
    "- Yes",
    "Yes, there is no pin at the lower right.",
    "Yes: the copper spur reaches the next trace.",
    "Answer Yes or No first, then give the reason. Yes, a spur is present.",
    "Yeah, there is a dent.",
    "Yes, no hole is missing and the surface is clean.",
]
NO = [
    "No",
    "no,",
    "NO.",
    "No, the surface is clean and matches the reference.",
    "No. Nothing deviates.",
    "**No.** Both images agree.",
    "*No*",
    "“No”, it does not.",
    "No there is nothing wrong with it",
    "No the part is intact",
    "No\nThe part matches the reference.",
    "The answer is no.",
    "The answer is: No.",
    "The answer would be no, since the edges agree.",
    "Verdict: no",
    "I'd answer no.",
    "Looking at both images, no, there is no difference.",
    "Both images show four pins. No, nothing is missing.",
    "Nope, it is fine.",
    "No; the shift comes from the camera.",
    "No – the line is only a reflection.",
    "Answer: No, connector No. 3 is in its place.",
    "No, you cannot say yes to that from one image.",
]
UNREADABLE = [
    "",
    "   \n",
    "The part shows a scratch near the left edge.",
    "No scratch is visible.",
    "No defects are visible in the image.",
    "No. 3 pin is bent.",
    "Yes and no, it depends on the lighting.",
    "Yes or no?",
    "Yes. No.",
    "Yes, it is damaged. So the answer is no.",
    "No, it is fine. Final answer: yes",
    "Nothing is wrong.",
    "Not sure.",
    "None",
    "Noticeable wear at the rim.",
    "Yesterday's image looked the same.",
    "I cannot tell from this image.",
    "The answer is not clear.",
    "<think>Yes, it must be",
    "yes no yes no",
    "?????",
    "The answer is no different from before.",
]


@pytest.mark.parametrize("reply", YES)
def test_yes(reply: str) -> None:
    assert parse_verdict(reply) is True


@pytest.mark.parametrize("reply", NO)
def test_no(reply: str) -> None:
    assert parse_verdict(reply) is False


@pytest.mark.parametrize("reply", UNREADABLE)
def test_unreadable(reply: str) -> None:
    assert parse_verdict(reply) is None
