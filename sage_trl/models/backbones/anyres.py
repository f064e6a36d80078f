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
    as it is, so equality finds it whatever was cut off as padding or scaled down. Of an image thinner than a patch
    nothing is left but the thumbnail, which shows it stretched to a square: then that is compared.
    """

    config: Any
    image_newline: Tensor

    def comparable_patches(self, image: Tensor) -> Tensor:
        """See `FactEnhancedModelMixin`; neither the thumbnail nor newlines take part."""
        patches = image[self._patches_per_tile :] if len(image) > self._patches_per_tile + 1 else image
        is_newline = (patches == self.image_newline.to(patches)).all(dim=-1)
        return patches[~is_newline]

    def is_one_tile(self, image: Tensor) -> bool:
        """Whether image tokens `[N, C]` are those of an image that was not cut: one tile and a newline."""
        return len(image) == self._patches_per_tile + 1

    @property
    def _patches_per_tile(self) -> int:
        vision = self.config.vision_config
        count: int = (vision.image_size // vision.patch_size) ** 2
        return count


def tiled_boxes(
    size: tuple[int, int], pinpoints: Sequence[Sequence[int]], tile: int, side: int, most_tiles: int | None = None
) -> Tensor:
    """Boxes of the comparable patches of an image cut into tiles, as `patch_boxes.grid_boxes` gives them.

    The image is scaled to fit the best of the resolutions, in its middle; whole lines of patches that show the
    padding are dropped; what is left is scaled down if it is more than the language model should read. Where nothing is
    left, the boxes are those of the thumbnail.

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
    if not kept.numel():
        return grid_boxes(side, side)
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
    """Boxes of the comparable patches of an image in the middle of a square; see `squared_patches`."""
    longest = max(size)
    x, y = (_Axis(length, longest) for length in size)
    boxes = grid_boxes(side, side, (x.fraction(0), y.fraction(0), x.fraction(longest), y.fraction(longest)))
    return boxes[squared_patches(size, side)]


def squared_patches(size: tuple[int, int], side: int) -> Tensor:
    """Which patches of a square, `[side * side]` line by line, show enough of the image in its middle to be compared.

    A line of patches is compared if it shows at least half as much of the image as the line that shows most of it: half
    of its own width, unless the image is thinner than a patch.

    Args:
        size: width and height of the image.
        side: patches along the side of the square.
    """
    columns, rows = (_lines_of_image(length, max(size), side) for length in size)
    return (rows[:, None] & columns).flatten()


def _lines_of_image(length: int, longest: int, side: int) -> Tensor:
    start = (longest - length) // 2
    # In units of which a line of patches has `longest`.
    edges = torch.arange(side + 1) * longest
    shown = edges[1:].clamp(max=(start + length) * side) - edges[:-1].clamp(min=start * side)
    return 2 * shown >= shown.max()


@dataclass(frozen=True)
class _Axis:
    """An image of `length` pixels in the middle of a canvas of `canvas` pixels, along one axis."""

    length: int
    canvas: int

    def fraction(self, pixel: float) -> float:
        """A place on the canvas in fractions of the image; below zero or above one where it is padding."""
        return (pixel - (self.canvas - self.length) // 2) / self.length
