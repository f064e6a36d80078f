"""Images of a dataset as a language model gets them."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from sage_trl.data.images import FORMATS, open_image
from sage_trl.llm_client.request import ImageFile
from sage_trl.storage import file_sha256


def read_image_file(path: Path) -> ImageFile:
    """The file at `path`, once it is known to decode.

    Raises:
        DataError: it does not: a broken image is told before anything is paid.
    """
    size = open_image(path).size
    with Image.open(path, formats=FORMATS) as image:
        media_type = Image.MIME[str(image.format)]
    return ImageFile(path, file_sha256(path), media_type, size)
