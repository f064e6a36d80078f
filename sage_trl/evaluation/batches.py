"""What is put to a model together: whole groups of like length, in the same order in every run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest

from sage_trl.evaluation.predictions import Setting, is_conversation
from sage_trl.evaluation.questions import EvaluationQuestion


def cut_batches(
    asked: Sequence[EvaluationQuestion], setting: Setting, batch_size: int
) -> Iterator[list[EvaluationQuestion]]:
    """Cut questions into batches of whole groups.

    A group's questions share the pass over their images, and little is spent on padding. A batch holds at most
    `batch_size` questions, or as many conversations; a larger group is a batch of its own.
    """
    groups: dict[str, list[EvaluationQuestion]] = {}
    for item in asked:
        groups.setdefault(item.inspection.id, []).append(item)
    batch: list[EvaluationQuestion] = []
    filled = 0
    for group in sorted(groups.values(), key=lambda group: (_length(group), group[0].key)):
        size = 1 if is_conversation(setting) else len(group)
        if batch and filled + size > batch_size:
            yield batch
            batch, filled = [], 0
        batch += group
        filled += size
    if batch:
        yield batch


def cut_turns(
    batch: Sequence[EvaluationQuestion], setting: Setting, batch_size: int
) -> Iterator[list[EvaluationQuestion]]:
    """Cut a batch into what the model gets at once, in order.

    In a conversation these are the groups' first questions, then their second ones, and so on; else the whole batch,
    in pieces of `batch_size` where one group is larger.
    """
    if not is_conversation(setting):
        yield from (list(batch[start : start + batch_size]) for start in range(0, len(batch), batch_size))
        return
    groups: dict[str, list[EvaluationQuestion]] = {}
    for item in batch:
        groups.setdefault(item.inspection.id, []).append(item)
    for turn in zip_longest(*groups.values()):
        yield [item for item in turn if item is not None]


def _length(group: Sequence[EvaluationQuestion]) -> tuple[bool, int, int]:
    row = group[0].row
    return row["reference_image"] is not None, len(row["facts"]), max(len(item.row["question"]) for item in group)
