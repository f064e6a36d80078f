"""MMAD's numbers (Jiang et al., ICLR 2025): accuracy by question type and dataset, and their averages.

Detection is the mean of the accuracies on normal and on defective images, the average of a dataset the mean over its
question types, and a type's accuracy the mean over the datasets: so MMAD defines them, and so both protocols count.
They differ in what the benchmark's published script does otherwise than one would expect:

| | `original` | `corrected` |
|---|---|---|
| reply | the last capital A to E that stands alone, articles too; else the option most alike | `parse_choice` |
| letter that cannot be counted | leaves the count, and the next answer with it | is a wrong answer |
| normal image | "good" stands anywhere in its path | it has no defect |
| nothing asked of a type in a dataset, or no normal image | counts as accuracy 0 | is left out of the mean |
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sage_trl.evaluation.bootstrap import bootstrap_intervals
from sage_trl.evaluation.choice_parsing import parse_choice
from sage_trl.evaluation.counts import mean_of_known, ratio, unit_of
from sage_trl.evaluation.predictions import MmadProtocol
from sage_trl.records import Inspection, Question, Record

DETECTION = "Anomaly Detection"
AVERAGE = "average"
# The script's own merging; the published tables have seven types.
_MERGED_TYPES = {"Object Structure": "Object Analysis", "Object Details": "Object Analysis"}
_COUNTED_LETTERS = frozenset("ABCDE")
_LONE_LETTER = re.compile(r"\b[A-E]\b")

Array = npt.NDArray[np.float64]


class MmadAnswer(NamedTuple):
    """A reply to a question of MMAD, with what the two protocols count by.

    `dataset` is one of the four that MMAD is made of, `image` the path of the test image below the root.
    """

    dataset: str
    image: str
    unit: str
    is_normal: bool
    type: str
    options: Mapping[str, str]
    choice: str
    reply: str


class MmadFigures(Record):
    """MMAD's table under one protocol, fractions 0-1.

    `accuracy_by_type` and `average` are means over the datasets, `by_dataset` has each dataset's types and `average`.
    `left_out` counts answers that do not enter. `intervals` are 95% bootstrap intervals over physical units.
    """

    average: float
    accuracy_by_type: dict[str, float]
    by_dataset: dict[str, dict[str, float]]
    questions: int
    left_out: int
    intervals: dict[str, tuple[float, float]]


class _Counted(NamedTuple):
    """One answer as it enters the counts."""

    answer: MmadAnswer
    is_right: bool
    is_normal: bool


def mmad_answers(asked: Iterable[tuple[Inspection, Question, str]]) -> list[MmadAnswer]:
    """The answers to questions of MMAD among questions with their replies, in the same order."""
    return [
        MmadAnswer(
            dataset=inspection.id.removeprefix("mmad/").split("/")[0],
            image=inspection.test_image,
            unit=unit_of(inspection),
            is_normal=not inspection.defects,
            type=question.type,
            options=question.options,
            choice=question.choice,
            reply=reply,
        )
        for inspection, question, reply in asked
        if inspection.dataset == "mmad" and question.type and question.options and question.choice
    ]


def mmad_figures(answers: Sequence[MmadAnswer], protocol: MmadProtocol, seed: int = 0) -> MmadFigures | None:
    """MMAD's table; None if no answer enters it.

    Args:
        answers: in the order of the dataset, on which `original` depends.
        protocol: see the module.
        seed: of the bootstrap draws.
    """
    counted = list(_original(answers) if protocol == "original" else _corrected(answers))
    if not counted:
        return None
    # The script makes a column of every type it meets, before it leaves answers out.
    cells = _Cells(answers if protocol == "original" else [one.answer for one in counted])
    counts = cells.count(counted)

    def figures(sums: Array) -> dict[str, Array]:
        return cells.table(sums, empty=0.0 if protocol == "original" else np.nan)

    found = {name: float(value) for name, value in figures(counts.sum(axis=0)).items() if not np.isnan(value)}
    by_dataset: dict[str, dict[str, float]] = {name: {} for name in cells.datasets}
    for name, value in found.items():
        dataset, slash, kind = name.partition("/")
        if slash:
            by_dataset[dataset][kind] = value
    intervals = bootstrap_intervals(counts, figures, seed)
    return MmadFigures(
        average=found[AVERAGE],
        accuracy_by_type={kind: found[kind] for kind in cells.types if kind in found},
        by_dataset=by_dataset,
        questions=len(counted),
        left_out=len(answers) - len(counted),
        intervals={name: interval for name, interval in intervals.items() if "/" not in name},
    )


def _corrected(answers: Sequence[MmadAnswer]) -> Iterator[_Counted]:
    for answer in answers:
        yield _Counted(answer, parse_choice(answer.reply, answer.options) == answer.choice, answer.is_normal)


def _original(answers: Sequence[MmadAnswer]) -> Iterator[_Counted]:
    skipped = False
    for answer in answers:
        if skipped:
            # The script removes an answer from the list that it is walking through, and so steps over the next one.
            skipped = False
            continue
        letter = read_letter(answer.reply, answer.options)
        if letter not in _COUNTED_LETTERS or answer.choice not in _COUNTED_LETTERS:
            skipped = True
            continue
        yield _Counted(answer, letter == answer.choice, "good" in answer.image)


def read_letter(reply: str, options: Mapping[str, str]) -> str:
    """The letter as the benchmark's script reads it; there always is one."""
    letters = _LONE_LETTER.findall(reply)
    if letters:
        return str(letters[-1])
    [closest] = difflib.get_close_matches(reply, options.values(), n=1, cutoff=0.0)
    return next(letter for letter, text in options.items() if text == closest)


class _Cells:
    """Where each dataset and type is counted: right and asked, and for detection both on normal and other images."""

    def __init__(self, answers: Sequence[MmadAnswer]) -> None:
        self.datasets = list(dict.fromkeys(answer.dataset for answer in answers))
        self.types = list(dict.fromkeys(_type_of(answer) for answer in answers))
        rows = [(dataset, kind, part) for dataset in self.datasets for kind in self.types for part in _parts(kind)]
        self._columns = {cell: 2 * number for number, cell in enumerate(rows)}

    def count(self, counted: Sequence[_Counted]) -> Array:
        """Counts `[units, columns]`."""
        units = {unit: row for row, unit in enumerate(sorted({one.answer.unit for one in counted}))}
        counts = np.zeros((len(units), 2 * len(self._columns)))
        for one in counted:
            kind = _type_of(one.answer)
            column = self._columns[one.answer.dataset, kind, kind == DETECTION and one.is_normal]
            counts[units[one.answer.unit], [column, column + 1]] += [one.is_right, 1]
        return counts

    def table(self, sums: Array, empty: float) -> dict[str, Array]:
        """Figures of summed counts `[..., columns]`: `TYPE`, `average`, `DATASET/TYPE` and `DATASET/average`.

        `empty` is the accuracy where nothing was asked; not a number leaves it out of the means.
        """
        figures: dict[str, Array] = {}
        for dataset in self.datasets:
            for kind in self.types:
                cells = [self._accuracy(sums, (dataset, kind, part), empty) for part in _parts(kind)]
                figures[f"{dataset}/{kind}"] = mean_of_known(cells)
            figures[f"{dataset}/{AVERAGE}"] = mean_of_known([figures[f"{dataset}/{kind}"] for kind in self.types])
        for kind in (*self.types, AVERAGE):
            figures[kind] = mean_of_known([figures[f"{dataset}/{kind}"] for dataset in self.datasets])
        return figures

    def _accuracy(self, sums: Array, cell: tuple[str, str, bool], empty: float) -> Array:
        column = self._columns[cell]
        return ratio(sums[..., column], sums[..., column + 1], empty)


def _type_of(answer: MmadAnswer) -> str:
    return _MERGED_TYPES.get(answer.type, answer.type)


def _parts(kind: str) -> tuple[bool, ...]:
    return (False, True) if kind == DETECTION else (False,)
