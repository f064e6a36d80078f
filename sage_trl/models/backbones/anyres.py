"""What LLaVA-1.6 and LLaVA-OneVision share: image features with a thumbnail first and newline tokens in between."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.image_processing_utils import select_best_resolution
from transformers.models.llava_next.modeling_llava_next import unpad_image

from sage_trl.models.patch_boxes import grid_boxes


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


def tiled_boxes(
    size: tuple[int, int], pinpoints: Sequence[Sequence[int]], tile: int, side: int, most_tiles: int | None = None
) -> Tensor:
    """Boxes of the comparable patches of an image cut into tiles, as `patch_boxes.grid_boxes` gives them.

    The image is scaled to fit the best of the resolutions, in its middle; whole lines of patches that show the
    padding are dropped; what is left is scaled down if it is more than the language model should read.

    Args:
        size: width and height of the image.
        pinpoints: (height, width) of the resolutions.
        tile: side of a tile in pixels.
        side: patches along the side of a tile.
        most_tiles: scale down what is more than so many tiles; None leaves every size.
    """
    width, height = size
    canvas_height, canvas_width = select_best_resolution((height, width), pinpoints)
    lines = torch.stack(
        torch.meshgrid(
            torch.arange(canvas_height // tile * side), torch.arange(canvas_width // tile * side), indexing="ij"
        )
    )
    kept = unpad_image(lines, (height, width))
    rows, columns = kept.shape[1:]
    (top, left), (bottom, right) = kept[:, 0, 0].tolist(), (kept[:, -1, -1] + 1).tolist()
    if most_tiles is not None:
        ratio = math.sqrt(rows * columns / (most_tiles * side**2))
        if ratio > 1.1:
            rows, columns = int(rows // ratio), int(columns // ratio)
    scale = min(canvas_width / width, canvas_height / height)
    patch = tile / side
    x = _Axis(min(math.ceil(width * scale), canvas_width), canvas_width)
    y = _Axis(min(math.ceil(height * scale), canvas_height), canvas_height)
    region = (x.fraction(left * patch), y.fraction(top * patch), x.fraction(right * patch), y.fraction(bottom * patch))
    return grid_boxes(rows, columns, region)


def squared_boxes(size: tuple[int, int], side: int) -> Tensor:
    """Boxes of an image in the middle of a square, as one grid of `side` by `side` patches."""
    longest = max(size)
    x, y = (_Axis(length, longest) for length in size)
    return grid_boxes(side, side, (x.fraction(0), y.fraction(0), x.fraction(longest), y.fraction(longest)))


@dataclass(frozen=True)
class _Axis:
    """An image of `length` pixels in the middle of a canvas of `canvas` pixels, along one axis."""

    length: int
    canvas: int

    def fraction(self, pixel: float) -> float:
        """A place on the canvas in fractions of the image; below zero or above one where it is padding."""
        return (pixel - (self.canvas - self.length) // 2) / self.length
