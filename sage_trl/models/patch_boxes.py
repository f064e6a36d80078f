"""Where on an image its comparable patches lie: boxes (x1, y1, x2, y2) in fractions of the image's width and height."""

from __future__ import annotations

import math

import torch
from torch import Tensor

Region = tuple[float, float, float, float]
WHOLE: Region = (0.0, 0.0, 1.0, 1.0)


def grid_boxes(rows: int, columns: int, region: Region = WHOLE) -> Tensor:
    """Boxes of equal cells, row by row.

    Args:
        rows, columns: of the grid.
        region: where the grid lies, in fractions of the image. What of it is padding reaches beyond the image and is
            cut off; a cell of nothing but padding gets a box without area.

    Returns:
        `[rows * columns, 4]`, float64.
    """
    left, top, right, bottom = region
    x = torch.linspace(left, right, columns + 1, dtype=torch.float64).clamp(0, 1)
    y = torch.linspace(top, bottom, rows + 1, dtype=torch.float64).clamp(0, 1)
    sides = (
        x[:-1].repeat(rows),
        y[:-1].repeat_interleave(columns),
        x[1:].repeat(rows),
        y[1:].repeat_interleave(columns),
    )
    return torch.stack(sides, dim=-1)


def tile_boxes(tile_rows: int, tile_columns: int, patches_per_tile: int) -> Tensor:
    """Boxes of the patches of square grids, tile after tile, where the tiles cover the image without padding.

    Returns:
        `[tile_rows * tile_columns * patches_per_tile, 4]`, float64.
    """
    side = math.isqrt(patches_per_tile)
    regions = grid_boxes(tile_rows, tile_columns).tolist()
    return torch.cat([grid_boxes(side, side, tuple(region)) for region in regions])
