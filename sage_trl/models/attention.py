"""Which attention kernel a model runs on."""

from __future__ import annotations

import logging

import torch
from transformers.utils import is_flash_attn_2_available

from sage_trl.models.remote_code import refuse_unpinned_kernel

logger = logging.getLogger(__name__)
HALF_PRECISION = (torch.float16, torch.bfloat16)


def choose_attention(requested: str, compute_dtype: torch.dtype) -> str:
    """Resolve `auto`: FlashAttention where it is installed and usable, else SDPA; says which.

    Args:
        requested: `auto`, or a name that transformers knows, which is returned as it is.
        compute_dtype: what the model computes in, weights or autocast; FlashAttention takes half precision only.

    Raises:
        DataError: a kernel from the hub, which is code, without the commit that pins it.
    """
    refuse_unpinned_kernel(requested)
    if requested != "auto":
        return requested
    is_half = compute_dtype in HALF_PRECISION
    chosen = "flash_attention_2" if is_half and is_flash_attn_2_available() else "sdpa"
    logger.info("attention: %s", chosen)
    return chosen
