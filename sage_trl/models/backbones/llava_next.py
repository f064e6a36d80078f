"""LLaVA-1.6 (transformers `llava_next`) with self-guided fact enhancement."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor
from transformers import LlavaNextConfig, LlavaNextProcessor
from transformers.models.llava_next.modeling_llava_next import LlavaNextForConditionalGeneration, LlavaNextModel

from sage_trl.models.backbones.anyres import AnyResolutionMixin, tiled_boxes
from sage_trl.models.backbones.registry import Backbone, register
from sage_trl.models.fact_enhanced import FactEnhancedModelMixin
from sage_trl.models.fact_generation import FactEnhancedGenerationMixin
from sage_trl.models.fusion_settings import FusionSettings
from sage_trl.models.parts import Part


class SageLlavaNextConfig(FusionSettings, LlavaNextConfig):
    """LLaVA-1.6's configuration and that of the fusion."""

    model_type = "sage_llava_next"


class SageLlavaNextModel(AnyResolutionMixin, FactEnhancedModelMixin, LlavaNextModel):
    """LLaVA-1.6 without language head, with the fusion under `fusion`."""

    config_class = SageLlavaNextConfig
    image_inputs = ("pixel_values", "image_sizes")


class SageLlavaNextForConditionalGeneration(FactEnhancedGenerationMixin, LlavaNextForConditionalGeneration):
    """LLaVA-1.6 with language head whose inner model fuses facts; see `FactEnhancedModelMixin.forward`."""

    config_class = SageLlavaNextConfig
    inner_class = SageLlavaNextModel
    part_prefixes: ClassVar[dict[Part, tuple[str, ...]]] = {
        "vision_encoder": ("model.vision_tower.",),
        "projector": ("model.multi_modal_projector.", "model.image_newline"),
        "fusion": ("model.fusion.",),
        "input_embeddings": ("model.language_model.embed_tokens.",),
        "language_model": ("model.language_model.", "lm_head."),
    }


class SageLlavaNextProcessor(LlavaNextProcessor):
    """LLaVA-1.6's processor.

    Old configurations leave out `num_additional_image_tokens`: where the class token is dropped afterwards
    (`default`), there is one.
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        patch_size: int | None = None,
        vision_feature_select_strategy: str | None = None,
        chat_template: str | None = None,
        image_token: str = "<image>",
        num_additional_image_tokens: int | None = None,
        **kwargs: Any,
    ) -> None:
        if num_additional_image_tokens is None:
            num_additional_image_tokens = int(vision_feature_select_strategy == "default")
        super().__init__(
            image_processor,
            tokenizer,
            patch_size=patch_size,
            vision_feature_select_strategy=vision_feature_select_strategy,
            chat_template=chat_template,
            image_token=image_token,
            num_additional_image_tokens=num_additional_image_tokens,
            **kwargs,
        )

    def patch_boxes(self, size: tuple[int, int], _num_patches: int, _is_alone: bool) -> Tensor:
        """See `SageInternVLProcessor.patch_boxes`; every image is cut into tiles, whatever else is in the prompt."""
        images = self.image_processor
        tile: int = images.crop_size["height"]
        return tiled_boxes(size, images.image_grid_pinpoints, tile, tile // self.patch_size)


BACKBONE = register(
    Backbone(
        config=SageLlavaNextConfig,
        model=SageLlavaNextForConditionalGeneration,
        processor=SageLlavaNextProcessor,
        base_config=LlavaNextConfig,
        base_model=LlavaNextForConditionalGeneration,
        base_inner=LlavaNextModel,
    )
)
