"""What the fake server writes when it is asked for captions, question templates, ranked answers or facts."""

from __future__ import annotations

import re
from typing import Any

AUTHORED = ("captions", "templates", "answers", "facts")
WORDS = " {words}"
GAPS = {"defective": "", "good": "", "type": WORDS, "place": " {where}", "cause": WORDS, "consequence": WORDS}
_ASKED = re.compile(r"^\d+\. (.+) \(verdict: (Yes|No)\)$", re.MULTILINE)


def authored_reply(body: dict[str, Any], schema: str, fault: str | None, says: str) -> dict[str, Any]:
    """A valid reply, or with a fault that only a look at its content finds.

    `says`: `contradict` always states the wrong verdict of the first question, `contradict defective` that of
    defective parts; `bad templates` names an unknown gap, `no facts` writes none.
    """
    content = body["messages"][-1]["content"]
    text = content if isinstance(content, str) else content[-1]["text"]
    if fault == "wrong schema":
        return {"rationale": "x"}
    if schema.startswith("captions"):
        return {"test": "A grey part." if fault != "score 0" else " ", "reference": "A good one.", "differences": ""}
    if schema.startswith("facts"):
        if says == "no facts":
            return {"sentences": []}
        topic = re.sub(r"\W+", " ", text)[:20].strip()
        return {"sentences": [f"{number} is a true fact on {topic} of this part." for number in (1, 2, 3, 4, 5, 6)]}
    if schema.startswith("templates"):
        kinds = body["response_format"]["json_schema"]["schema"]["properties"]
        hole = " {colour}" if says == "bad templates" else ""
        return {kind: [f"Is {kind} {n} of {{part}}{GAPS[kind]}{hole}?" for n in "abcd"] for kind in kinds}
    questions = [_answer_set(question, verdict) for question, verdict in _ASKED.findall(text)]
    if says == "contradict defective" and "has no defect" in text:
        says = ""
    _spoil(questions, fault, says)
    return {"questions": questions}


def _answer_set(question: str, verdict: str) -> dict[str, Any]:
    other = "No" if verdict == "Yes" else "Yes"
    openings = (verdict, verdict, verdict, other)
    answers = [f"{opening}, because sign {number} is there." for number, opening in enumerate(openings)]
    return {"question": question, "verdict": verdict, "answers": answers}


def _spoil(questions: list[dict[str, Any]], fault: str | None, says: str) -> None:
    """Faults of answer sets that every schema lets pass."""
    if fault == "score 0":
        questions[1]["answers"][2] = questions[1]["answers"][1].upper()
    elif fault == "score 6":
        del questions[0]
    elif fault == "score 4.5" or says.startswith("contradict"):
        wrong = "No" if questions[0]["verdict"] == "Yes" else "Yes"
        questions[0] = _answer_set(questions[0]["question"], wrong)  # consistent in itself
