"""Every image file of a dataset, decoded once on all cores: its digest, a thumbnail, or what is wrong with it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sage_trl.data.checks.findings import Finding, error, printable
from sage_trl.data.checks.rows import GroupNote
from sage_trl.data.images import ImageError, decode_image_bytes
from sage_trl.errors import DataError

THUMBNAIL = 32
Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True, slots=True)
class Picture:
    """A sound image file: SHA-256 of its bytes, and a grey thumbnail `[32, 32]`, 0-255."""

    sha256: str
    thumbnail: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _Fault:
    kind: str
    problem: str
    remedy: str


def read_pictures(
    groups: Iterable[GroupNote], image_root: Path, rows_path: Path, findings: list[Finding], progress: Progress
) -> dict[str, Picture]:
    """Sound images by their path in the rows; the others become findings at the first row that shows them.

    Args:
        groups: the rows.
        image_root: where image paths start.
        rows_path: `ad_pl.jsonl`, for the findings.
        findings: added to.
        progress: told how many are done.
    """
    first: dict[str, tuple[int, str]] = {}
    for group in groups:
        for field, relative in group.images.items():
            first.setdefault(relative, (group.line, field))
    root = image_root.resolve()
    pictures: dict[str, Picture] = {}
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        results = pool.map(lambda relative: _read(image_root / relative, root), first)
        for done, (relative, result) in enumerate(zip(first, results, strict=True), start=1):
            if isinstance(result, Picture):
                pictures[relative] = result
            else:
                line, field = first[relative]
                findings.append(
                    error(result.kind, rows_path, result.problem, result.remedy, line=line, field=field, value=relative)
                )
            progress("images", done, len(first))
    return pictures


def _read(path: Path, root: Path) -> Picture | _Fault:
    try:
        if not path.is_file():
            return _Fault(
                "image-missing", f"no image at {printable(str(path))}", "restore the image or remove the group"
            )
        if not path.resolve().is_relative_to(root):
            problem = f"the link leads out of the dataset, to {path.resolve()}"
            return _Fault("image-outside", problem, "copy the file into the dataset")
        content = path.read_bytes()
        image = decode_image_bytes(content, path)
    except DataError as fault:
        kind = fault.kind if isinstance(fault, ImageError) else "image-unreadable"
        return _Fault(kind, fault.problem, fault.remedy or "")
    except OSError as fault:
        return _Fault("image-unreadable", f"unreadable image: {fault.strerror}", "make the file readable")
    grey = image.convert("L").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    return Picture(hashlib.sha256(content).hexdigest(), np.asarray(grey))
