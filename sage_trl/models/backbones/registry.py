"""What a backbone is, and what transformers must know of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
from transformers.conversion_mapping import get_checkpoint_conversion_mapping, register_checkpoint_conversion_mapping
from transformers.core_model_loading import WeightRenaming


@dataclass(frozen=True)
class Backbone:
    """The classes of ours for one base model.

    Attributes:
        config, model, processor: our configuration, outer model and processor.
        base_config, base_model, base_inner: the classes of transformers that ours extend.
        key_renaming: from a hub checkpoint's tensor names to the outer model's; None takes the base's.
    """

    config: Any
    model: Any
    processor: Any
    base_config: Any
    base_model: Any
    base_inner: Any
    key_renaming: Sequence[WeightRenaming] | None = None

    @property
    def base_model_type(self) -> str:
        """`model_type` of the base's configuration."""
        name: str = self.base_config.model_type
        return name

    @property
    def model_type(self) -> str:
        """`model_type` of our configuration."""
        name: str = self.config.model_type
        return name


def register(backbone: Backbone) -> Backbone:
    """Make the Auto classes know a backbone, and let hub checkpoints of its base load whole."""
    AutoConfig.register(backbone.model_type, backbone.config)
    AutoModelForImageTextToText.register(backbone.config, backbone.model)
    AutoProcessor.register(backbone.config, backbone.processor)
    _register_key_renaming(
        backbone.model,
        backbone.key_renaming or _key_renaming(backbone.base_model, backbone.base_model_type),
    )
    _register_key_renaming(backbone.model.inner_class, _key_renaming(backbone.base_inner, backbone.base_model_type))
    return backbone


def _key_renaming(base: type, base_model_type: str) -> Sequence[WeightRenaming] | None:
    by_class = get_checkpoint_conversion_mapping(base.__name__)
    renaming: Sequence[WeightRenaming] | None = (
        get_checkpoint_conversion_mapping(base_model_type) if by_class is None else by_class
    )
    return renaming


def _register_key_renaming(ours: type, renaming: Sequence[WeightRenaming] | None) -> None:
    # transformers skips the renaming for custom classes: the renamed tensors would silently stay random.
    if renaming is not None:
        register_checkpoint_conversion_mapping(ours.__name__, list(renaming), overwrite=True)
