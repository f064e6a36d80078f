"""Boxes of patches, by hand."""

import pytest
import torch

from sage_trl.models.backbones.anyres import squared_boxes, squared_patches, tiled_boxes
from sage_trl.models.patch_boxes import grid_boxes, tile_boxes


def rounded(boxes):
    return [tuple(round(side, 4) for side in box) for box in boxes.tolist()]


def test_cells_run_along_lines():
    assert rounded(grid_boxes(1, 2)) == [(0, 0, 0.5, 1), (0.5, 0, 1, 1)]
    assert rounded(grid_boxes(2, 1, (0.5, 0, 1, 0.5))) == [(0.5, 0, 1, 0.25), (0.5, 0.25, 1, 0.5)]


def test_cells_of_padding_are_cut_off_at_the_image():
    assert rounded(grid_boxes(4, 1, (0, -0.5, 1, 1.5))) == [(0, 0, 1, 0), (0, 0, 1, 0.5), (0, 0.5, 1, 1), (0, 1, 1, 1)]


def test_tiles_come_one_after_the_other():
    boxes = rounded(tile_boxes(1, 2, 4))
    assert boxes[:2] == [(0, 0, 0.25, 0.5), (0.25, 0, 0.5, 0.5)]
    assert boxes[4] == (0.5, 0, 0.75, 0.5)
    assert len(boxes) == 8


def test_an_image_that_fills_its_tiles_has_no_padding():
    # 128 x 64 fits two tiles of 32 px with two by two patches each.
    boxes = rounded(tiled_boxes((128, 64), [[32, 64], [64, 32]], 32, 2))
    assert boxes == rounded(grid_boxes(2, 4))


def test_lines_of_nothing_but_padding_are_dropped():
    # 40 x 30 in 64 x 64: 64 x 48 pixels, 8 above it. Patches are 16 px high; the features keep int(4 * 30 / 40) = 3
    # lines in the middle of 4, so (4 - 3) // 2 = 0 are dropped, and the first covers 8 pixels of padding.
    boxes = rounded(tiled_boxes((40, 30), [[64, 64]], 32, 2))
    assert len(boxes) == 16
    assert boxes[0] == (0, 0, 0.25, pytest.approx(8 / 48, abs=1e-4))
    # 40 x 15: 64 x 24 pixels, 20 above; 1 line of 4 is kept at each end off: (4 - 1) // 2 = 1, lines 16 to 48 remain.
    boxes = rounded(tiled_boxes((40, 15), [[64, 64]], 32, 2))
    assert len(boxes) == 8
    assert [boxes[0][1], boxes[0][3]] == [0, pytest.approx((32 - 20) / 24)]


def test_too_many_patches_are_scaled_down():
    # 4 x 4 tiles of 2 x 2 patches where 4 tiles are allowed: ratio sqrt(64 / 16) = 2, so 8 x 8 become 4 x 4.
    assert rounded(tiled_boxes((128, 128), [[128, 128]], 32, 2, 4)) == rounded(grid_boxes(4, 4))
    # A ratio of up to 1.1 is left: 8 x 8 for 16 tiles.
    assert len(tiled_boxes((128, 128), [[128, 128]], 32, 2, 16)) == 64


def lines(size, side):
    """The lines of patches that are compared of an image wider than high."""
    return [line.any().item() for line in squared_patches(size, side).view(side, side)]


def test_patches_that_show_more_padding_than_image_are_not_compared():
    # 40 x 20: the image is pixels 10 to 30 of 40. Two lines of 20 show 10 each, of four of 10 the middle ones all.
    assert lines((40, 20), 2) == [True, True]
    assert lines((40, 20), 4) == [False, True, True, False]
    # 40 x 30: pixels 5 to 35, so the outer lines of 10 show 5, half of them; 40 x 28: 6 to 34, 4 of 10.
    assert lines((40, 30), 4) == [True, True, True, True]
    assert lines((40, 28), 4) == [False, True, True, False]
    # 40 x 4: pixels 18 to 22, 2 in each of the middle lines, which is the most that any line shows.
    assert lines((40, 4), 4) == [False, True, True, False]
    # The same upright, and a square without padding.
    assert torch.equal(squared_patches((20, 40), 4).view(4, 4), squared_patches((40, 20), 4).view(4, 4).T)
    assert squared_patches((40, 40), 4).all()


def test_an_image_in_a_square():
    # 40 x 20: 10 pixels of padding above and below, half the image's height each.
    assert rounded(squared_boxes((40, 20), 2)) == [
        (0, 0, 0.5, 0.5),
        (0.5, 0, 1, 0.5),
        (0, 0.5, 0.5, 1),
        (0.5, 0.5, 1, 1),
    ]
    assert rounded(squared_boxes((40, 20), 4))[::4] == [(0, 0, 0.25, 0.5), (0, 0.5, 0.25, 1)]


@pytest.mark.parametrize("size", [(1000, 31), (31, 1000), (333, 100), (97, 100), (640, 427)])
def test_no_patch_that_is_compared_shows_padding_alone(size):
    grids = [tiled_boxes(size, [[56, 56], [28, 56], [56, 28], [84, 28], [28, 84]], 28, side) for side in (2, 7, 14)]
    for boxes in [*grids, *(squared_boxes(size, side) for side in (2, 7, 27))]:
        assert len(boxes)
        assert ((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])).all()
