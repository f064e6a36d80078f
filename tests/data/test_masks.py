"""Masks of every mode give the same box; regions, sizes and shares by hand."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from sage_trl.data.masks import connected_extents, decode_mask, part_share, regions_of
from sage_trl.errors import DataError

SIZE = (40, 30)
PICTURE = Image.new("RGB", SIZE, (90, 90, 90))


def bytes_of(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def painted(value: int = 255, mode: str = "L") -> Image.Image:
    image = Image.new(mode, SIZE, 0)
    ImageDraw.Draw(image).rectangle((8, 6, 15, 11), fill=value)
    return image


def palette() -> Image.Image:
    image = painted(1, "P")
    image.putpalette([0, 0, 0, 0, 0, 128])
    return image


def deep() -> Image.Image:
    values = np.zeros((SIZE[1], SIZE[0]), dtype=np.uint16)
    values[6:12, 8:16] = 300
    return Image.fromarray(values)


MASKS = {
    "black and white": bytes_of(painted()),
    "one bit": bytes_of(painted(1, "1")),
    "label numbers": bytes_of(painted(2)),
    "16 bits": bytes_of(deep()),
    "palette": bytes_of(palette()),
    "colour": bytes_of(painted().convert("RGB")),
    "with alpha": bytes_of(painted().convert("RGBA")),
    "bmp": bytes_of(painted(), "BMP"),
}


@pytest.mark.parametrize("kind", MASKS)
def test_every_mode(kind: str) -> None:
    (region,) = regions_of(decode_mask(MASKS[kind], kind, PICTURE, 1))
    assert region.box == pytest.approx((8 / 40, 6 / 30, 16 / 40, 12 / 30))
    assert region.share == pytest.approx(48 / 1200)


def test_a_mask_saved_as_jpeg_is_cut_at_half() -> None:
    noisy = bytes_of(painted(), "JPEG", quality=60)
    assert len(np.unique(np.asarray(Image.open(io.BytesIO(noisy))))) > 2
    (region,) = regions_of(decode_mask(noisy, "mask", PICTURE, 1))
    assert region.box == pytest.approx((8 / 40, 6 / 30, 16 / 40, 12 / 30))


def test_a_mask_scaled_smoothly_is_cut_at_half() -> None:
    smooth = painted().resize((157, 118), Image.Resampling.BICUBIC)
    (region,) = regions_of(decode_mask(bytes_of(smooth), "mask", PICTURE.resize((157, 118)), 1))
    assert region.box == pytest.approx((8 / 40, 6 / 30, 16 / 40, 12 / 30), abs=1.5 / 118)


def test_faults() -> None:
    with pytest.raises(DataError, match="marks no pixel"):
        decode_mask(bytes_of(Image.new("L", SIZE)), "m.png", PICTURE, 1)
    with pytest.raises(DataError, match=r"m\.png: mask of 30x40 pixels, but its picture has 40x30"):
        decode_mask(bytes_of(Image.new("L", (30, 40), 9)), "m.png", PICTURE, 1)


def mask_of(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((200, 300), dtype=bool)
    for left, top, right, bottom in boxes:
        mask[top:bottom, left:right] = True
    return mask


def test_regions_by_hand() -> None:
    # Two far apart, the larger first; a third of three pixels is a speck.
    regions = regions_of(mask_of((0, 0, 30, 20), (200, 100, 220, 120), (100, 50, 103, 51)))
    assert [region.box for region in regions] == [(0, 0, 0.1, 0.1), (200 / 300, 0.5, 220 / 300, 0.6)]
    assert [region.share for region in regions] == [600 / 60000, 400 / 60000]
    # A gap of 6 pixels is 2% of 300: merged up to there.
    assert len(regions_of(mask_of((0, 0, 30, 20), (35, 0, 60, 20)))) == 1
    assert len(regions_of(mask_of((0, 0, 30, 20), (37, 0, 60, 20)))) == 2


def test_connected_areas_agree_with_flood_filling() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = rng.random((24, 31)) < 0.35
        assert sorted(extent.area for extent in connected_extents(mask)) == sorted(_flood_areas(mask))


def _flood_areas(mask: np.ndarray) -> list[int]:
    left = {(int(row), int(column)) for row, column in zip(*np.nonzero(mask), strict=True)}
    areas = []
    while left:
        queue, area = [left.pop()], 0
        while queue:
            row, column = queue.pop()
            area += 1
            near = {(row + a, column + b) for a in (-1, 0, 1) for b in (-1, 0, 1)} & left
            left -= near
            queue += near
        areas.append(area)
    return areas


def test_share_of_a_part_on_a_plain_ground() -> None:
    image = Image.new("RGB", (200, 200), (10, 10, 12))
    ImageDraw.Draw(image).ellipse((50, 50, 149, 149), fill=(180, 160, 90))
    assert part_share(image) == pytest.approx(np.pi * 50**2 / 200**2, rel=0.05)
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    assert part_share(Image.fromarray(noise)) == 1.0
    assert part_share(Image.new("RGB", (200, 200), (10, 10, 12))) == 1.0
