"""Questions and answers by themselves: does the best answer give the true verdict or option, is a placeholder there?"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from sage_trl.data.checks.findings import Finding, error, warning
from sage_trl.lexicon.reading import read_verdict
from sage_trl.models.prompt import FACT_TOKEN
from sage_trl.records import Inspection, Question

# What stands for a fact, an image or a video in the prompts of the backbones and of LLaVA's data files.
_PLACEHOLDER = re.compile(
    rf"{re.escape(FACT_TOKEN)}|</?(?:image|img|video|IMG_CONTEXT)>|<\|(?:image|video|vision)_\w+\|>", re.IGNORECASE
)
_OPTION_LETTER = re.compile(r"^\W*([A-Z])(?:[.):,;]+\s*|\s*$)")


def answer_faults(row: Inspection, path: Path, line: int) -> Iterator[Finding]:
    """Faults of one valid group's questions."""
    for index, question in enumerate(row.questions):
        field = f"questions.{index}"
        texts = {f"{field}.question": question.question}
        texts |= {f"{field}.answers.{rank}": answer for rank, answer in enumerate(question.answers)}
        yield from placeholder_faults(texts.items(), path, line)
        yield from _rank_faults(question, field, path, line)
        if question.options is not None and question.choice is not None:
            yield from _choice_faults(question, question.options, question.choice, field, path, line)


def find_placeholder(text: str) -> str | None:
    """The first placeholder in a text."""
    found = _PLACEHOLDER.search(text)
    return None if found is None else found.group()


def placeholder_faults(texts: Iterable[tuple[str, str]], path: Path, line: int) -> Iterator[Finding]:
    """A fault for each (field, text) that holds a placeholder."""
    for field, text in texts:
        found = find_placeholder(text)
        if found is not None:
            problem = f"holds {found}, which stands for a fact, an image or a video in prompts"
            yield error("placeholder", path, problem, "remove it from the text", line=line, field=field, value=text)


def _rank_faults(question: Question, field: str, path: Path, line: int) -> Iterator[Finding]:
    if question.verdict is None:
        return
    stated = [read_verdict(answer) for answer in question.answers]
    true = "yes" if question.verdict else "no"
    best = f"{field}.answers.0"
    if stated[0] is None:
        problem = f"the best answer opens with neither yes nor no, but the verdict is {true}"
        remedy = "begin it with Yes or No, or set verdict to null for an open question"
        yield warning("verdict", path, problem, remedy, line=line, field=best, value=question.answers[0])
        return
    if stated[0] is not question.verdict:
        problem = f"the best answer contradicts the verdict, which is {true}"
        remedy = "correct the verdict, or rank the true answer first"
        yield error("verdict", path, problem, remedy, line=line, field=best, value=question.answers[0])
        return
    false_rank = next((rank for rank, one in enumerate(stated) if one is (not question.verdict)), None)
    if false_rank is not None and question.verdict in stated[false_rank:]:
        problem = f"an answer with the wrong verdict ranks above one with the right one, {true}"
        remedy = "rank right verdicts above wrong ones, unless the experts meant it so"
        value = question.answers[false_rank]
        field = f"{field}.answers.{false_rank}"
        yield warning("rank-order", path, problem, remedy, line=line, field=field, value=value)


def _choice_faults(
    question: Question, options: Mapping[str, str], choice: str, field: str, path: Path, line: int
) -> Iterator[Finding]:
    """Faults of a multiple-choice question: what it shows, what is right, and what its best answer says."""
    texts = [_plain(text) for text in options.values()]
    if len(set(texts)) < len(texts):
        remedy = "give every option a text of its own"
        yield error("choice", path, "two options say the same", remedy, line=line, field=f"{field}.options")
    if question.verdict is not None:
        said, true = read_verdict(options[choice]), question.verdict
        if said is not true:
            problem = f"the right option, {choice}, does not say {'yes' if true else 'no'}, which is the verdict"
            remedy = "correct choice or verdict; the verdict is null unless the options are yes and no"
            yield error("choice", path, problem, remedy, line=line, field=f"{field}.choice", value=options[choice])
        return
    shown = _plain(question.question)
    hidden = [letter for letter, text in options.items() if _plain(text) not in shown]
    if hidden:
        problem = f"the text of option {', '.join(hidden)} does not stand in the question"
        remedy = "write each option on a line of its own below the question, such as 'A. Scratch'"
        yield warning("choice", path, problem, remedy, line=line, field=f"{field}.question", value=question.question)
    best, place = question.answers[0], f"{field}.answers.0"
    stated = stated_option(best, options)
    if stated is None:
        remedy = f"write it as '{choice}. {options[choice]}'"
        yield warning("choice", path, "the best answer gives no option", remedy, line=line, field=place, value=best)
    elif stated != choice:
        problem = f"the best answer is option {stated}, but the right one is {choice}"
        remedy = "correct choice, or rank the right option first"
        yield error("choice", path, problem, remedy, line=line, field=place, value=best)


def stated_option(answer: str, options: Mapping[str, str]) -> str | None:
    """The letter of the option that an answer gives, as 'B', as 'B. Scratch' or as 'Scratch'; None if it gives none."""
    letters = {_plain(text): letter for letter, text in options.items()}
    opening = _OPTION_LETTER.match(answer)
    if opening is None or opening[1] not in options:
        return letters.get(_plain(answer))
    # "B. Scratch" where A is the scratch gives neither.
    return opening[1] if letters.get(_plain(answer[opening.end() :]), opening[1]) == opening[1] else None


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" .,;:!?")
