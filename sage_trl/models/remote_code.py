"""Code from the hub runs only where a commit pins it: behind a branch or a tag it may be another one tomorrow."""

from __future__ import annotations

import re
from pathlib import Path

from transformers.modeling_flash_attention_utils import (
    FLASH_ATTENTION_COMPATIBILITY_MATRIX,
    FLASH_ATTN_KERNEL_FALLBACK,
)
from transformers.utils import is_kernels_available

from sage_trl.errors import DataError
from sage_trl.models.adapters import Source


def refuse_unpinned_code(source: Source) -> None:
    """Refuse a trusted checkpoint of which no commit on the hub is named.

    Raises:
        DataError: names the key, its value and the remedy.
    """
    if not source.trust_remote_code:
        return
    if Path(source.name).is_dir():
        problem = "trust_remote_code: no revision pins the code in a directory"
        raise DataError.at(source.name, None, problem, "leave trust_remote_code out, or name a model on the hub")
    if not _is_commit(source.revision or ""):
        problem = f"trust_remote_code: revision is {source.revision!r}, behind which the code may change"
        remedy = (
            "set revision to the 40 hex digits of a commit whose code you have read, or leave trust_remote_code out"
        )
        raise DataError.at(source.name, None, problem, remedy)


def refuse_unpinned_kernel(attention: str) -> None:
    """Refuse an attention kernel from the hub without its commit: `OWNER/NAME@COMMIT`, then perhaps `:FUNCTION`.

    Where FlashAttention is not installed but the package `kernels` is, transformers takes its kernel from the hub: then
    `flash_attention_2` is refused too.

    Raises:
        DataError: names the key, its value and the remedy.
    """
    if "/" in attention and not _is_commit(attention.partition("@")[2].partition(":")[0]):
        problem = f"attention kernel {attention!r}: it is code from the hub, which may change"
        remedy = "set attn_implementation to OWNER/NAME@ and the 40 hex digits of a commit, or to auto"
        raise DataError(f"{problem}\n  remedy: {remedy}")
    if attention in FLASH_ATTN_KERNEL_FALLBACK and is_kernels_available():
        version = FLASH_ATTENTION_COMPATIBILITY_MATRIX[int(attention.rpartition("_")[2])]
        if not version["general_availability_check"]():
            problem = f"attention {attention!r}: it is not installed, and transformers would run a kernel from the hub"
            remedy = "install it, or set attn_implementation to auto"
            raise DataError(f"{problem}, {FLASH_ATTN_KERNEL_FALLBACK[attention]}\n  remedy: {remedy}")


def _is_commit(revision: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{40}", revision) is not None
