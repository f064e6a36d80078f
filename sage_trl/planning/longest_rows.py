"""The rows that make the largest batch: those with the most tokens, of text and of images."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from sage_trl.data.images import read_size
from sage_trl.models.encoding import render_prompt
from sage_trl.trainer.collators import FactCollator

ANSWER_COLUMNS = ("completion", "chosen", "rejected")


def longest_rows(rows: Dataset, collator: FactCollator, count: int) -> Dataset:
    """The `count` longest rows, or all where there are fewer.

    A row's length is that of its prompt and its longest answer; the image tokens of a reference that is shown to the
    fusion alone count too, because the vision tower reads them. LLaVA-OneVision shows two images of one prompt without
    tiles: there a row with its reference in the prompt is taken for longer than it is.

    Args:
        rows: rows with undecoded images; only the headers of the files are read.
        collator: the stage's collator.
        count: how many.

    Raises:
        DataError: an image that cannot be read.
    """
    lengths = row_lengths(rows, collator, count_references=True)
    order = sorted(range(len(rows)), key=lambda index: (-lengths[index], index))
    if collator.shared_prefix:
        order = _spanning_groups(order, rows["group_id"], count)
    return rows.select(order[:count])


def row_lengths(rows: Dataset, collator: FactCollator, *, count_references: bool) -> list[int]:
    """Tokens of each row's prompt, images included, with its longest answer.

    Args:
        rows: rows with undecoded images; only the headers of the files are read.
        collator: the stage's collator.
        count_references: count the tokens of the references too.

    Raises:
        DataError: an image that cannot be read.
    """
    lengths = _text_lengths(rows, collator)
    count_image_tokens = functools.cache(functools.partial(_count_image_tokens, collator.processor))
    for index, row in enumerate(rows):
        images = [*row["images"], row["reference_image"] if count_references else None]
        lengths[index] += sum(count_image_tokens(read_size(Path(image["path"]))) for image in images if image)
    return lengths


def _spanning_groups(order: Sequence[int], group_ids: Sequence[str], count: int) -> list[int]:
    """Whole groups, as the sampler of trees gives them, the longest first.

    They start with the first group's last row where enough rows follow: a batch then has as many trees as it can have.
    """
    groups: dict[str, list[int]] = {}
    for index in order:
        groups.setdefault(group_ids[index], []).append(index)
    neighbours = [index for group in groups.values() for index in group]
    start = len(groups[group_ids[order[0]]]) - 1
    return neighbours[min(start, max(0, len(order) - count)) :]


def _text_lengths(rows: Dataset, collator: FactCollator) -> list[int]:
    answers = [column for column in ANSWER_COLUMNS if column in rows.column_names]
    texts = [text for row in rows for text in _texts(row, collator, answers)]
    tokens = collator.processor.tokenizer(texts, add_special_tokens=False)["input_ids"]
    lengths = [len(ids) for ids in tokens]
    step = 1 + len(answers)
    return [lengths[start] + max(lengths[start + 1 : start + step]) for start in range(0, len(lengths), step)]


def _texts(row: Mapping[str, Any], collator: FactCollator, answers: list[str]) -> list[str]:
    prompt = render_prompt(
        collator.processor, row, facts=collator.facts, reference_in_prompt=collator.reference_in_prompt
    )
    return [prompt, *(collator.render_completion(row, column) for column in answers)]


def _count_image_tokens(processor: Any, size: tuple[int, int]) -> int:
    width, height = size
    tokens: list[int] = processor._get_num_multimodal_tokens(image_sizes=[(height, width)])["num_image_tokens"]
    return tokens[0]
