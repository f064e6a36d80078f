"""Your own pictures in folders: good ones, and one folder for each kind of defect.

    ROOT/good/*.jpg                      or normal, or ok
    ROOT/scratch/*.jpg
    ROOT/masks/scratch/NAME.png          optional, or NAME_mask.png; a folder of masks must be complete

or the same once for each kind of part: `ROOT/CATEGORY/good`, `ROOT/CATEGORY/scratch`, ... The name of a defect's folder
is its type. Without masks nothing tells where a defect is, so no question and no answer speaks of places: add masks for
those. Part of the good pictures become references, the others are asked about. `--category` names the
part of a root without folders for categories.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sage_trl.data.faults import FaultList
from sage_trl.data.licences import NOT_STATED
from sage_trl.data.sources.base import PHOTO_OPTIONS, Part, SourceOptions, root_of
from sage_trl.data.sources.photo_parts import photo_parts
from sage_trl.data.sources.photos import (
    GOOD_FOLDERS,
    NORMAL,
    Photo,
    folders,
    image_files,
    match_masks,
    name_of,
    note_loose_images,
)
from sage_trl.lexicon import readable_type

MASKS = ("masks", "ground_truth")
LOOSE_REMEDY = "move it into good, or into a folder named after its defect"


class FolderSource:
    """Reads a folder of folders."""

    name = "folder"
    licence = NOT_STATED
    uses = PHOTO_OPTIONS | {"category"}

    def parts(self, options: SourceOptions) -> Iterator[Part]:
        faults = FaultList()
        photos = read_folder(root_of(options, self.name), options.category, faults)
        yield from photo_parts(self.name, photos, options, faults)


def read_folder(root: Path, category: str | None, faults: FaultList) -> list[Photo]:
    """All pictures below the root; faults are noted."""
    if not root.is_dir():
        faults.add(root, None, "no such folder", "give the folder of the pictures with --root")
        return []
    if _good_folder(root) is not None:
        return list(_read_category(root, root, category or root.resolve().name, faults))
    note_loose_images(root, LOOSE_REMEDY, faults)
    categories = [folder for folder in folders(root) if _good_folder(folder) is not None]
    for folder in folders(root):
        if folder not in categories:
            faults.add(folder, None, "holds no folder good, normal or ok", "add it: it holds the references")
    if not folders(root):
        faults.add(root, None, "holds no folder good, normal or ok", "put the good pictures into a folder good")
    return [photo for folder in categories for photo in _read_category(folder, root, folder.name, faults)]


def _good_folder(folder: Path) -> Path | None:
    return next((each for each in folders(folder) if each.name.lower() in GOOD_FOLDERS), None)


def _read_category(folder: Path, root: Path, category: str, faults: FaultList) -> Iterator[Photo]:
    note_loose_images(folder, LOOSE_REMEDY, faults)
    masks = [each for each in folders(folder) if each.name.lower() in MASKS]
    kinds = [each for each in folders(folder) if each not in masks]
    for kind in kinds:
        is_good = kind.name.lower() in GOOD_FOLDERS
        label = NORMAL if is_good else readable_type(kind.name)
        images = image_files(kind, faults)
        own_masks = [each / kind.name for each in masks if (each / kind.name).is_dir() and not is_good]
        matched: dict[Path, Path] = {}
        if own_masks:
            matched = match_masks(images, image_files(own_masks[0], faults), own_masks[0], faults)
        for path in images:
            name = name_of(path, root)
            types = () if is_good else (label,)
            yield Photo(name, path, category, label, name, mask=matched.get(path), types=types)
    for each in masks:
        for unknown in folders(each):
            if unknown.name not in {kind.name for kind in kinds}:
                faults.add(unknown, None, f"masks of {unknown.name!r}, a folder that is not there", "rename it")
        if images := image_files(each, faults, reads_folders=True):
            faults.add(images[0], None, "a mask outside the folder of its defect", f"move it to {each}/DEFECT")
