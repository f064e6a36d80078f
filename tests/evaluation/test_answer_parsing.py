"""`parse_verdict` and `read_reply` on replies as vision-language models write them."""

from __future__ import annotations

import pytest

from sage_trl.evaluation.answer_parsing import parse_verdict, read_reply

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
    "True",
    "True. The pin is bent.",
    "**True**",
    "The statement is true.",
    "It is true that the lid is dented.",
    "That is correct, the seal is torn.",
    "Correct. The cap sits askew.",
    "Absolutely, the weave is broken.",
    "Indeed, one screw is missing.",
    "It does.",
    "There is.",
    "So yes, there is a defect.",
    "Yes, it was scratched. It is.",
    "Yes, a pin is bent. Not at all, on the other hand, is the frame.",
    "No, it is fine. Final answer: yes",
    "No. Wait, the lower edge is chipped. Yes.",
    "False at first sight. On closer inspection, yes, a hair crack.",
    "The answer is not no. The answer is yes.",
    "是",
    "是的，图中有划痕。",
    "是。左上角有污渍。",
    "有，右下角缺少一个引脚。",
    "存在。表面有凹痕。",
    "对，焊点短路。",
    "答案是：是",
    "答案：是的。",
    "答案是肯定的，因为孔缺失。",
    "正确",
    "与参考图相比，缺了一个孔，所以答案是是的。",
    "**是的**，该零件有缺陷。",
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
    "False",
    "False. The hole is where it should be.",
    "The statement is false.",
    "The statement is not true.",
    "That's not correct, the edge is straight.",
    "It is not true that the cable is cut.",
    "It is false that a pin is missing.",
    "Incorrect. Both parts agree.",
    "Not at all, it looks new.",
    "Definitely not.",
    "Absolutely not, the print is whole.",
    "It isn't.",
    "It does not.",
    "There are not.",
    "The answer is not yes.",
    "Yes. No.",
    "Yes, it is damaged. So the answer is no.",
    "Yes, at first it seemed scratched. But it is only a reflection: no.",
    "Therefore no, it is intact.",
    "No. True, the light differs, but the part is fine.",
    "No, it is fine. Correct.",
    "否",
    "否，两张图片一致。",
    "不是，表面没有划痕。",
    "没有。零件完好。",
    "没有，和参考图一样。",
    "不存在。",
    "不，这只是反光。",
    "答案是否。",
    "答案为：否",
    "答案是否定的。",
    "错误",
    "是的，看起来像划痕。仔细看后：不是。",
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
    "True or false?",
    "True colours cannot be judged in this light.",
    "False positives are common here.",
    "Correct alignment matters for this part.",
    "Right edge is out of the frame.",
    "It is hard to say.",
    "没有划痕。",
    "有划痕。",
    "是否有缺陷?",
    "是或否",
    "无法判断。",
    "不确定。",
    "是/否",
    "Without a reference this cannot be answered.",
    "Both images show the same board.",
    "There are five holes in the reference and four in the test image.",
    "Nowhere near enough detail.",
    "The trace narrows, which is not typical.",
    "Not true colours, but close.",
    "no yes no yes",
    "Sí o no",
]
REASONS = {
    "Yes, a scratch at the top left.": (True, "a scratch at the top left."),
    "No. Both images agree.": (False, "Both images agree."),
    "**Answer:** Yes\n\nThe hole is missing.": (True, "The hole is missing."),
    "是的，左上角有污渍。": (True, "左上角有污渍."),
    "A pin is missing. Yes.": (True, "A pin is missing. Yes."),
    "<think>No?</think>Yes: a spur.": (True, "a spur."),
    "No scratch is visible.": (None, "No scratch is visible."),
    "Yes": (True, ""),
    "": (None, ""),
}


@pytest.mark.parametrize("reply", YES)
def test_yes(reply: str) -> None:
    assert parse_verdict(reply) is True


@pytest.mark.parametrize("reply", NO)
def test_no(reply: str) -> None:
    assert parse_verdict(reply) is False


@pytest.mark.parametrize("reply", UNREADABLE)
def test_unreadable(reply: str) -> None:
    assert parse_verdict(reply) is None


@pytest.mark.parametrize("reply", REASONS)
def test_verdict_and_reason_apart(reply: str) -> None:
    assert read_reply(reply) == REASONS[reply]


def test_the_table_is_as_long_as_promised_and_holds_no_reply_twice() -> None:
    replies = [*YES, *NO, *UNREADABLE]

    assert len(set(replies)) == len(replies) >= 150
