"""Trainable parts by name (paper sections 3.3 and 3.4): who learns in which stage, and how large each part is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import nn

Part = Literal["vision_encoder", "projector", "fusion", "input_embeddings", "language_model"]
PARTS: tuple[Part, ...] = get_args(Part)


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
    fitting = [
        (len(prefix), part)
        for part, prefixes in model.part_prefixes.items()
        for prefix in prefixes
        if parameter_name.startswith(prefix)
    ]
    if not fitting:
        raise ValueError(f"parameter {parameter_name!r} belongs to no part of {type(model).__name__}")
    part: Part = max(fitting)[1]
    return part


def set_trainable_parts(model: nn.Module, parts: Iterable[str]) -> list[PartSize]:
    """Let exactly `parts` train and freeze all else.

    The embedding matrix belongs to `input_embeddings`; where the head is tied to it, so does the head.

    Returns:
        The size of every part, in the order of `PARTS`.

    Raises:
        ValueError: an unknown part, or none at all.
    """
    wanted = set(parts)
    unknown = sorted(wanted - set(PARTS))
    if unknown or not wanted:
        raise ValueError(f"train_parts {unknown or list(wanted)} cannot train; choose from {', '.join(PARTS)}")
    counts = {part: [0, 0] for part in PARTS}
    for name, parameter in model.named_parameters():
        part = part_of(model, name)
        parameter.requires_grad_(part in wanted)
        counts[part][0] += parameter.numel()
        counts[part][1] += parameter.numel() if part in wanted else 0
    return [PartSize(part, *counts[part]) for part in PARTS]
