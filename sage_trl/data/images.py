"""Opens inspection images with care: formats limited, size capped, and both `verify` and `load`."""

from __future__ import annotations

import warnings
from pathlib import Path

from PIL import Image

from sage_trl.errors import DataError

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
MAX_PIXELS = 50_000_000


def open_image(path: Path) -> Image.Image:
    """Decode an image to RGB.

    Raises:
        DataError: no such file, another format, more than 50 million pixels, or broken bytes; names the path.
    """
    if not path.is_file():
        raise DataError.at(path, None, "no such image", "restore the file, or remove its rows from the dataset")
    try:
        with warnings.catch_warnings():
            # Our own cap decides, and says so with the path.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                _check_size(path, image.size)
                image.verify()
            # `verify` leaves the image unusable, and alone it misses a cut-off JPEG.
            with Image.open(path, formats=FORMATS) as image:
                image.load()
                return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        remedy = f"replace it by a whole file in one of the formats {', '.join(FORMATS)}"
        raise DataError.at(path, None, f"unreadable image: {error}", remedy) from None


def _check_size(path: Path, size: tuple[int, int]) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        problem = f"image of {size[0]}x{size[1]} pixels, more than {MAX_PIXELS:,}"
        raise DataError.at(path, None, problem, "scale it down or cut it into tiles")
