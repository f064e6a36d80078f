"""Metrics against scikit-learn and a plain recount, with rows shuffled, missing and doubled."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from sage_trl.errors import DataError
from sage_trl.evaluation.counts import AskedGroup
from sage_trl.evaluation.metrics import compute_metrics
from sage_trl.evaluation.predictions import Prediction
from sage_trl.records import LEVELS
from tests.evaluation.test_metrics import prediction


def drawn(seed: int, groups: int = 40) -> tuple[list[Prediction], dict[str, AskedGroup]]:
    """Groups of five, every seventh of three; replies right, wrong and unreadable; two groups a unit."""
    source = random.Random(seed)
    rows, asked = [], {}
    for number in range(groups):
        size, level = (3 if number % 7 == 0 else 5), LEVELS[number % 3]
        asked[f"g{number}"] = AskedGroup(level, size, f"board{number // 2}")
        for question in range(size):
            verdict = source.random() < 0.4
            predicted = None if source.random() < 0.03 else verdict if source.random() < 0.85 else not verdict
            rows.append(prediction(f"g{number}", f"q{question}", level, predicted, verdict))
    return rows, asked


def recounted_acc_g(rows: Sequence[Prediction], asked: dict[str, AskedGroup], level: str | None = None) -> float:
    names = [name for name, group in asked.items() if level in (None, group.level)]
    whole = 0
    for name in names:
        marks = {row.question_id: row.correct for row in rows if row.group_id == name}
        whole += len(marks) == asked[name].questions and all(marks.values())
    return whole / len(names)


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_scikit_learn(seed: int) -> None:
    rows, asked = drawn(seed)
    true = [row.verdict for row in rows]
    said = [not row.verdict if row.predicted_verdict is None else row.predicted_verdict for row in rows]

    metrics = compute_metrics(rows, groups=asked)

    assert metrics.accuracy == pytest.approx(accuracy_score(true, said))
    assert metrics.balanced_accuracy == pytest.approx(balanced_accuracy_score(true, said))
    assert metrics.f1 == pytest.approx(f1_score(true, said))
    assert metrics.acc_g == pytest.approx(recounted_acc_g(rows, asked))
    for level in LEVELS:
        own = [(t, s) for t, s, row in zip(true, said, rows, strict=True) if row.level == level]
        assert metrics.accuracy_by_level[level] == pytest.approx(accuracy_score(*zip(*own, strict=True)))
        assert metrics.acc_g_by_level[level] == pytest.approx(recounted_acc_g(rows, asked, level))


def test_shuffled_rows_change_nothing() -> None:
    rows, asked = drawn(1)
    shuffled = random.Random(2).sample(rows, len(rows))

    assert compute_metrics(shuffled, groups=asked) == compute_metrics(rows, groups=asked)


def test_doubled_rows_are_counted_once_and_reported() -> None:
    rows, asked = drawn(1)
    doubled = random.Random(3).sample([*rows, *rows[:25]], len(rows) + 25)

    once, twice = compute_metrics(rows, groups=asked), compute_metrics(doubled, groups=asked)

    assert twice == once.model_copy(update={"doubled": 25})


def test_two_replies_to_one_question_are_refused() -> None:
    rows = [prediction("a", "q1", LEVELS[0], True, True), prediction("a", "q1", LEVELS[0], False, True)]

    with pytest.raises(DataError, match="group 'a', question 'q1'"):
        compute_metrics(rows)


def test_a_group_with_a_missing_row_is_never_right() -> None:
    rows, asked = drawn(1)
    right = [name for name in asked if all(row.correct for row in rows if row.group_id == name)]
    gone = {(name, "q0") for name in right[:3]}
    kept = [row for row in rows if (row.group_id, row.question_id) not in gone and row.group_id != right[3]]

    metrics = compute_metrics(kept, groups=asked)

    assert metrics.acc_g == pytest.approx((len(right) - 4) / len(asked))
    assert metrics.acc_g == pytest.approx(recounted_acc_g(kept, asked))
    assert (metrics.missing, metrics.incomplete) == (3 + asked[right[3]].questions, 4)
    assert metrics.groups == len(asked)
    assert metrics.accuracy == pytest.approx(sum(row.correct is True for row in kept) / len(kept))


def test_groups_of_other_sizes_are_reported() -> None:
    rows, asked = drawn(1)

    metrics = compute_metrics(rows, groups=asked)

    assert metrics.group_sizes == {"3": 6, "5": 34}
    small = {name: group for name, group in asked.items() if group.questions == 3}
    assert metrics.acc_g_by_size["3"] == pytest.approx(recounted_acc_g(rows, small))
    assert metrics.units == 20


def test_one_verdict_only_has_no_balanced_accuracy() -> None:
    metrics = compute_metrics([prediction("a", "q1", LEVELS[0], True, True)])

    assert (metrics.accuracy, metrics.balanced_accuracy, metrics.f1) == (1.0, None, 1.0)
    assert "balanced_accuracy" not in metrics.intervals
