"""Qwen2-VL (transformers `qwen2_vl`) with self-guided fact enhancement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import Qwen2VLConfig, Qwen2VLProcessor
from transformers.core_model_loading import WeightRenaming
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLForConditionalGeneration, Qwen2VLModel

from sage_trl.models.backbones.registry import Backbone, register
from sage_trl.models.fact_enhanced import FactEnhancedModelMixin
from sage_trl.models.fact_generation import FactEnhancedGenerationMixin
from sage_trl.models.fusion_settings import FusionSettings
from sage_trl.models.parts import Part
from sage_trl.models.patch_boxes import grid_boxes

# As in transformers, but for the fusion, which a hub checkpoint has no other name for.
KEY_RENAMING = (
    WeightRenaming(source_patterns=r"^visual", target_patterns="model.visual"),
    WeightRenaming(
        source_patterns=r"^model(?!\.(language_model|visual|fusion))", target_patterns="model.language_model"
    ),
)
PART_PREFIXES: dict[Part, tuple[str, ...]] = {
    "vision_encoder": ("model.visual.",),
    "projector": ("model.visual.merger.",),
    "fusion": ("model.fusion.",),
    "input_embeddings": ("model.language_model.embed_tokens.",),
    "language_model": ("model.language_model.", "lm_head."),
}


class SageQwen2VLConfig(FusionSettings, Qwen2VLConfig):
    """Qwen2-VL's configuration and that of the fusion."""

    model_type = "sage_qwen2_vl"


class GridMixin(FactEnhancedModelMixin):
    """What both generations of Qwen share: images as grids of patches, and positions with three axes.

    Rotary positions are counted from the token ids, which therefore go along.
    """

    image_inputs = ("pixel_values", "image_grid_thw")
    forwards_input_ids = True

    def pixels_per_image(self, images: Mapping[str, Tensor]) -> list[int]:
        """See `FactEnhancedModelMixin`."""
        counts: list[int] = images["image_grid_thw"].prod(dim=-1).tolist()
        return counts

    def tree_position_ids(self, **inputs: Any) -> Tensor:
        """`[3, B, T]`: as in one long text, put back by the tokens of other branches in between.

        All images stand in the root. Behind them every axis advances by one with each token, in a branch as in one
        long text.
        """
        names = ("input_ids", "mm_token_type_ids", "image_grid_thw", "attention_mask")
        inline: Tensor
        inline, _ = self.get_rope_index(  # type: ignore[attr-defined]
            **{name: inputs.get(name) for name in names}
        )
        along: Tensor = inputs["position_ids"]
        skipped = torch.arange(along.shape[1], device=along.device) - along
        return inline - skipped


class SageQwen2VLModel(GridMixin, Qwen2VLModel):
    """Qwen2-VL without language head, with the fusion under `fusion`."""

    config_class = SageQwen2VLConfig


class SageQwen2VLForConditionalGeneration(FactEnhancedGenerationMixin, Qwen2VLForConditionalGeneration):
    """Qwen2-VL with language head whose inner model fuses facts; see `FactEnhancedModelMixin.forward`."""

    config_class = SageQwen2VLConfig
    inner_class = SageQwen2VLModel
    part_prefixes: ClassVar[dict[Part, tuple[str, ...]]] = PART_PREFIXES


class GridProcessorMixin:
    """What the processors of both generations of Qwen share."""

    image_processor: Any

    def patch_boxes(self, size: tuple[int, int], _num_patches: int, _is_alone: bool) -> Tensor:
        """See `SageInternVLProcessor.patch_boxes`; here the patches are one grid, whatever else is in the prompt."""
        images = self.image_processor
        width, height = size
        side = images.patch_size * images.merge_size
        limits = {"min_pixels": images.size["shortest_edge"], "max_pixels": images.size["longest_edge"]}
        resized_height, resized_width = smart_resize(height, width, side, **limits)
        return grid_boxes(resized_height // side, resized_width // side)


class SageQwen2VLProcessor(GridProcessorMixin, Qwen2VLProcessor):
    """Qwen2-VL's processor without the video part, which would need torchvision."""

    def __init__(
        self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template, **kwargs)


BACKBONE = register(
    Backbone(
        config=SageQwen2VLConfig,
        model=SageQwen2VLForConditionalGeneration,
        processor=SageQwen2VLProcessor,
        base_config=Qwen2VLConfig,
        base_model=Qwen2VLForConditionalGeneration,
        base_inner=Qwen2VLModel,
        key_renaming=KEY_RENAMING,
    )
)
