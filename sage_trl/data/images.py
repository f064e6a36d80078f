"""Opens inspection images with care: formats limited, size capped, and both `verify` and `load`."""

from __future__ import annotations

import struct
import warnings
from io import BytesIO
from pathlib import Path
from typing import Self

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from sage_trl.errors import DataError

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
MAX_PIXELS = 50_000_000
# EXIF orientations that swap width and height.
TURNED = (5, 6, 7, 8)


class ImageError(DataError):
    """An image file that cannot be used.

    Attributes:
        kind: what is wrong: `image-format`, `image-truncated`, `image-too-large`, `image-mode`, `image-unreadable`.
    """

    kind = "image-unreadable"

    @classmethod
    def of_kind(cls, kind: str, path: Path | str, problem: str, remedy: str) -> Self:
        """An error of that kind at that file."""
        error = cls.at(path, None, problem, remedy)
        error.kind = kind
        return error


def open_image(path: Path) -> Image.Image:
    """Decode an image file to RGB.

    Raises:
        DataError: no such file, another format, more than 50 million pixels, or broken bytes; names the path.
    """
    return decode_image_bytes(read_bytes(path), path)


def read_bytes(path: Path) -> bytes:
    """Bytes of an image file.

    Raises:
        DataError: no such file.
    """
    if not path.is_file():
        raise DataError.at(path, None, "no such image", "restore the file, or remove its rows from the dataset")
    return path.read_bytes()


def read_size(path: Path) -> tuple[int, int]:
    """Width and height of an image file as it is shown, from its header alone.

    Raises:
        DataError: no such file, another format, or a broken header; names the path.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            return (height, width) if _orientation(image) in TURNED else (width, height)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        problem = f"unreadable image: {error}"
        raise DataError.at(path, None, problem, "restore the file, or remove its rows from the dataset") from None


def read_orientation(content: bytes) -> int:
    """EXIF orientation of an image that decodes: 1 is upright."""
    with Image.open(BytesIO(content), formats=FORMATS) as image:
        return _orientation(image)


def _orientation(image: Image.Image) -> int:
    return int(image.getexif().get(ExifTags.Base.Orientation, 1))


def decode_image_bytes(content: bytes, name: Path | str) -> Image.Image:
    """Decode an image to RGB, turned upright by its EXIF orientation; 16-bit grey is brought to 8 bits.

    Args:
        content: the bytes of an image file.
        name: where they come from, for the error.

    Raises:
        DataError: another format, more than 50 million pixels, broken bytes, or grey values of unknown range.
    """
    image = decode_pixels(content, name)
    try:
        upright = ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, ValueError, struct.error) as error:
        raise DataError.at(name, None, f"broken EXIF data: {error}", "save the image without its EXIF data") from None
    return _to_rgb(upright, name)


def decode_pixels(content: bytes, name: Path | str) -> Image.Image:
    """Decode an image in the mode and orientation of the file; arguments and errors as of `decode_image_bytes`."""
    try:
        with warnings.catch_warnings():
            # Our own cap decides, and says so with the path.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(BytesIO(content), formats=FORMATS) as image:
                _check_size(name, image.size)
                image.verify()
            # `verify` leaves the image unusable, and alone it misses a cut-off JPEG.
            with Image.open(BytesIO(content), formats=FORMATS) as image:
                image.load()
                return image
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        remedy = f"replace it by a whole file in one of the formats {', '.join(FORMATS)}"
        # PIL would name the object that holds the bytes.
        problem = "no image that can be read" if isinstance(error, UnidentifiedImageError) else error
        raise ImageError.of_kind(_kind(error), name, f"unreadable image: {problem}", remedy) from None


def _kind(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return "image-too-large"
    if isinstance(error, UnidentifiedImageError):
        return "image-format"
    return "image-truncated" if "truncated" in str(error).lower() else "image-unreadable"


def _to_rgb(image: Image.Image, name: Path | str) -> Image.Image:
    # PIL would clip these to 255, which makes nearly all of a 16-bit picture white.
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        problem = f"image of mode {image.mode!r}, whose range is unknown"
        raise ImageError.of_kind("image-mode", name, problem, "save it with 8 or 16 bits")
    return without_transparency(image).convert("RGB")


def without_transparency(image: Image.Image) -> Image.Image:
    """The image; a palette whose colours have a transparency each as RGBA, without which PIL warns the user."""
    return image.convert("RGBA") if image.mode == "P" and "transparency" in image.info else image


def _check_size(path: Path | str, size: tuple[int, int]) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        problem = f"image of {size[0]}x{size[1]} pixels, more than {MAX_PIXELS:,}"
        raise ImageError.of_kind("image-too-large", path, problem, "scale it down or cut it into tiles")
