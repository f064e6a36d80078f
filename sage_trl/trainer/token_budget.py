"""Batches of as many trees as fit a budget of tokens, in place of a number of rows."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import Sampler

from sage_trl.data.images import decode_image_bytes, read_size
from sage_trl.errors import DataError
from sage_trl.models.encoding import count_image_tokens, encode_prompt_texts
from sage_trl.trainer.collators import FactCollator
from sage_trl.trainer.group_sampler import rows_by_group
from sage_trl.trees.prefix_tree import build_prefix_tree


@dataclass(frozen=True)
class TreeSize:
    """A group's rows and the tokens of the tree that they make."""

    group_id: str
    rows: tuple[int, ...]
    tokens: int


def tree_sizes(dataset: Dataset, collator: FactCollator) -> list[TreeSize]:
    """The tree of every group, without decoding its images.

    Args:
        dataset: rows with undecoded images.
        collator: the stage's collator; a reference that it hides in training counts as shown.
    """
    tokens_of = functools.cache(functools.partial(count_image_tokens, collator.processor))
    return [
        TreeSize(group, tuple(indices), _tree_tokens([dataset[index] for index in indices], collator, tokens_of))
        for group, indices in rows_by_group(dataset["group_id"]).items()
    ]


def _tree_tokens(
    rows: Sequence[dict[str, Any]], collator: FactCollator, tokens_of: Callable[[tuple[int, int]], int]
) -> int:
    shown = [*rows[0]["images"]]
    if collator.reference_in_prompt and rows[0]["reference_image"] is not None:
        shown.append(rows[0]["reference_image"])
    rows = [{**row, "facts": row.get("facts") or []} for row in rows]
    prompts = encode_prompt_texts(
        collator.processor, rows, facts=collator.facts, reference_in_prompt=collator.reference_in_prompt
    )
    distinct: dict[tuple[int, ...], int] = {}
    answers: dict[tuple[int, Any], None] = {}
    for index, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
        place = distinct.setdefault(tuple(prompt), len(distinct))
        for column in collator.answer_columns:
            # Stage 1 keeps answers apart; see `SFECollator`.
            answers[place, (collator.render_completion(row, column), None if collator.share_answers else index)] = None
    texts = [text for _, (text, _) in answers]
    tokens = collator.processor.tokenizer(texts, add_special_tokens=False)["input_ids"]
    tree = build_prefix_tree(list(distinct), [(place, ids) for (place, _), ids in zip(answers, tokens, strict=True)])
    return len(tree.tokens) + sum(tokens_of(_image_size(image)) - 1 for image in shown)


def _image_size(image: dict[str, Any]) -> tuple[int, int]:
    if image["bytes"] is not None:
        return decode_image_bytes(image["bytes"], image["path"] or "image column").size
    return read_size(Path(image["path"]))


class TokenBudgetBatches(Sampler[list[int]]):
    """Batches of whole groups whose trees, filled up to the longest, hold at most `budget` tokens.

    The batches are made once from groups in random order, so that every epoch has as many; each epoch takes them in a
    new order. Every process gets the same number: the first batches come twice where the last round lacks some.

    Args:
        sizes: of all groups.
        budget: tokens of a batch.
        seed: of both orders; the epoch is added to that of the batches.
        processes: how many share the batches, each taking the next in turn.

    Raises:
        DataError: a tree that is larger than the budget by itself.
    """

    def __init__(self, sizes: Sequence[TreeSize], budget: int, seed: int, processes: int = 1) -> None:
        largest = max(sizes, key=lambda size: size.tokens)
        if largest.tokens > budget:
            problem = (
                f"max_tokens_per_batch is {budget}, but group {largest.group_id} alone has {largest.tokens} tokens"
            )
            raise DataError(f"{problem}\n  remedy: raise it to {largest.tokens} at least, or split the group")
        self.seed = seed
        self.epoch = 0
        self.processes = processes
        self._batches: list[list[int]] = []
        longest, trees = 0, budget
        generator = torch.Generator().manual_seed(seed)
        for index in torch.randperm(len(sizes), generator=generator).tolist():
            longest, trees = max(longest, sizes[index].tokens), trees + 1
            if longest * trees > budget:
                self._batches.append([])
                longest, trees = sizes[index].tokens, 1
            self._batches[-1] += sizes[index].rows

    def set_epoch(self, epoch: int) -> None:
        """Choose the order; accelerate calls it, so a resumed run goes on in the order it had."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(len(self._batches), generator=generator).tolist()
        for turn in range(len(self)):
            yield self._batches[order[turn % len(order)]]

    def __len__(self) -> int:
        return -(-len(self._batches) // self.processes) * self.processes
