"""Turns a review into a new version of the dataset; the reviewed one stays as it is."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from sage_trl.data.dataset import AdPlDirectory, read_info, write_ad_pl
from sage_trl.data.fact_sets import FACTS_FILE
from sage_trl.errors import DataError
from sage_trl.records import Inspection
from sage_trl.review.log import REVIEW_FILE
from sage_trl.review.session import ReviewState, read_state
from sage_trl.storage import atomic_directory, path_below

APPLIED_FILE = "applied_review.jsonl"


@dataclass(frozen=True)
class AppliedReview:
    """What became of the questions. `untouched` ones had no accept or reject and went over as they were."""

    accepted: int
    changed: int
    rejected: int
    untouched: int
    groups: int
    ignored: int


def apply_review(dataset: AdPlDirectory, output: Path) -> AppliedReview:
    """Write the dataset anew: accepted questions with their changes, without rejected ones, all others as they were.

    Images and facts go along, scores do not: ranks and wordings have changed. The images lie inside the new dataset,
    also those that the reviewed one names elsewhere. The log lies beside the result as `applied_review.jsonl`.

    Args:
        dataset: with its `review.jsonl`.
        output: directory to make.

    Raises:
        DataError: no review, `output` is there already, or every question was rejected.
    """
    log = dataset.root / REVIEW_FILE
    if not log.is_file():
        raise DataError.at(log, None, "no such file", "review the dataset first, without --apply")
    state = read_state(dataset)
    rows = [row for row in (_reviewed(row, state) for row in dataset.inspections) if row is not None]
    if not rows:
        raise DataError.at(log, None, "every question was rejected, nothing is left", "accept some questions")
    with atomic_directory(output) as part:
        _copy_images(dataset, rows, part)
        write_ad_pl(part, rows, read_info(dataset.root).model_copy(update={"image_root": "."}))
        shutil.copyfile(log, part / APPLIED_FILE)
        if (dataset.root / FACTS_FILE).is_file():
            shutil.copyfile(dataset.root / FACTS_FILE, part / FACTS_FILE)
    counts = state.counts()
    changed = sum(question.is_changed for question in state.questions.values() if question.status == "accepted")
    return AppliedReview(counts["accepted"], changed, counts["rejected"], counts["open"], len(rows), state.ignored)


def _reviewed(row: Inspection, state: ReviewState) -> Inspection | None:
    questions = []
    for question in row.questions:
        reviewed = state.questions[row.id, question.id]
        if reviewed.status != "rejected":
            questions.append(reviewed.result() if reviewed.status == "accepted" else question)
    return row.model_copy(update={"questions": tuple(questions)}) if questions else None


def _copy_images(dataset: AdPlDirectory, rows: list[Inspection], directory: Path) -> None:
    for relative in dict.fromkeys(name for row in rows for name in (row.test_image, row.reference_image) if name):
        target = path_below(directory, relative)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(dataset.image_path(relative), target)
