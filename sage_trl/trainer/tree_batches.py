"""Rows of a batch to packed prefix trees: one tree for each pair of images with its facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sage_trl.models.encoding import encode_prompt_ids, encode_prompts
from sage_trl.models.prompt import FactUse
from sage_trl.models.same_images import ImageKeys, same_images
from sage_trl.trees.prefix_tree import PrefixTree, build_prefix_tree

Row = Mapping[str, Any]
IGNORED = -100
NO_LEAF = -1


@dataclass
class _Group:
    """Rows that show the same images and facts."""

    rows: list[Row] = field(default_factory=list)
    answers: list[tuple[int, str]] = field(default_factory=list)


def encode_trees(
    processor: Any,
    rows: Sequence[Row],
    answers: Sequence[Sequence[str]],
    *,
    facts: FactUse,
    reference_in_prompt: bool,
    share_answers: bool,
    key_of: ImageKeys,
) -> tuple[dict[str, Tensor], list[list[int]]]:
    """Encode rows with decoded images as trees.

    Args:
        processor: a Sage processor.
        rows: as in `encode_prompts`.
        answers: the rendered answers of each row.
        facts, reference_in_prompt: as in `encode_prompts`.
        share_answers: let an answer that stands in several rows be one leaf.
        key_of: the keys of the rows' images, as far as they are known.

    Returns:
        The batch, one tree per row: what `encode_prompts` makes of each tree's images and facts, and `input_ids`,
        `attention_mask`, `position_ids`, each `[trees, T]`, `scored_positions`, `shift_labels`, `leaf_ids`, each
        `[trees, K]`, and `tree_spans` `[trees, S, 3]`. And the leaf, counted over the batch, of each row's answers.
    """
    groups, places = _group(rows, answers, key_of, share_answers=share_answers)
    options: Any = {"facts": facts, "reference_in_prompt": reference_in_prompt}
    shown = [group.rows[0] for group in groups]
    batch = encode_prompts(processor, shown, **options)
    if not reference_in_prompt:
        batch |= same_images(processor, batch, shown, key_of)
    ids, mask = batch.pop("input_ids"), batch.pop("attention_mask")
    trees = []
    for index, group in enumerate(groups):
        first = ids[index][mask[index].bool()].tolist()
        prompts = encode_prompt_ids(processor, group.rows, first, **options)
        tokens = processor.tokenizer([text for _, text in group.answers], add_special_tokens=False)["input_ids"]
        owners = [owner for owner, _ in group.answers]
        trees.append(build_prefix_tree(prompts, list(zip(owners, tokens, strict=True))))
    offsets = [0]
    for tree in trees:
        offsets.append(offsets[-1] + len(tree.answers))
    batch |= pack(trees, offsets, processor.tokenizer.pad_token_id)
    if "mm_token_type_ids" in batch:
        batch["mm_token_type_ids"] = (batch["input_ids"] == processor.image_token_id).long()
    return batch, [[offsets[group] + leaf for group, leaf in row] for row in places]


def _group(
    rows: Sequence[Row], answers: Sequence[Sequence[str]], key_of: ImageKeys, *, share_answers: bool
) -> tuple[list[_Group], list[list[tuple[int, int]]]]:
    """The groups, and (group, leaf in the group) of each row's answers."""
    groups: dict[Any, _Group] = {}
    places = []
    for row, texts in zip(rows, answers, strict=True):
        key = key_of.of_row(row)
        group = groups.setdefault(key, _Group())
        prompt = next((index for index, one in enumerate(group.rows) if one["prompt"] == row["prompt"]), None)
        if prompt is None:
            prompt = len(group.rows)
            group.rows.append(row)
        leaves = []
        for text in texts:
            answer = (prompt, text)
            if not share_answers or answer not in group.answers:
                group.answers.append(answer)
                leaves.append(len(group.answers) - 1)
            else:
                leaves.append(group.answers.index(answer))
        places.append([(list(groups).index(key), leaf) for leaf in leaves])
    return list(groups.values()), places


def pack(trees: Sequence[PrefixTree], offsets: Sequence[int], pad_token_id: int) -> dict[str, Tensor]:
    """Trees as rows filled up on the right; see `encode_trees`."""
    length = max(len(tree.tokens) for tree in trees)
    segments = max(len(tree.segments) for tree in trees)
    scored = max(len(tree.labels) for tree in trees)
    shape = (len(trees), length)
    packed = {
        "input_ids": torch.full(shape, pad_token_id),
        "attention_mask": torch.zeros(shape, dtype=torch.long),
        "position_ids": torch.zeros(shape, dtype=torch.long),
        "scored_positions": torch.zeros(len(trees), scored, dtype=torch.long),
        "shift_labels": torch.full((len(trees), scored), IGNORED),
        "leaf_ids": torch.full((len(trees), scored), NO_LEAF),
        "tree_spans": torch.full((len(trees), segments, 3), -1),
    }
    for row, (tree, offset) in enumerate(zip(trees, offsets, strict=False)):
        columns: dict[str, list[Any]] = {
            "input_ids": tree.tokens,
            "attention_mask": [1] * len(tree.tokens),
            "position_ids": tree.positions,
            "scored_positions": tree.scored_positions,
            "shift_labels": tree.labels,
            "leaf_ids": [offset + leaf for leaf in tree.leaves],
            "tree_spans": tree.spans,
        }
        for name, values in columns.items():
            packed[name][row, : len(values)] = torch.tensor(values)
    return packed
