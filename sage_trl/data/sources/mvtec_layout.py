"""The folder layout of MVTec AD, which MPDD and many users' own sets share.

    ROOT/CATEGORY/train/good/000.png             good parts, the references
    ROOT/CATEGORY/test/good/000.png              good parts to ask about
    ROOT/CATEGORY/test/DEFECT/000.png            parts with a defect, named by the folder
    ROOT/CATEGORY/ground_truth/DEFECT/000.png    their masks, or 000_mask.png

ROOT may be a category itself. Endings may be in capitals. A folder of defects without a folder of masks is a fault, and
so is a folder that is none of these.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sage_trl.data.faults import FaultList
from sage_trl.data.sources.photos import (
    NORMAL,
    Photo,
    folders,
    image_files,
    match_masks,
    name_of,
    note_loose_images,
    note_other_folders,
)
from sage_trl.lexicon import readable_type

GOOD = "good"
PARTS_OF_CATEGORY = ("train", "test", "ground_truth")


def read_mvtec_layout(root: Path, faults: FaultList) -> list[Photo]:
    """All photos below the root; missing folders and masks, surplus masks and odd files are noted as faults."""
    if not root.is_dir():
        faults.add(root, None, "no such folder", "give the folder of the categories with --root")
        return []
    categories = [root] if _is_category(root) else [folder for folder in folders(root) if _is_category(folder)]
    if not categories:
        faults.add(root, None, "holds no category with train/good and test", "give the folder of the categories")
    elif categories != [root]:
        known = [category.name for category in categories]
        remedy = "restore its folders, or move it out of the root"
        note_other_folders(root, known, "is no category with train/good and test", remedy, faults)
    return [photo for category in categories for photo in _read_category(category, faults)]


def _is_category(folder: Path) -> bool:
    return (folder / "train").is_dir() or (folder / "test").is_dir()


def _read_category(category: Path, faults: FaultList) -> Iterator[Photo]:
    yield from _good_photos(category / "train" / GOOD, category, faults, is_reference=True)
    yield from _good_photos(category / "test" / GOOD, category, faults, is_reference=False)
    remedy = "move its images into train/good or test, or move it out of the root"
    note_other_folders(category, PARTS_OF_CATEGORY, f"is none of {', '.join(PARTS_OF_CATEGORY)}", remedy, faults)
    for folder in (category / name for name in PARTS_OF_CATEGORY if (category / name).is_dir()):
        note_loose_images(folder, "move it into good, or into the folder of its defect", faults)
    test, truth = category / "test", category / "ground_truth"
    defects = [folder for folder in folders(test) if folder.name.lower() != GOOD] if test.is_dir() else []
    for folder in folders(category / "train") if (category / "train").is_dir() else []:
        if folder.name.lower() != GOOD:
            faults.add(folder, None, "a defect folder among the training images", f"move it to {test}")
    for folder in defects:
        yield from _defective_photos(folder, truth / folder.name, category, faults)
    for folder in folders(truth) if truth.is_dir() else []:
        if folder.name not in {defect.name for defect in defects}:
            problem = f"masks of {folder.name!r}, but there is no folder {test / folder.name}"
            faults.add(folder, None, problem, "restore the images, or remove the masks")


def _good_photos(folder: Path, category: Path, faults: FaultList, *, is_reference: bool) -> Iterator[Photo]:
    if not folder.is_dir():
        faults.add(folder, None, "no such folder", "restore the good images: they are references or questions")
        return
    for path in image_files(folder, faults):
        name = name_of(path, category.parent)
        yield Photo(name, path, category.name, NORMAL, name, is_reference=is_reference)


def _defective_photos(folder: Path, masks: Path, category: Path, faults: FaultList) -> Iterator[Photo]:
    images = image_files(folder, faults)
    found = image_files(masks, faults) if masks.is_dir() else []
    matched = match_masks(images, found, masks, faults)
    label = readable_type(folder.name)
    for path in images:
        name = name_of(path, category.parent)
        yield Photo(name, path, category.name, label, name, mask=matched.get(path), types=(label,))
