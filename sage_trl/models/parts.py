"""Trainable parts by name (paper sections 3.3 and 3.4): who learns in which stage, and how large each part is."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import nn

Part = Literal["vision_encoder", "projector", "fusion", "input_embeddings", "language_model"]
PARTS: tuple[Part, ...] = get_args(Part)
# The adapter that trains; PEFT's name for the first one.
POLICY_ADAPTER = "default"
PEFT_PREFIX = "base_model.model."


@dataclass(frozen=True)
class PartSize:
    """Number of parameters of one part, and how many of them train."""

    part: Part
    parameters: int
    trainable: int


def part_of(model: Any, parameter_name: str) -> Part:
    """The part a parameter belongs to, by the prefixes that the backbone's class declares in `part_prefixes`.

    Raises:
        ValueError: no prefix fits. Every parameter must belong to a part, or freezing would miss it.
    """
    name = parameter_name.removeprefix(PEFT_PREFIX)
    fitting = [
        (len(prefix), part)
        for part, prefixes in model.part_prefixes.items()
        for prefix in prefixes
        if name.startswith(prefix)
    ]
    if not fitting:
        raise ValueError(f"parameter {parameter_name!r} belongs to no part of {type(model).__name__}")
    part: Part = max(fitting)[1]
    return part


def adapter_of(parameter_name: str) -> str | None:
    """The PEFT adapter that a parameter belongs to, None for the base's own."""
    found = re.search(r"\.(?:lora_[A-Za-z_]+|modules_to_save)\.([^.]+)", parameter_name)
    return found.group(1) if found else None


def check_train_parts(parts: Collection[str]) -> None:
    """Check names of parts.

    Raises:
        ValueError: an unknown part, or none at all.
    """
    unknown = sorted(set(parts) - set(PARTS))
    if unknown or not parts:
        raise ValueError(f"train_parts {unknown or list(parts)} cannot train; choose from {', '.join(PARTS)}")


def set_trainable_parts(model: nn.Module, parts: Collection[str]) -> list[PartSize]:
    """Let exactly `parts` train and freeze all else; of a model in a PEFT wrapper, the adapter's share of them.

    The embedding matrix belongs to `input_embeddings`; where the head is tied to it, so does the head.

    Returns:
        The size of every part, in the order of `PARTS`; a frozen second adapter and the originals of modules that an
        adapter replaces are not counted.

    Raises:
        ValueError: an unknown part, or none at all.
    """
    check_train_parts(parts)
    trains = POLICY_ADAPTER if hasattr(model, "peft_config") else None
    counts = {part: [0, 0] for part in PARTS}
    for name, parameter in model.named_parameters():
        part, adapter = part_of(model, name), adapter_of(name)
        parameter.requires_grad_(part in parts and adapter == trains)
        if adapter in (None, POLICY_ADAPTER) and ".original_module." not in name:
            counts[part][0] += _num_weights(parameter)
            counts[part][1] += parameter.numel() if parameter.requires_grad else 0
    return [PartSize(part, *counts[part]) for part in PARTS]


def _num_weights(parameter: nn.Parameter) -> int:
    # bitsandbytes packs two weights into a byte, and one byte is one element.
    quantized = getattr(parameter, "quant_state", None)
    return parameter.numel() if quantized is None else math.prod(quantized.shape)
