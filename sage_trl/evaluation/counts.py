"""Counts of right answers per physical unit, and the figures that follow from their sums.

All figures are functions of sums over units, so the bootstrap and the estimate share one definition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sage_trl.errors import DataError
from sage_trl.evaluation.predictions import Prediction
from sage_trl.records import LEVELS, Inspection, Level

Array = npt.NDArray[np.float64]
_PER_LEVEL = 4
_BASE = 8
COLUMNS = _BASE + _PER_LEVEL * len(LEVELS)
_COLUMNS_OF_TRUTH = {True: [0, 1], False: [2, 3], None: [6, 7]}


class AskedGroup(NamedTuple):
    """What the dataset holds of one group: its level, how many questions have a true answer, and its physical unit.

    Groups of one unit (one board, one part) show the same object and are drawn together in the bootstrap.
    """

    level: Level
    questions: int
    unit: str


def unit_of(inspection: Inspection) -> str:
    """The physical unit of a group: as its source says, else its test image."""
    return inspection.test_image if inspection.unit is None else f"{inspection.dataset}/{inspection.unit}"


def without_doubles(predictions: Sequence[Prediction]) -> list[Prediction]:
    """Each question once, in the order of group and question, whatever the order of the rows.

    Raises:
        DataError: two rows of one question differ in their reply or their true answer.
    """
    known: dict[tuple[str, str], Prediction] = {}
    for row in predictions:
        other = known.setdefault((row.group_id, row.question_id), row)
        if (row.prediction, row.answer, row.truth) != (other.prediction, other.answer, other.truth):
            raise DataError(
                f"group {row.group_id!r}, question {row.question_id!r}: two predictions that differ, "
                f"{other.prediction!r} and {row.prediction!r}\n"
                "  remedy: measure one model in one setting on one split at a time"
            )
    return [known[name] for name in sorted(known)]


def groups_of(predictions: Sequence[Prediction]) -> dict[str, AskedGroup]:
    """The groups as the predictions show them, each a unit of its own; of no use for finding missing questions."""
    groups: dict[str, AskedGroup] = {}
    for row in predictions:
        if row.correct is not None:
            before = groups.get(row.group_id, AskedGroup(row.level, 0, row.group_id))
            groups[row.group_id] = before._replace(questions=before.questions + 1)
    return groups


def count_by_unit(predictions: Sequence[Prediction], groups: Mapping[str, AskedGroup]) -> Array:
    """Counts of graded predictions [units, COLUMNS]; units in the order of their names.

    A group is right only if all its questions were answered, and right. Groups without a graded question are left out.

    Args:
        predictions: each question once; open ones are ignored.
        groups: of all predictions.
    """
    units = sorted({group.unit for group in groups.values() if group.questions})
    row_of_unit = {unit: row for row, unit in enumerate(units)}
    counts = np.zeros((len(units), COLUMNS))
    right_in_group = dict.fromkeys(groups, 0)
    for prediction in predictions:
        if prediction.correct is None:
            continue
        right = prediction.correct is True
        row = row_of_unit[groups[prediction.group_id].unit]
        counts[row, _COLUMNS_OF_TRUTH[prediction.verdict]] += [right, 1]
        start = _BASE + _PER_LEVEL * LEVELS.index(prediction.level)
        counts[row, [start, start + 1]] += [right, 1]
        right_in_group[prediction.group_id] += right
    for name, group in groups.items():
        if group.questions:
            row = row_of_unit[group.unit]
            right = right_in_group[name] == group.questions
            start = _BASE + _PER_LEVEL * LEVELS.index(group.level)
            counts[row, [4, 5, start + 2, start + 3]] += [right, 1, right, 1]
    return counts


def figures_of(counts: Array) -> dict[str, Array]:
    """The figures of summed counts [..., COLUMNS]: name -> [...], not a number where nothing was asked.

    `accuracy`, `balanced_accuracy` (mean of the recalls of yes and no), `f1` (yes is the positive answer; a reply that
    cannot be read counts as the wrong one of the two), `acc_g`, `accuracy_macro` (mean of the levels), and by level
    `accuracy_by_level/LEVEL` and `acc_g_by_level/LEVEL`. Multiple-choice questions enter all but recalls and F1.
    """
    yes_right, yes, no_right, no, groups_right, groups, chosen_right, chosen = (
        counts[..., column] for column in range(_BASE)
    )
    figures = {
        "accuracy": ratio(yes_right + no_right + chosen_right, yes + no + chosen),
        "balanced_accuracy": (ratio(yes_right, yes) + ratio(no_right, no)) / 2,
        "f1": ratio(2 * yes_right, yes_right + yes + no - no_right),
        "acc_g": ratio(groups_right, groups),
    }
    by_level = []
    for place, level in enumerate(LEVELS):
        right, asked, level_groups_right, level_groups = (
            counts[..., _BASE + _PER_LEVEL * place + column] for column in range(_PER_LEVEL)
        )
        by_level.append(ratio(right, asked))
        figures[f"accuracy_by_level/{level}"] = by_level[-1]
        figures[f"acc_g_by_level/{level}"] = ratio(level_groups_right, level_groups)
    figures["accuracy_macro"] = mean_of_known(by_level)
    return figures


def ratio(part: Any, whole: Any, empty: float = np.nan) -> Array:
    """Part by whole, of the same shape; `empty` where the whole is nothing."""
    whole = np.asarray(whole, dtype=float)
    found: Array = np.divide(part, whole, out=np.full(whole.shape, empty), where=whole > 0)
    return found


def mean_of_known(values: Sequence[Array]) -> Array:
    """Mean of what is a number, not a number where nothing is."""
    stacked = np.stack(values)
    return ratio(np.nansum(stacked, axis=0), (~np.isnan(stacked)).sum(axis=0))
