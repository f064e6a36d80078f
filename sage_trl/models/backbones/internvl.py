"""InternVL 2.5, 3 and 3.5 (transformers `internvl`) with self-guided fact enhancement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import InternVLConfig, InternVLProcessor
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas
from transformers.models.internvl.modeling_internvl import InternVLForConditionalGeneration, InternVLModel

from sage_trl.models.backbones.registry import Backbone, register
from sage_trl.models.fact_enhanced import FactEnhancedModelMixin
from sage_trl.models.fact_generation import FactEnhancedGenerationMixin
from sage_trl.models.fusion_settings import FusionSettings
from sage_trl.models.parts import Part
from sage_trl.models.patch_boxes import tile_boxes


class SageInternVLConfig(FusionSettings, InternVLConfig):
    """InternVL's configuration and that of the fusion."""

    model_type = "sage_internvl"


class SageInternVLModel(FactEnhancedModelMixin, InternVLModel):
    """InternVL without language head, with the fusion under `fusion`.

    Its image features are one tensor per tile, so the number of tiles of each image comes along: `reference_num_tiles`
    for the references and, where a prompt shows several images, `test_num_tiles` `[B]` for its last.
    """

    config_class = SageInternVLConfig
    image_inputs = ("pixel_values",)
    fact_inputs = ("test_num_tiles", "reference_num_tiles")

    def split_images(self, features: Tensor, num_tiles: Tensor) -> list[Tensor]:  # type: ignore[override]
        """Comparable patches of each image: all tiles but the thumbnail, which shows the whole image once more.

        Args:
            features: `[tiles, S, C]` of all images in order.
            num_tiles: `[images]`; above one the last tile is the thumbnail.
        """
        images = torch.split(features, num_tiles.tolist())
        return [(tiles[:-1] if len(tiles) > 1 else tiles).flatten(0, 1) for tiles in images]

    def pixels_per_image(self, images: Mapping[str, Tensor]) -> list[int]:
        """See `FactEnhancedModelMixin`."""
        counts: list[int] = images["num_tiles"].tolist()
        return counts

    def repeat_images(  # type: ignore[override]
        self, features: Tensor, image_index: Tensor, num_tiles: Tensor
    ) -> Tensor:
        """See `FactEnhancedModelMixin`; `num_tiles` `[images]` counts the tiles of all images of the batch."""
        listed = image_index.tolist()
        counts = [int(num_tiles[listed.index(image)]) for image in range(max(listed) + 1)]
        tiles = torch.split(features, counts)
        return torch.cat([tiles[image] for image in listed])

    def split_test_images(  # type: ignore[override]
        self, input_ids: Tensor, features: Tensor, test_num_tiles: Tensor | None = None
    ) -> list[Tensor]:
        """As in the mixin; without `test_num_tiles` all tiles of a row are of its only image."""
        per_row = (input_ids == self.config.image_token_id).sum(dim=1) // features.shape[1]
        of_test = per_row if test_num_tiles is None else test_num_tiles
        rows = zip(torch.split(features, per_row.tolist()), of_test.tolist(), strict=True)
        return self.split_images(torch.cat([tiles[len(tiles) - count :] for tiles, count in rows]), of_test)


class SageInternVLForConditionalGeneration(FactEnhancedGenerationMixin, InternVLForConditionalGeneration):
    """InternVL with language head whose inner model fuses facts; see `FactEnhancedModelMixin.forward`."""

    config_class = SageInternVLConfig
    inner_class = SageInternVLModel
    part_prefixes: ClassVar[dict[Part, tuple[str, ...]]] = {
        "vision_encoder": ("model.vision_tower.",),
        "projector": ("model.multi_modal_projector.",),
        "fusion": ("model.fusion.",),
        "input_embeddings": ("model.language_model.embed_tokens.",),
        "language_model": ("model.language_model.", "lm_head."),
    }


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

    def count_tiles(self, input_ids: Tensor) -> Tensor:
        """Tiles of each row's images, `[B]`, by their tokens: the image processor drops the counts after use."""
        image_token_id: int = self.image_token_id
        image_seq_length: int = self.image_seq_length
        return (input_ids == image_token_id).sum(dim=1) // image_seq_length

    def patch_boxes(self, size: tuple[int, int], num_patches: int, _is_alone: bool) -> Tensor:
        """Boxes of an image's comparable patches, `[num_patches, 4]` in fractions; see `patch_boxes.grid_boxes`.

        Args:
            size: width and height of the image.
            num_patches: how many patches the model compares of it.
            _is_alone: whether it is the only image of its prompt, which decides nothing here.
        """
        per_tile: int = self.image_seq_length
        if num_patches == per_tile:
            return tile_boxes(1, 1, per_tile)
        images = self.image_processor
        width, height = size
        columns, rows = get_optimal_tiled_canvas(
            (height, width), (images.size["height"], images.size["width"]), images.min_patches, images.max_patches
        )
        return tile_boxes(rows, columns, per_tile)


BACKBONE = register(
    Backbone(
        config=SageInternVLConfig,
        model=SageInternVLForConditionalGeneration,
        processor=SageInternVLProcessor,
        base_config=InternVLConfig,
        base_model=InternVLForConditionalGeneration,
        base_inner=InternVLModel,
    )
)
