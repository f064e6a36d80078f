"""What a dataset consists of: counts per source, category, level and verdict, and lengths (paper: figure 4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from sage_trl.records import LEVELS, Inspection


@dataclass(frozen=True)
class Counts:
    """Of one source, category, level or split. An image is counted once, however many groups show it.

    Every question is one of `yes` and `no` (its verdict, also where it has options), `choice` (graded by its options
    alone) and `open` (graded by nothing).
    """

    groups: int
    images: int
    normal_images: int
    anomalous_images: int
    questions: int
    answers: int
    yes: int
    no: int
    choice: int
    open: int


@dataclass(frozen=True)
class Lengths:
    """Words of a text: what white space divides, and each Chinese character; punctuation alone is no word."""

    texts: int
    shortest: int
    median: float
    mean: float
    longest: int
    histogram: dict[int, int]


@dataclass(frozen=True)
class DatasetStatistics:
    """All figures; `by` maps source, split, category and level to counts per value."""

    total: Counts
    by: dict[str, dict[str, Counts]]
    defect_types: dict[str, int]
    lengths: dict[str, Lengths]

    def as_json(self) -> dict[str, Any]:
        """The figures as they stand in `statistics.json`."""
        return asdict(self)


FIELDS = {"source": "dataset", "split": "split", "category": "category", "level": "level"}


def compute_statistics(inspections: Iterable[Inspection]) -> DatasetStatistics:
    """Count a dataset.

    An image counts as anomalous if a group that shows it as test image lists a defect. References are not counted.
    """
    rows = list(inspections)
    questions = [question for row in rows for question in row.questions]
    kinds = Counter(defect.type for row in _one_per_image(rows) for defect in row.defects)
    return DatasetStatistics(
        total=_count(rows),
        by={name: _count_by(rows, field) for name, field in FIELDS.items()},
        defect_types=dict(kinds.most_common()),
        lengths={
            "questions": _lengths(question.question for question in questions),
            "best answers": _lengths(question.answers[0] for question in questions),
            "all answers": _lengths(answer for question in questions for answer in question.answers),
        },
    )


def _one_per_image(rows: list[Inspection]) -> list[Inspection]:
    return list({row.test_image: row for row in rows}.values())


def _count_by(rows: list[Inspection], field: str) -> dict[str, Counts]:
    values = {getattr(row, field) for row in rows}
    ordered = [level for level in LEVELS if level in values] if field == "level" else sorted(values)
    return {value: _count([row for row in rows if getattr(row, field) == value]) for value in ordered}


def _count(rows: list[Inspection]) -> Counts:
    images = {row.test_image for row in rows}
    anomalous = {row.test_image for row in rows if row.defects}
    questions = [question for row in rows for question in row.questions]
    verdicts = Counter(question.verdict for question in questions)
    is_open = [not question.is_graded for question in questions]
    return Counts(
        groups=len(rows),
        images=len(images),
        normal_images=len(images - anomalous),
        anomalous_images=len(anomalous),
        questions=len(questions),
        answers=sum(len(question.answers) for question in questions),
        yes=verdicts[True],
        no=verdicts[False],
        choice=verdicts[None] - sum(is_open),
        open=sum(is_open),
    )


def _lengths(texts: Iterable[str]) -> Lengths:
    words = sorted(map(count_words, texts))
    return Lengths(
        texts=len(words),
        shortest=words[0],
        median=median(words),
        mean=sum(words) / len(words),
        longest=words[-1],
        histogram=dict(Counter(words)),
    )


def count_words(text: str) -> int:
    """Words of a text, see `Lengths`."""
    ideographs = sum("\u4e00" <= letter <= "\u9fff" for letter in text)
    rest = "".join(" " if "\u4e00" <= letter <= "\u9fff" else letter for letter in text)
    return ideographs + sum(any(map(str.isalnum, word)) for word in rest.split())
