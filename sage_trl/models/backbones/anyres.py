"""What LLaVA-1.6 and LLaVA-OneVision share: image features with a thumbnail first and newline tokens in between."""

from __future__ import annotations

from typing import Any

from torch import Tensor


class AnyResolutionMixin:
    """Finds the comparable patches among the packed features of one image.

    An image cut into tiles is packed as its thumbnail, then the tiles joined to one picture with the vector
    `image_newline` at the end of each line; an image of one tile as that tile and one newline. The newline is copied
    as it is, so equality finds it whatever was cut off as padding or scaled down.
    """

    config: Any
    image_newline: Tensor

    def comparable_patches(self, image: Tensor) -> Tensor:
        """See `FactEnhancedModelMixin`; neither the thumbnail nor newlines take part."""
        vision = self.config.vision_config
        per_tile = (vision.image_size // vision.patch_size) ** 2
        is_tiled = len(image) > per_tile + 1
        patches = image[per_tile:] if is_tiled else image
        is_newline = (patches == self.image_newline.to(patches)).all(dim=-1)
        return patches[~is_newline]
