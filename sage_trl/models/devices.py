"""Where a model that only answers runs, and in which type."""

from __future__ import annotations

import torch


def inference_device() -> torch.device:
    """The accelerator, if there is one."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return accelerator or torch.device("cpu")


def inference_dtype(device: torch.device) -> torch.dtype | str:
    """The checkpoint's own type on an accelerator, fp32 on a CPU."""
    return torch.float32 if device.type == "cpu" else "auto"
