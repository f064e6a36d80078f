"""Prompts that begin alike, with their images and facts, encoded once: a group's questions are put to one cache."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from sage_trl.models.adapters import unwrapped
from sage_trl.models.encoding import encode_prompt_ids, encode_prompts
from sage_trl.models.growing_cache import make_growing
from sage_trl.models.prompt import FACT_TOKEN
from sage_trl.models.same_images import ImageKeys
from sage_trl.trees.prefix_tree import common_prefix


@dataclass(frozen=True)
class SharedPrompts:
    """Prompts cut behind what they share.

    Attributes:
        prefixes: the model's batch of the shared beginnings, one for each images and facts. Padded on the right, so
            that every backbone counts their positions from zero.
        owners: `[rows]` the prefix of each row.
        suffix_ids: `[rows, T]` what follows of each row's prompt, padded on the left.
        suffix_mask: `[rows, T]`.
    """

    prefixes: dict[str, Tensor]
    owners: Tensor
    suffix_ids: Tensor
    suffix_mask: Tensor


def share_prompts(
    processor: Any, rows: Sequence[Mapping[str, Any]], options: Mapping[str, Any]
) -> SharedPrompts | None:
    """Cut the prompts of rows with decoded images; None where nothing is shared.

    Args:
        processor: a Sage processor.
        rows: as in `encode_prompts`.
        options: `facts` and `reference_in_prompt`.
    """
    key_of = ImageKeys()
    groups: dict[Any, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(key_of.of_row(row), []).append(index)
    if len(groups) == len(rows):
        return None
    batch = encode_prompts(processor, [rows[group[0]] for group in groups.values()], **options)
    prefixes, suffixes, owners = [], [[0]] * len(rows), [0] * len(rows)
    for number, (ids, mask, group) in enumerate(
        zip(batch["input_ids"], batch["attention_mask"], groups.values(), strict=True)
    ):
        prompts = encode_prompt_ids(processor, [rows[index] for index in group], ids[mask.bool()].tolist(), **options)
        prefix = functools.reduce(lambda one, other: one[: common_prefix(one, other)], prompts)
        # Something must be left of each prompt to predict its answer with.
        shared = min(len(prefix), *(len(prompt) - 1 for prompt in prompts))
        prefixes.append(prefix[:shared])
        for index, prompt in zip(group, prompts, strict=True):
            owners[index], suffixes[index] = number, prompt[shared:]
    shown = {processor.image_token_id, processor.tokenizer.convert_tokens_to_ids(FACT_TOKEN)}
    if any(shown.intersection(suffix) for suffix in suffixes):
        return None
    pad = processor.tokenizer.pad_token_id
    batch["input_ids"], batch["attention_mask"] = _pad(prefixes, pad, "right")
    if "mm_token_type_ids" in batch:
        batch["mm_token_type_ids"] = (batch["input_ids"] == processor.image_token_id).long()
    return SharedPrompts(batch, torch.tensor(owners), *_pad(suffixes, pad, "left"))


def generation_inputs(model: Any, prompts: SharedPrompts) -> dict[str, Any]:
    """Read the prefixes; what `generate` needs to go on from there with each row.

    Args:
        model: a fact-enhanced model.
        prompts: on the model's device.
    """
    cache = model(**prompts.prefixes, use_cache=True, logits_to_keep=1).past_key_values
    cache.batch_select_indices(prompts.owners)
    make_growing(cache)
    ids, mask = prompts.prefixes["input_ids"][prompts.owners], prompts.prefixes["attention_mask"][prompts.owners]
    attention_mask = torch.cat([mask, prompts.suffix_mask], dim=1)
    position_ids = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)
    # Qwen's images take fewer positions than tokens: text goes on from there, alike on all three axes.
    skipped = getattr(unwrapped(model).model, "rope_deltas", None)
    if skipped is not None:
        position_ids = (position_ids + skipped[prompts.owners]).expand(3, -1, -1)
    return {
        "input_ids": torch.cat([ids, prompts.suffix_ids], dim=1),
        "attention_mask": attention_mask,
        "position_ids": position_ids,
        "past_key_values": cache,
    }


def _pad(
    sequences: Sequence[Sequence[int]], pad_token_id: int, side: Literal["left", "right"]
) -> tuple[Tensor, Tensor]:
    """Token ids and mask, both `[rows, T]`."""
    ids = pad_sequence([torch.tensor(one) for one in sequences], True, pad_token_id, side)
    mask = pad_sequence([torch.ones(len(one), dtype=torch.long) for one in sequences], True, 0, side)
    return ids, mask
