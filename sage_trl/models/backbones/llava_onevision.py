"""LLaVA-OneVision (transformers `llava_onevision`) with self-guided fact enhancement."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor
from transformers import LlavaOnevisionConfig, LlavaOnevisionProcessor
from transformers.models.llava_onevision.modeling_llava_onevision import (
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionModel,
)

from sage_trl.models.backbones.anyres import AnyResolutionMixin, squared_boxes, squared_patches, tiled_boxes
from sage_trl.models.backbones.registry import Backbone, register
from sage_trl.models.fact_enhanced import FactEnhancedModelMixin
from sage_trl.models.fact_generation import FactEnhancedGenerationMixin
from sage_trl.models.fusion_settings import FusionSettings
from sage_trl.models.parts import Part


class SageLlavaOnevisionConfig(FusionSettings, LlavaOnevisionConfig):
    """LLaVA-OneVision's configuration and that of the fusion."""

    model_type = "sage_llava_onevision"


class SageLlavaOnevisionModel(AnyResolutionMixin, FactEnhancedModelMixin, LlavaOnevisionModel):
    """LLaVA-OneVision without language head, with the fusion under `fusion`."""

    config_class = SageLlavaOnevisionConfig
    image_inputs = ("pixel_values", "image_sizes", "batch_num_images")
    test_image_inputs = ("image_sizes",)

    def split_test_images(  # type: ignore[override]
        self, input_ids: Tensor, features: Sequence[Tensor], image_sizes: Tensor
    ) -> list[Tensor]:
        """As in the mixin, without the padding of an image that is not alone in its prompt.

        Args:
            image_sizes: `[images, 2]` height and width of all images of the prompts.
        """
        vision = self.config.vision_config
        side = vision.image_size // vision.patch_size
        rows = []
        for place in self.test_image_places(input_ids, features):
            patches = self.comparable_patches(features[place])
            if self.is_one_tile(features[place]):
                height, width = image_sizes[place].tolist()
                patches = patches[squared_patches((width, height), side).to(patches.device)]
            rows.append(patches)
        return rows


class SageLlavaOnevisionForConditionalGeneration(FactEnhancedGenerationMixin, LlavaOnevisionForConditionalGeneration):
    """LLaVA-OneVision with language head whose inner model fuses facts; see `FactEnhancedModelMixin.forward`."""

    config_class = SageLlavaOnevisionConfig
    inner_class = SageLlavaOnevisionModel
    part_prefixes: ClassVar[dict[Part, tuple[str, ...]]] = {
        "vision_encoder": ("model.vision_tower.",),
        "projector": ("model.multi_modal_projector.", "model.image_newline"),
        "fusion": ("model.fusion.",),
        "input_embeddings": ("model.language_model.embed_tokens.",),
        "language_model": ("model.language_model.", "lm_head."),
    }


class SageLlavaOnevisionProcessor(LlavaOnevisionProcessor):
    """LLaVA-OneVision's processor without the video part, which would need torchvision."""

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        num_image_tokens: int | None = None,
        vision_feature_select_strategy: str | None = None,
        chat_template: str | None = None,
        image_token: str = "<image>",
        video_token: str = "<video>",
        vision_aspect_ratio: str = "anyres_max_9",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            image_processor,
            tokenizer,
            num_image_tokens=num_image_tokens,
            vision_feature_select_strategy=vision_feature_select_strategy,
            chat_template=chat_template,
            image_token=image_token,
            video_token=video_token,
            vision_aspect_ratio=vision_aspect_ratio,
            **kwargs,
        )

    def patch_boxes(self, size: tuple[int, int], _num_patches: int, is_alone: bool) -> Tensor:
        """See `SageInternVLProcessor.patch_boxes`; only an image that is alone is cut into tiles."""
        side = math.isqrt(self.num_image_tokens)
        if not is_alone:
            return squared_boxes(size, side)
        images = self.image_processor
        most = int(self.vision_aspect_ratio.removeprefix("anyres_max_"))
        return tiled_boxes(size, images.image_grid_pinpoints, images.size["height"], side, most)


BACKBONE = register(
    Backbone(
        config=SageLlavaOnevisionConfig,
        model=SageLlavaOnevisionForConditionalGeneration,
        processor=SageLlavaOnevisionProcessor,
        base_config=LlavaOnevisionConfig,
        base_model=LlavaOnevisionForConditionalGeneration,
        base_inner=LlavaOnevisionModel,
    )
)
