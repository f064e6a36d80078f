"""Which images of a batch are the same one, whatever objects or files they come as."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from sage_trl.models.encoding import counts_tiles
from sage_trl.models.fact_enhanced import REFERENCE_PREFIX


class ImageKeys:
    """What tells decoded images apart, computed once for each as long as the same object lives."""

    def __init__(self) -> None:
        self._known: dict[int, bytes] = {}

    def __call__(self, image: Image | None) -> bytes | None:
        """SHA-256 of size and pixels."""
        if image is None:
            return None
        if id(image) not in self._known:
            self._known[id(image)] = hashlib.sha256(repr(image.size).encode() + image.tobytes()).digest()
        return self._known[id(image)]

    def of_row(self, row: Mapping[str, Any]) -> Hashable:
        """What tells rows apart by what they show: test image, reference and facts."""
        return self(row["images"][0]), self(row["reference_image"]), tuple(row["facts"])


def same_images(
    processor: Any, batch: Mapping[str, Tensor], rows: Sequence[Mapping[str, Any]], key_of: ImageKeys
) -> dict[str, Tensor]:
    """Which images of a batch are the same one, so that the vision tower can see each once.

    Args:
        processor: a Sage processor.
        batch: what `encode_prompts` made of the rows; every prompt shows one image.
        rows: rows with decoded images.
        key_of: the keys of these images, as far as they are known.

    Returns:
        `image_index` `[B]`, counted by first appearance, and `reference_image_index` for the references that are there,
        each only where an image comes twice; with the first, for a backbone with tiles, `image_num_tiles` `[B]`.
    """

    def index_of(images: Sequence[Image]) -> Tensor | None:
        distinct: dict[bytes | None, int] = {}
        index = [distinct.setdefault(key_of(image), len(distinct)) for image in images]
        return torch.tensor(index) if len(distinct) < len(images) else None

    found = {}
    tests = index_of([row["images"][-1] for row in rows])
    if tests is not None:
        found["image_index"] = tests
        if counts_tiles(processor):
            found["image_num_tiles"] = processor.count_tiles(batch["input_ids"])
    if f"{REFERENCE_PREFIX}mask" in batch:
        references = index_of([row["reference_image"] for row in rows if row["reference_image"] is not None])
        if references is not None:
            found[f"{REFERENCE_PREFIX}image_index"] = references
    return found
