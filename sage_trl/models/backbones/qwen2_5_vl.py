"""Qwen2.5-VL (transformers `qwen2_5_vl`) with self-guided fact enhancement."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import Qwen2_5_VLConfig, Qwen2_5_VLProcessor
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLModel

from sage_trl.models.backbones.qwen2_vl import KEY_RENAMING, PART_PREFIXES, GridMixin, GridProcessorMixin
from sage_trl.models.backbones.registry import Backbone, register
from sage_trl.models.fact_generation import FactEnhancedGenerationMixin
from sage_trl.models.fusion_settings import FusionSettings
from sage_trl.models.parts import Part


class SageQwen2_5_VLConfig(FusionSettings, Qwen2_5_VLConfig):
    """Qwen2.5-VL's configuration and that of the fusion."""

    model_type = "sage_qwen2_5_vl"


class SageQwen2_5_VLModel(GridMixin, Qwen2_5_VLModel):
    """Qwen2.5-VL without language head, with the fusion under `fusion`."""

    config_class = SageQwen2_5_VLConfig


class SageQwen2_5_VLForConditionalGeneration(FactEnhancedGenerationMixin, Qwen2_5_VLForConditionalGeneration):
    """Qwen2.5-VL with language head whose inner model fuses facts; see `FactEnhancedModelMixin.forward`."""

    config_class = SageQwen2_5_VLConfig
    inner_class = SageQwen2_5_VLModel
    part_prefixes: ClassVar[dict[Part, tuple[str, ...]]] = PART_PREFIXES


class SageQwen2_5_VLProcessor(GridProcessorMixin, Qwen2_5_VLProcessor):
    """Qwen2.5-VL's processor without the video part, which would need torchvision."""

    def __init__(
        self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template, **kwargs)


BACKBONE = register(
    Backbone(
        config=SageQwen2_5_VLConfig,
        model=SageQwen2_5_VLForConditionalGeneration,
        processor=SageQwen2_5_VLProcessor,
        base_config=Qwen2_5_VLConfig,
        base_model=Qwen2_5_VLForConditionalGeneration,
        base_inner=Qwen2_5_VLModel,
        key_renaming=KEY_RENAMING,
    )
)
