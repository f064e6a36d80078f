"""Questions and answers by themselves: does the best answer give the true verdict, is a placeholder in a text?"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from sage_trl.data.checks.findings import Finding, error, warning
from sage_trl.lexicon.reading import read_verdict
from sage_trl.models.prompt import FACT_TOKEN
from sage_trl.records import Inspection, Question

# What stands for a fact, an image or a video in the prompts of the backbones and of LLaVA's data files.
_PLACEHOLDER = re.compile(
    rf"{re.escape(FACT_TOKEN)}|</?(?:image|img|video|IMG_CONTEXT)>|<\|(?:image|video|vision)_\w+\|>", re.IGNORECASE
)


def answer_faults(row: Inspection, path: Path, line: int) -> Iterator[Finding]:
    """Faults of one valid group's questions."""
    for index, question in enumerate(row.questions):
        field = f"questions.{index}"
        texts = {f"{field}.question": question.question}
        texts |= {f"{field}.answers.{rank}": answer for rank, answer in enumerate(question.answers)}
        yield from placeholder_faults(texts.items(), path, line)
        yield from _rank_faults(question, field, path, line)


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
