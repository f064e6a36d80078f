"""Molmo2's image processor where torchvision is missing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from PIL.Image import Resampling
from torch import Tensor
from transformers.models.molmo2.image_processing_molmo2 import Molmo2ImageProcessor

_MODES = {Resampling.BILINEAR: "bilinear", Resampling.BICUBIC: "bicubic"}


class Molmo2ImageProcessorWithoutTorchvision(Molmo2ImageProcessor):
    """Cuts images as transformers' class does; the two steps that it leaves to torchvision are torch's own here.

    torchvision resizes float images by `interpolate` too, so the pixels are the same.
    """

    def resize(
        self, image: Tensor, size: Any, resample: int | None = None, *, antialias: bool = True, **_unused: Any
    ) -> Tensor:
        """Resize float images `[N, C, H, W]` to `size.height` and `size.width`."""
        mode = _MODES[Resampling.BILINEAR if resample is None else Resampling(resample)]
        return torch.nn.functional.interpolate(
            image, (size.height, size.width), mode=mode, align_corners=False, antialias=antialias
        )

    def normalize(
        self,
        image: Tensor,
        mean: Iterable[float] | Tensor,
        std: Iterable[float] | Tensor,
        *_inplace: Any,
        **_unused: Any,
    ) -> Tensor:
        """Subtract `mean` and divide by `std`, one of each per channel; the input stays as it is."""
        mean, std = (torch.as_tensor(one, dtype=image.dtype)[:, None, None] for one in (mean, std))
        return (image - mean) / std
