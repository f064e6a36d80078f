"""Reads and checks what a language model writes: exactly what was asked for, or `UnreadableError`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from sage_trl.data.authoring.model_prompts import ANSWERS, CAPTION_FIELDS, KINDS, TEMPLATES_PER_KIND, VERSION
from sage_trl.data.authoring.questions import Asked, Template
from sage_trl.data.authoring.scenes import Scene
from sage_trl.data.checks.answers import find_placeholder
from sage_trl.lexicon import place_score, read_sentence, read_verdict
from sage_trl.lexicon.places import WRONG
from sage_trl.llm_client.replies import UnreadableError, read_json

CAPTION_PARSER = f"captions-{VERSION}"
TEMPLATE_PARSER = f"templates-{VERSION}"
ANSWER_PARSER = f"answers-{VERSION}"
_GAP = re.compile(r"\{[^{}]*\}|[{}]")


def parse_captions(reply: str) -> dict[str, str]:
    """The captions of a pair.

    Raises:
        UnreadableError: other fields, or no caption of the part under inspection.
    """
    value = _fields(read_json(reply), CAPTION_FIELDS)
    return {name: _text(value[name], name, may_be_empty=name != "test") for name in CAPTION_FIELDS}


def parse_templates(reply: str) -> dict[str, list[str]]:
    """Question templates by kind.

    Raises:
        UnreadableError: a kind without enough different questions, or a gap that nothing fills.
    """
    value = read_json(reply)
    if not isinstance(value, dict) or not value or not set(value) <= set(KINDS):
        raise UnreadableError(f"not fields out of {', '.join(KINDS)}")
    return {kind: _templates(kind, texts) for kind, texts in value.items()}


def _templates(kind: str, texts: Any) -> list[str]:
    if not isinstance(texts, list):
        raise UnreadableError(f"{kind} is no list")
    read = [_text(text, kind) for text in texts]
    if len(read) != TEMPLATES_PER_KIND or len(set(read)) != len(read):
        raise UnreadableError(f"{kind} are not {TEMPLATES_PER_KIND} different templates")
    gap = KINDS[kind][2]
    for text in read:
        gaps = [found for found in _GAP.findall(text) if found != "{part}"]
        if gaps != ([] if gap is None else [gap]):
            raise UnreadableError(f"{kind}: the gaps of {text!r} are not {{part}} and {gap}")
        if not text.endswith("?"):
            raise UnreadableError(f"{kind}: {text!r} is no question")
    return read


def to_templates(value: dict[str, list[str]]) -> tuple[Template, ...]:
    """The templates of a level that was read."""
    return tuple(Template(KINDS[kind][0], KINDS[kind][1], text) for kind, texts in value.items() for text in texts)


def check_kinds(value: dict[str, Any], kinds: Sequence[str]) -> None:
    """See that each kind of a level is there, and no other.

    Raises:
        UnreadableError: it is not so.
    """
    if set(value) != set(kinds):
        raise UnreadableError(f"not the fields {', '.join(kinds)}")


def parse_answers(reply: str) -> list[dict[str, Any]]:
    """Questions with their verdicts and four ranked answers.

    Returns:
        One object for each question: `question`, `verdict` (bool) and `answers`, best first.

    Raises:
        UnreadableError: an answer set that is not four different answers, or whose ranks contradict its verdict.
    """
    questions = _fields(read_json(reply), ("questions",))["questions"]
    if not isinstance(questions, list):
        raise UnreadableError("the questions are no list")
    return [_answer_set(one) for one in questions]


def _answer_set(value: Any) -> dict[str, Any]:
    fields = _fields(value, ("question", "verdict", "answers"))
    question = _text(fields["question"], "question")
    if fields["verdict"] not in ("Yes", "No") or not isinstance(fields["answers"], list):
        raise UnreadableError(f"{question!r} has no verdict, or no list of answers")
    verdict = fields["verdict"] == "Yes"
    answers = [_text(answer, "answer") for answer in fields["answers"]]
    if len(answers) != ANSWERS or len({_plain(answer) for answer in answers}) != ANSWERS:
        raise UnreadableError(f"{question!r} has not {ANSWERS} different answers")
    stated = [read_verdict(answer) for answer in answers]
    if None in stated:
        raise UnreadableError(f"{question!r}: an answer opens with neither Yes nor No")
    if stated[0] is not verdict or stated[-1] is verdict:
        raise UnreadableError(f"{question!r}: the best answer must state the verdict, and the worst its opposite")
    if verdict in stated[stated.index(not verdict) :]:
        raise UnreadableError(f"{question!r}: a wrong verdict ranks above a right one")
    return {"question": question, "verdict": verdict, "answers": answers}


def check_answers(value: Sequence[dict[str, Any]], scene: Scene, asked: Sequence[Asked]) -> None:
    """See that the answer sets are those of a scene's questions, with the verdicts and places of its ground truth.

    Raises:
        UnreadableError: they are not.
    """
    if [one["question"] for one in value] != [question.text for question in asked]:
        raise UnreadableError(f"not the {len(asked)} questions that were asked, in their order")
    for one, question in zip(value, asked, strict=True):
        if one["verdict"] is not question.verdict:
            raise UnreadableError(f"{question.text!r}: the verdict contradicts the ground truth")
        _check_place(one["answers"][0], scene, question)


def _check_place(best: str, scene: Scene, asked: Asked) -> None:
    """Of a defective part, the places that the best answer names beyond the one asked about may not all be wrong."""
    places = [place for place in read_sentence(best).places if place != asked.slot]
    if not places or not scene.defects:
        return
    if all(place_score(place, defect.box) == WRONG for place in places for defect in scene.defects):
        raise UnreadableError(f"{asked.text!r}: the best answer names {places[0]!r}, where no defect is")


def _fields(value: Any, names: Sequence[str]) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) != set(names):
        raise UnreadableError(f"not the fields {', '.join(names)}")
    return value


def _text(value: Any, name: str, may_be_empty: bool = False) -> str:
    if not isinstance(value, str) or not (value.strip() or may_be_empty):
        raise UnreadableError(f"{name} is no text")
    placeholder = find_placeholder(value)
    if placeholder is not None:
        raise UnreadableError(f"{name} holds {placeholder}, which stands for something else in prompts")
    return " ".join(value.split())


def _plain(text: str) -> str:
    return re.sub(r"\W+", " ", text.casefold()).strip()
