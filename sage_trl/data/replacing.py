"""What stays of a dataset that is built again: everything but its rows, its images and what was computed from both.

Facts are found by their image's hash, reviews and judgements by their content, so none of them can be taken for
another's; and what people did or a server was paid for is not done twice.
"""

from __future__ import annotations

import fcntl
import filecmp
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sage_trl.data.dataset import INFO_FILE, ROWS_FILE, SCORES_FILE
from sage_trl.data.statistics_report import PLOT_FILE, STATISTICS_FILE
from sage_trl.errors import DataError, LockedError
from sage_trl.storage import read_json, read_json_lines

IMAGES = "images"
"""Folder of the images that a dataset holds itself."""
COMPUTED = (SCORES_FILE, STATISTICS_FILE, PLOT_FILE)
"""Files that say nothing of other rows or images."""
_HELD = frozenset({".jsonl", ".lock"})


@contextmanager
def hold_files(directory: Path) -> Iterator[None]:
    """Keep other processes from writing to the logs and caches of a dataset.

    Raises:
        LockedError: one does so now.
    """
    held = set()
    with ExitStack() as stack:
        for path in sorted(directory.rglob("*")):
            # By what they are: two names of one file would shut each other out.
            if path.suffix not in _HELD or not path.is_file() or (identity := _identity(path)) in held:
                continue
            held.add(identity)
            stream = stack.enter_context(path.open("rb"))
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                problem = f"{path}: another process writes to it"
                raise LockedError(f"{problem}\n  remedy: wait until it is done, or choose another --output") from None
        yield


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def carry_over(old: Path, new: Path, new_image: Callable[[str], Path]) -> tuple[str, ...]:
    """Give the files of a dataset to the one that will take its place; the old one keeps them as well.

    Args:
        old: directory of the dataset that is replaced.
        new: directory of the new one, with rows and images.
        new_image: where an image of the new rows lies.

    Returns:
        Those of `COMPUTED` that are left out, because rows or images have changed.
    """
    images = _old_images(old)
    left_out = () if _is_unchanged(images, old, new, new_image) else COMPUTED
    own = {old / ROWS_FILE, old / INFO_FILE, *images.values(), *(old / name for name in left_out)}
    for path in old.rglob("*"):
        relative = path.relative_to(old)
        target = new / relative
        is_folder = path.is_dir() and not path.is_symlink()
        if is_folder or path in own or relative.parts[0] == IMAGES or target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        _link(path, target)
    return tuple(name for name in left_out if (old / name).exists())


def _old_images(old: Path) -> dict[str, Path]:
    """Name and place of the images, as far as the files of a dataset, which may be damaged, tell."""
    try:
        info = read_json(old / INFO_FILE)
        rows = [row for _, row in read_json_lines(old / ROWS_FILE) if isinstance(row, dict)]
    except DataError:
        return {}
    root = str(info.get("image_root", ".")) if isinstance(info, dict) else "."
    names = [row.get(field) for row in rows for field in ("test_image", "reference_image")]
    return {name: Path(os.path.normpath(old / root / name)) for name in names if isinstance(name, str)}


def _is_unchanged(images: dict[str, Path], old: Path, new: Path, new_image: Callable[[str], Path]) -> bool:
    same_rows = bool(images) and _are_same(old / ROWS_FILE, new / ROWS_FILE)
    return same_rows and all(_are_same(path, new_image(name)) for name, path in images.items())


def _are_same(one: Path, other: Path) -> bool:
    return one.is_file() and other.is_file() and (one.samefile(other) or filecmp.cmp(one, other, shallow=False))


def _link(path: Path, target: Path) -> None:
    """A second name for a file or a link; where the file system has none, a copy that is on the disk."""
    try:
        os.link(path, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(path, target, follow_symlinks=False)
        if not target.is_symlink():
            with target.open("rb") as stream:
                os.fsync(stream.fileno())
