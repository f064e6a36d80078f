"""Opens inspection images with care: formats limited, size capped, and both `verify` and `load`."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image, UnidentifiedImageError

from sage_trl.errors import DataError

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
MAX_PIXELS = 50_000_000


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
    if not path.is_file():
        raise DataError.at(path, None, "no such image", "restore the file, or remove its rows from the dataset")
    return decode_image_bytes(path.read_bytes(), path)


def read_size(path: Path) -> tuple[int, int]:
    """Width and height of an image file, from its header alone.

    Raises:
        DataError: no such file, another format, or a broken header; names the path.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            return image.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        problem = f"unreadable image: {error}"
        raise DataError.at(path, None, problem, "restore the file, or remove its rows from the dataset") from None


def decode_image_bytes(content: bytes, name: Path | str) -> Image.Image:
    """Decode an image to RGB; 16-bit grey is brought to 8 bits.

    Args:
        content: the bytes of an image file.
        name: where they come from, for the error.

    Raises:
        DataError: another format, more than 50 million pixels, broken bytes, or grey values of unknown range.
    """
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
                return _to_rgb(image, name)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        remedy = f"replace it by a whole file in one of the formats {', '.join(FORMATS)}"
        raise ImageError.of_kind(_kind(error), name, f"unreadable image: {error}", remedy) from None


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
    return image.convert("RGB")


def _check_size(path: Path | str, size: tuple[int, int]) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        problem = f"image of {size[0]}x{size[1]} pixels, more than {MAX_PIXELS:,}"
        raise ImageError.of_kind("image-too-large", path, problem, "scale it down or cut it into tiles")
