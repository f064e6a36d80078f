"""The split form of tree attention as one call of FlashAttention's varlen kernel, on CUDA in half precision.

Every segment is a sequence of its own whose keys are those of the segments above it and its own. The kernel aligns its
causal mask at the end: query i of n sees the first m - n + i + 1 of m keys, which is a token's own branch and no more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from transformers.utils import is_flash_attn_2_available

from sage_trl.trees.spans import read_spans

HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class VarlenTrees:
    """A batch of trees for one call.

    Attributes:
        queries: `[Q]` places of the real tokens in the flattened batch, `B * T`.
        keys: `[K]` places of the keys that each segment sees, one segment after the other.
        query_starts, key_starts: `[segments + 1]` int32, where each segment's begin.
        longest_query, longest_key: the most of one segment.
    """

    queries: Tensor
    keys: Tensor
    query_starts: Tensor
    key_starts: Tensor
    longest_query: int
    longest_key: int


def half_precision(device: torch.device, dtype: torch.dtype) -> torch.dtype | None:
    """The precision in which FlashAttention can run here: the model's, or autocast's. None where it cannot."""
    if device.type != "cuda" or not is_flash_attn_2_available():
        return None
    if torch.is_autocast_enabled("cuda"):
        dtype = torch.get_autocast_dtype("cuda")
    return dtype if dtype in HALF else None


def varlen_trees(tree_spans: Tensor, length: int) -> VarlenTrees:
    """Prepare a batch of trees, `[B, S, 3]` spans in rows of `length` tokens; see `read_spans`."""
    queries, keys, query_counts, key_counts = [], [], [], []
    for row, spans in enumerate(read_spans(tree_spans)):
        paths: list[list[int]] = []
        for start, stop, parent in spans:
            own = list(range(row * length + start, row * length + stop))
            paths.append((paths[parent] if parent >= 0 else []) + own)
            queries += own
            keys += paths[-1]
            query_counts.append(len(own))
            key_counts.append(len(paths[-1]))

    def starts(counts: list[int]) -> Tensor:
        return torch.tensor(list(accumulate(counts, initial=0)), dtype=torch.int32, device=tree_spans.device)

    return VarlenTrees(
        torch.tensor(queries, device=tree_spans.device),
        torch.tensor(keys, device=tree_spans.device),
        starts(query_counts),
        starts(key_counts),
        max(query_counts),
        max(key_counts),
    )


def attend_varlen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    trees: VarlenTrees,
    dropout: float,
    scaling: float | None,
    kernel: Callable[..., Tensor] | None = None,
) -> Tensor:
    """`[B, heads, T, D]` queries and `[B, key heads, T, D]` keys and values -> `[B, T, heads, D]`, zero at padding.

    Args:
        query, key, value: half precision, or fp32 under autocast, as rotary embeddings leave them.
        trees: of the batch.
        dropout: of the attention's weights.
        scaling: of the products, None for 1 / sqrt(D).
        kernel: FlashAttention's `flash_attn_varlen_func`, or one that does the same.
    """
    kernel = kernel or _flash_attn_varlen()
    batch, heads, length, width = query.shape
    half = half_precision(query.device, query.dtype) or query.dtype

    def flat(states: Tensor, places: Tensor) -> Tensor:
        return states.transpose(1, 2).flatten(0, 1).to(half)[places]

    attended = kernel(
        flat(query, trees.queries),
        flat(key, trees.keys),
        flat(value, trees.keys),
        trees.query_starts,
        trees.key_starts,
        trees.longest_query,
        trees.longest_key,
        dropout_p=dropout,
        softmax_scale=scaling,
        causal=True,
    )
    whole = attended.new_zeros(batch * length, heads, width).index_copy(0, trees.queries, attended)
    return whole.view(batch, length, heads, width)


def _flash_attn_varlen() -> Any:
    from flash_attn import flash_attn_varlen_func  # noqa: PLC0415 - an extra that needs CUDA

    return flash_attn_varlen_func
