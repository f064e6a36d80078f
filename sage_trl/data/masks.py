"""From a pixel mask to defects: boxes of its regions, and their size as a share of the part."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from sage_trl.data.images import decode_pixels, without_transparency
from sage_trl.errors import DataError

Mask = NDArray[np.bool_]
Box = tuple[float, float, float, float]

# A mask that holds labels has few values; one that was scaled smoothly has many, and like a JPEG is cut at half.
MOST_LABELS = 16
# Regions closer than this share of the mask's side are one defect; smaller than this share of the largest is a speck.
MERGE_GAP = 0.02
SPECK = 0.01
# A picture whose border varies less than this (levels of 0-255) shows its part on a plain background.
PLAIN_SPREAD = 14.0
FOREGROUND_CHANGE = 40.0
SMALLEST_PART = 0.02
_THUMBNAIL = 96


@dataclass(frozen=True)
class Region:
    """One connected defect: its box in fractions of width and height, and its pixels as a share of the mask."""

    box: Box
    share: float


def decode_mask(content: bytes, name: Path | str, picture: Image.Image, orientation: int) -> Mask:
    """The defective pixels of a mask, `[height, width]` of the upright `picture`.

    Any mode will do: black and white, label numbers, 16 bits, palettes, colours; whatever is not black is defective.

    Args:
        content: the bytes of an image file.
        name: where they come from, for the error.
        picture: the picture that it belongs to, turned upright.
        orientation: the picture's EXIF orientation: a mask painted before the picture was turned is turned with it.

    Raises:
        DataError: unreadable, of another size than the picture, or black everywhere.
    """
    pixels = decode_pixels(content, name)
    own = pixels.getexif().get(ExifTags.Base.Orientation, 1)
    turned = ImageOps.exif_transpose(pixels)
    if own == 1 and turned.size != picture.size and orientation != 1:
        turned = _turn(turned, orientation)
    if turned.size != picture.size:
        sizes = f"{pixels.size[0]}x{pixels.size[1]} pixels, but its picture has {picture.size[0]}x{picture.size[1]}"
        raise DataError.at(name, None, f"mask of {sizes}", "save the mask at the size of the picture")
    values = _levels(turned)
    is_noisy = pixels.format == "JPEG" or len(np.unique(values)) > MOST_LABELS
    mask: Mask = values > (values.max() / 2 if is_noisy else 0)
    if not mask.any():
        remedy = "paint the defect, or move the picture to the good ones"
        raise DataError.at(name, None, "empty mask: it marks no pixel", remedy)
    return mask


def _turn(image: Image.Image, orientation: int) -> Image.Image:
    exif = image.getexif()
    exif[ExifTags.Base.Orientation] = orientation
    return ImageOps.exif_transpose(image)


def _levels(image: Image.Image) -> NDArray[np.int64]:
    """`[height, width]`, 0 where the mask is black."""
    if image.mode in ("P", "PA", "RGBA", "CMYK", "YCbCr", "LA"):
        image = without_transparency(image).convert("RGB")
    values = np.asarray(image).astype(np.int64)
    return values if values.ndim == 2 else values.max(axis=2)


def regions_of(mask: Mask) -> tuple[Region, ...]:
    """Connected regions (diagonal neighbours count), near ones merged and specks left out, from the largest on."""
    height, width = mask.shape
    gap = MERGE_GAP * max(height, width)
    merged: list[Extent] = []
    for extent in sorted(connected_extents(mask), key=lambda one: -one.area):
        near = extent
        while touching := [other for other in merged if other.is_near(near, gap)]:
            merged = [other for other in merged if other not in touching]
            for other in touching:
                near = near.joined(other)
        merged.append(near)
    merged.sort(key=lambda one: (-one.area, one.top, one.left))
    return tuple(
        Region(
            (one.left / width, one.top / height, one.right / width, one.bottom / height),
            one.area / (height * width),
        )
        for one in merged
        if one.area >= SPECK * merged[0].area
    )


@dataclass(frozen=True)
class Extent:
    """Pixels of a region: left, top, right and bottom (both exclusive), and how many they are."""

    left: int
    top: int
    right: int
    bottom: int
    area: int

    def is_near(self, other: Extent, gap: float) -> bool:
        across = self.left - gap < other.right and other.left - gap < self.right
        return across and self.top - gap < other.bottom and other.top - gap < self.bottom

    def joined(self, other: Extent) -> Extent:
        return Extent(
            min(self.left, other.left),
            min(self.top, other.top),
            max(self.right, other.right),
            max(self.bottom, other.bottom),
            self.area + other.area,
        )


def connected_extents(mask: Mask) -> list[Extent]:
    """Extents of the connected components, by joining runs of pixels from row to row."""
    parents: list[int] = []
    runs: list[tuple[int, int, int]] = []

    def find(run: int) -> int:
        while parents[run] != run:
            parents[run] = parents[parents[run]]
            run = parents[run]
        return run

    above: list[int] = []
    for row in np.flatnonzero(mask.any(axis=1)).tolist():
        edges = np.flatnonzero(np.diff(mask[row].astype(np.int8), prepend=0, append=0))
        current: list[int] = []
        waiting = [run for run in above if runs[run][0] == row - 1]
        for start, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            index = len(runs)
            runs.append((row, start, stop))
            parents.append(index)
            current.append(index)
            waiting = [run for run in waiting if runs[run][2] >= start]
            for run in waiting:
                if runs[run][1] > stop:
                    break
                parents[find(run)] = find(index)
        above = current
    extents: dict[int, Extent] = {}
    for index, (row, start, stop) in enumerate(runs):
        extent = Extent(start, row, stop, row + 1, stop - start)
        label = find(index)
        extents[label] = extents[label].joined(extent) if label in extents else extent
    return list(extents.values())


def part_share(picture: Image.Image) -> float:
    """Share of the picture that the part covers: what differs from a plain border, or 1 if the border is not plain."""
    small = np.asarray(picture.resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX), dtype=np.float64)
    border = np.concatenate([small[:3].reshape(-1, 3), small[-3:].reshape(-1, 3), small[:, :3].reshape(-1, 3)])
    if border.std(axis=0).max() > PLAIN_SPREAD:
        return 1.0
    change = np.abs(small - np.median(border, axis=0)).max(axis=2)
    share = float((change > FOREGROUND_CHANGE).mean())
    return share if share >= SMALLEST_PART else 1.0
