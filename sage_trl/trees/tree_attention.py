"""Attention limited to a token's ancestors, as a dense mask or split by branches.

The dense form is a mask that every implementation of transformers takes. The split form is an attention function of its
own, `sage_tree`: a model whose text part runs on it computes trees where a `tree` argument comes with the batch, and
plain SDPA elsewhere, so that it generates as ever. It runs on FlashAttention where that can, else on SDPA.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from sage_trl.trees.spans import Span, read_spans
from sage_trl.trees.varlen_attention import VarlenTrees, attend_varlen, half_precision, varlen_trees

SPLIT_ATTENTION = "sage_tree"


def ancestor_mask(spans: list[Span], start: int, stop: int) -> Tensor:
    """`[stop - start, stop - start]`, true where a token sees another of the same window.

    A token outside every segment, which is padding, sees itself, so that no row of the softmax is empty.
    """
    mask = torch.eye(stop - start, dtype=torch.bool)
    for first, last, parent in spans:
        if first < start or last > stop:
            continue
        own = slice(first - start, last - start)
        mask[own, own] = torch.ones(last - first, last - first, dtype=torch.bool).tril()
        above = parent
        while above >= 0 and spans[above][0] >= start:
            mask[own, spans[above][0] - start : spans[above][1] - start] = True
            above = spans[above][2]
    return mask


def dense_mask(tree_spans: Tensor, length: int) -> Tensor:
    """`[B, 1, length, length]`, true where a token sees another."""
    rows = [ancestor_mask(spans, 0, length) for spans in read_spans(tree_spans)]
    return torch.stack(rows)[:, None].to(tree_spans.device)


@dataclass(frozen=True)
class SplitTree:
    """One row of a batch: a root, and behind it its branches, each with all that follows from one segment below it.

    Attributes:
        root: the number of its tokens.
        masks: of each branch `[tokens, root + tokens]`, true where one of its tokens sees one of the root or of itself.
    """

    root: int
    masks: tuple[Tensor, ...]


def split_trees(tree_spans: Tensor) -> tuple[SplitTree, ...]:
    """Prepare the split attention of a batch of trees, `[B, S, 3]`; see `read_spans`."""
    return tuple(_split(spans, tree_spans.device) for spans in read_spans(tree_spans))


def _split(spans: list[Span], device: torch.device) -> SplitTree:
    tops = [index for index, (_, _, parent) in enumerate(spans) if parent < 0]
    # Sequences that share no beginning hang below a root without tokens.
    root, top = (spans[0][1], 0) if len(tops) == 1 else (0, -1)
    starts = [start for start, _, parent in spans if parent == top]
    stops = [*starts[1:], spans[-1][1]]
    masks = []
    for start, stop in zip(starts, stops, strict=True):
        own = ancestor_mask(spans, start, stop)
        masks.append(torch.cat([own.new_ones(stop - start, root), own], dim=1).to(device))
    return SplitTree(root, tuple(masks))


def prepare_split(tree_spans: Tensor, length: int, dtype: torch.dtype) -> VarlenTrees | tuple[SplitTree, ...]:
    """The `tree` argument of `split_attention_forward`.

    Args:
        tree_spans: `[B, S, 3]`; see `read_spans`.
        length: tokens of a row.
        dtype: of the model.
    """
    if half_precision(tree_spans.device, dtype) is not None:
        return varlen_trees(tree_spans, length)
    return split_trees(tree_spans)


def split_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    tree: VarlenTrees | tuple[SplitTree, ...] | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """An attention function of transformers: `[B, heads, T, D]` in, `[B, T, heads, D]` out."""
    if tree is None:
        plain: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return plain
    if isinstance(tree, VarlenTrees):
        return attend_varlen(query, key, value, tree, dropout, scaling), None
    groups = getattr(module, "num_key_value_groups", 1)
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    one_by_one = zip(torch.split(query, 1), torch.split(key, 1), torch.split(value, 1), tree, strict=True)
    rows = [_attend(q, k, v, one, dropout, scaling) for q, k, v, one in one_by_one]
    return torch.cat(rows).transpose(1, 2).contiguous(), None


def _attend(
    query: Tensor, key: Tensor, value: Tensor, tree: SplitTree, dropout: float, scaling: float | None
) -> Tensor:
    """One row, `[1, heads, T, D]`: the root causally, then each branch over the root and itself."""
    attend = functional.scaled_dot_product_attention
    sizes = [tree.root, *(len(mask) for mask in tree.masks)]
    padding = query.shape[2] - sum(sizes)
    # Split at once: the gradient of each slice would be a whole row of zeros but for its own place.
    pieces_of = [torch.split(each, [*sizes, padding], dim=2)[:-1] for each in (query, key, value)]
    (root_query, *queries), (root_key, *keys), (root_value, *values) = pieces_of
    pieces = []
    if tree.root:
        pieces.append(attend(root_query, root_key, root_value, is_causal=True, dropout_p=dropout, scale=scaling))
    for mask, own_query, own_key, own_value in zip(tree.masks, queries, keys, values, strict=True):
        keys_seen, values_seen = torch.cat([root_key, own_key], dim=2), torch.cat([root_value, own_value], dim=2)
        pieces.append(attend(own_query, keys_seen, values_seen, attn_mask=mask, dropout_p=dropout, scale=scaling))
    return functional.pad(torch.cat(pieces, dim=2), (0, 0, 0, padding))


AttentionInterface.register(SPLIT_ATTENTION, split_attention_forward)
# What comes without a tree is masked as for SDPA.
AttentionMaskInterface.register(SPLIT_ATTENTION, sdpa_mask)
