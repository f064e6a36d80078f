"""Images for the page: small copies, each embedded once however often it is shown."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image

from sage_trl.data.images import open_image
from sage_trl.storage import file_sha256

# Lossy compression smears the few pixels of a tiny picture, and saves nothing there.
_LOSSLESS_UP_TO = 96
_QUALITY = 80


class Thumbnails:
    """Small copies of image files as data URLs; files of the same content share one.

    Args:
        longest_side: of a copy, in pixels; smaller images keep their size.
    """

    def __init__(self, longest_side: int) -> None:
        self._longest_side = longest_side
        self._numbers: dict[str, int] = {}
        self._digests: dict[Path, str] = {}
        self.urls: list[str] = []

    def digest(self, path: Path) -> str:
        """SHA-256 of the file, read once."""
        if path not in self._digests:
            self._digests[path] = file_sha256(path)
        return self._digests[path]

    def add(self, path: Path) -> int:
        """Embed the image and return its place in `urls`.

        Raises:
            DataError: it cannot be decoded; names the path.
        """
        digest = self.digest(path)
        if digest not in self._numbers:
            self._numbers[digest] = len(self.urls)
            self.urls.append(self._encode(open_image(path)))
        return self._numbers[digest]

    def _encode(self, image: Image.Image) -> str:
        image.thumbnail((self._longest_side, self._longest_side))
        stream = io.BytesIO()
        image.save(stream, "WEBP", lossless=max(image.size) <= _LOSSLESS_UP_TO, quality=_QUALITY)
        return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()
