"""InternVL 2.5, 3 and 3.5 (transformers `internvl`) with self-guided fact enhancement."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, InternVLConfig, InternVLProcessor
from transformers.models.internvl.modeling_internvl import (
    InternVLForConditionalGeneration,
    InternVLModel,
    InternVLPreTrainedModel,
)

from sage_trl.models.fact_enhanced import (
    FactEnhancedGenerationMixin,
    FactEnhancedModelMixin,
    register_base_key_renaming,
)
from sage_trl.models.fusion_attention import FusionAttention, FusionLinear, PatchFeature, PatchSimilarity
from sage_trl.models.parts import Part


class SageInternVLConfig(InternVLConfig):
    """InternVL's configuration and that of the fusion (DESIGN: "Saved with a model or adapter").

    Args:
        fact_token_id: id of the `<fact>` placeholder; it may lie beyond the embedding matrix.
        num_selected_patches: K of eq. 1.
        fusion_num_heads: heads of eq. 2.
        patch_similarity: `nearest` or `farthest` (eq. 1).
        fusion_keys, fusion_values: `patch` or `difference` (eq. 2).
    """

    model_type = "sage_internvl"

    fact_token_id: int | None = None
    num_selected_patches: int = 16
    fusion_num_heads: int = 8
    patch_similarity: PatchSimilarity = "nearest"
    fusion_keys: PatchFeature = "difference"
    fusion_values: PatchFeature = "difference"


class SageInternVLPreTrainedModel(InternVLPreTrainedModel):
    """Initialises the fusion beside InternVL's own layers."""

    # transformers would read the class from an annotation of `config`, which is a string here.
    config_class = SageInternVLConfig

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, FusionLinear):
            module.reset_parameters()
        else:
            super()._init_weights(module)


class SageInternVLModel(FactEnhancedModelMixin, InternVLModel, SageInternVLPreTrainedModel):
    """InternVL without language head, with the fusion under `fusion`; every other parameter keeps its name."""

    config_class = SageInternVLConfig

    def __init__(self, config: SageInternVLConfig) -> None:
        super().__init__(config)
        self.fusion = FusionAttention(config.text_config.hidden_size, config.fusion_num_heads)
        self.post_init()

    def scatter_images(self, input_ids: Tensor, inputs_embeds: Tensor, features: Tensor) -> Tensor:
        features = features.to(inputs_embeds.device, inputs_embeds.dtype)
        mask = self.get_placeholder_mask(input_ids, inputs_embeds=inputs_embeds, image_features=features)
        return inputs_embeds.masked_scatter(mask, features)

    def split_patches(self, features: Tensor, num_tiles: list[int]) -> list[Tensor]:
        """Comparable patches of each image: all tiles but the thumbnail, which shows the whole image once more.

        Args:
            features: `[tiles, S, C]` projected features of all images in order.
            num_tiles: tiles of each image; above one the last is the thumbnail.
        """
        images = torch.split(features, num_tiles)
        return [(tiles[:-1] if len(tiles) > 1 else tiles).flatten(0, 1) for tiles in images]

    def split_test_patches(self, input_ids: Tensor, features: Tensor, num_tiles: Tensor | None) -> list[Tensor]:
        """Comparable patches of each row's test image, the last image of its prompt."""
        per_row = ((input_ids == self.config.image_token_id).sum(dim=1) // features.shape[1]).tolist()
        of_test = per_row if num_tiles is None else num_tiles.tolist()
        rows = zip(torch.split(features, per_row), of_test, strict=True)
        return self.split_patches(torch.cat([tiles[len(tiles) - count :] for tiles, count in rows]), of_test)


class SageInternVLForConditionalGeneration(
    FactEnhancedGenerationMixin, InternVLForConditionalGeneration, SageInternVLPreTrainedModel
):
    """InternVL with language head whose inner model fuses facts; see `FactEnhancedModelMixin.forward`."""

    config_class = SageInternVLConfig
    part_prefixes: ClassVar[dict[Part, tuple[str, ...]]] = {
        "vision_encoder": ("model.vision_tower.",),
        "projector": ("model.multi_modal_projector.",),
        "fusion": ("model.fusion.",),
        "input_embeddings": ("model.language_model.embed_tokens.",),
        "language_model": ("model.language_model.", "lm_head."),
    }

    def __init__(self, config: SageInternVLConfig) -> None:
        # Skips InternVL's own constructor, which would build a second, plain inner model.
        InternVLPreTrainedModel.__init__(self, config)
        self.model = SageInternVLModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        fact_input_ids: Tensor | None = None,
        fact_attention_mask: Tensor | None = None,
        reference_pixel_values: Tensor | None = None,
        reference_num_tiles: Tensor | None = None,
        reference_mask: Tensor | None = None,
        test_num_tiles: Tensor | None = None,
        mm_encoder_outputs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        # Every argument is named because `generate` checks its inputs against this signature.
        return super().forward(
            input_ids=input_ids,
            pixel_values=pixel_values,
            attention_mask=attention_mask,
            labels=labels,
            fact_input_ids=fact_input_ids,
            fact_attention_mask=fact_attention_mask,
            reference_pixel_values=reference_pixel_values,
            reference_num_tiles=reference_num_tiles,
            reference_mask=reference_mask,
            test_num_tiles=test_num_tiles,
            mm_encoder_outputs=mm_encoder_outputs,
            **kwargs,
        )


class SageInternVLProcessor(InternVLProcessor):
    """InternVL's processor without the video part, which would need torchvision."""

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        image_seq_length: int = 256,
        chat_template: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            image_processor, tokenizer, image_seq_length=image_seq_length, chat_template=chat_template, **kwargs
        )


AutoConfig.register("sage_internvl", SageInternVLConfig)
AutoModelForImageTextToText.register(SageInternVLConfig, SageInternVLForConditionalGeneration)
AutoProcessor.register(SageInternVLConfig, SageInternVLProcessor)
register_base_key_renaming(SageInternVLModel, InternVLModel, "internvl")
register_base_key_renaming(SageInternVLForConditionalGeneration, InternVLForConditionalGeneration, "internvl")
