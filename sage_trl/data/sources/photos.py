"""Photos as the readers of benchmarks find them, before they have splits and references."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from sage_trl.data.checks.answers import find_placeholder
from sage_trl.data.faults import FaultList
from sage_trl.data.images import decode_image_bytes, read_bytes, read_orientation
from sage_trl.data.masks import Region, decode_mask, part_share, regions_of
from sage_trl.errors import DataError
from sage_trl.lexicon import WHOLE, readable_type
from sage_trl.records import Defect, check_relative_path

NORMAL = "normal"
GOOD_FOLDERS = ("good", "normal", "ok")
_HIDDEN = {"thumbs.db", "desktop.ini"}
_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True)
class Photo:
    """One photo of a benchmark.

    Attributes:
        name: unique in its source, fit for a relative path.
        path: the file; of photos without one, what an error should call them.
        category: kind of part.
        label: readable defect type, or `normal`; of several types the first.
        unit: photos of a unit are in one split.
        split: where the source puts it, None if our shares decide.
        is_reference: serves as reference only; no question is about it.
        mask: its mask.
        regions: places of the defects where the source says them, each with its type.
        reference: the photo that the source gives it as reference.
        types: all its defect types.
        load: bytes of a photo that is no file.
        load_mask: bytes of its mask, if that is no file.
        physical_unit: the object it shows, where the layout tells which photos show the same one.
    """

    name: str
    path: Path
    category: str
    label: str
    unit: str
    split: str | None = None
    is_reference: bool = False
    mask: Path | None = None
    regions: tuple[tuple[str, Region], ...] = ()
    reference: Path | None = None
    types: tuple[str, ...] = ()
    load: Callable[[], bytes] | None = None
    load_mask: Callable[[], bytes] | None = None
    physical_unit: str | None = None

    def read(self) -> bytes:
        """Bytes of the image file."""
        return self.load() if self.load else read_bytes(self.path)

    def read_mask(self) -> tuple[bytes, Path] | None:
        """Bytes of the mask, and what an error should call it."""
        if self.load_mask is not None:
            return self.load_mask(), self.path / "mask"
        return None if self.mask is None else (read_bytes(self.mask), self.mask)


@dataclass(frozen=True)
class Seen:
    """What reading a photo gave: its defects, and a digest of its bytes."""

    defects: tuple[Defect, ...]
    digest: str


def image_files(
    folder: Path, faults: FaultList, ignore: tuple[str, ...] = (), *, reads_folders: bool = False
) -> list[Path]:
    """The image files of a folder by name, whatever the case of their endings.

    Other files, but for those with an ending of `ignore`, a name that occurs with two endings, and folders in the
    folder, unless the caller reads them itself (`reads_folders`), are noted as faults.
    """
    if not reads_folders:
        remedy = "move its images up, or move it away"
        note_other_folders(folder, (), "is a folder among the images, and is not read", remedy, faults)
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name.lower() in _HIDDEN or path.is_dir():
            continue
        if path.suffix.lower() in ignore:
            continue
        if path.suffix.lower() not in _SUFFIXES:
            faults.add(path, None, "is no image", "remove it from the image folder, or save it as PNG or JPEG")
        elif path.stem in found:
            problem = f"has the same name as {found[path.stem].name}"
            faults.add(path, None, problem, "keep one of them: masks and annotations go by the name")
        else:
            found[path.stem] = path
    return list(found.values())


def folders(parent: Path) -> list[Path]:
    """Folders below a folder, by name, without hidden ones."""
    return [path for path in sorted(parent.iterdir()) if path.is_dir() and not path.name.startswith(".")]


def note_other_folders(parent: Path, known: Container[str], problem: str, remedy: str, faults: FaultList) -> None:
    """A fault for each folder below `parent` whose name is none of `known`: what lies in it would be left out."""
    for folder in folders(parent):
        if folder.name not in known:
            faults.add(folder, None, problem, remedy)


def note_loose_images(parent: Path, remedy: str, faults: FaultList) -> None:
    """A fault for each image in a folder that should hold folders alone."""
    for path in sorted(parent.iterdir()):
        if path.is_file() and path.suffix.lower() in _SUFFIXES and not path.name.startswith("."):
            faults.add(path, None, "is an image outside the folders that are read", remedy)


def name_of(path: Path, root: Path) -> str:
    """A photo's name from where it lies."""
    return path.relative_to(root).with_suffix("").as_posix()


def check_inside(path: Path, root: Path) -> None:
    """Refuse a file that lies elsewhere, by a link or by `..`, or whose name no dataset can hold.

    Raises:
        DataError: names the file.
    """
    try:
        path.relative_to(root).as_posix().encode()
        check_relative_path(path.relative_to(root).as_posix())
    except ValueError as error:
        problem = "has a name that is no UTF-8" if isinstance(error, UnicodeEncodeError) else f"its name {error}"
        raise DataError.at(ascii(str(path)), None, problem, "rename the file, and its mask and annotation") from None
    if not path.resolve().is_relative_to(root.resolve()):
        raise DataError.at(path, None, f"leaves {root}", "put the file itself below the root, or give a higher --root")


def inspect_photo(photo: Photo) -> Seen:
    """Decode a photo and find its defects.

    Raises:
        DataError: image or mask unreadable, mask empty or of another size, or no words for the part or its defect.
    """
    _check_words(photo)
    content = photo.read()
    picture = decode_image_bytes(content, photo.path)
    return Seen(_defects(photo, picture, read_orientation(content)), hashlib.sha256(content).hexdigest())


def _check_words(photo: Photo) -> None:
    """See that part and defects have names that can stand in questions."""
    for what, words in (("the part", photo.category), *(("a defect", name) for name in (photo.label, *photo.types))):
        placeholder = find_placeholder(words)
        if placeholder is not None:
            problem = (
                f"its folder, or its label, calls {what} {words!r}; {placeholder} stands for something else in prompts"
            )
            raise DataError.at(photo.path, None, problem, "use words, such as scratch")
        if not words.strip():
            problem = f"its folder, or its label, has no name for {what}"
            raise DataError.at(photo.path, None, problem, "use words, such as scratch")


def _defects(photo: Photo, picture: Image.Image, orientation: int) -> tuple[Defect, ...]:
    if photo.label == NORMAL:
        return ()
    located = list(photo.regions)
    mask = photo.read_mask()
    if mask is not None:
        regions = regions_of(decode_mask(*mask, picture, orientation))
        # Which region is of which type is not known where there are several: then each type is somewhere in all.
        several = [(kind, _hull(regions)) for kind in photo.types]
        located += several if len(several) > 1 else [(photo.label, region) for region in regions]
    if not located:
        return tuple(Defect(type=kind, box=WHOLE) for kind in photo.types or (photo.label,))
    part = part_share(picture)
    return tuple(
        Defect(type=kind, box=region.box, share=min(1.0, round(region.share / part, 4))) for kind, region in located
    )


def _hull(regions: tuple[Region, ...]) -> Region:
    boxes = [region.box for region in regions]
    lows, highs = zip(*((box[:2], box[2:]) for box in boxes), strict=True)
    left, top = (min(low[axis] for low in lows) for axis in (0, 1))
    right, bottom = (max(high[axis] for high in highs) for axis in (0, 1))
    return Region((left, top, right, bottom), sum(region.share for region in regions))


def stem_of_mask(path: Path) -> str:
    """Name of the photo that a mask belongs to: `000_mask.png` and `000.png` both go with `000`."""
    return path.stem.removesuffix("_mask").removesuffix("_MASK")


def match_masks(images: Iterable[Path], masks: Iterable[Path], folder: Path, faults: FaultList) -> dict[Path, Path]:
    """Image -> mask of the same name.

    Images without a mask, and masks without an image, are noted as faults.
    """
    by_stem: dict[str, Path] = {}
    for mask in masks:
        stem = stem_of_mask(mask)
        if stem in by_stem:
            problem = f"is a second mask of {stem}, beside {by_stem[stem].name}"
            faults.add(mask, None, problem, "keep one mask for each image")
        by_stem.setdefault(stem, mask)
    matched: dict[Path, Path] = {}
    for image in images:
        if image.stem in by_stem:
            matched[image] = by_stem.pop(image.stem)
        else:
            names = f"{image.stem}.png or {image.stem}_mask.png"
            faults.add(image, None, f"has no mask {names} in {folder}", "add the mask, or remove the image")
    for mask in by_stem.values():
        problem = f"no image belongs to this mask ({stem_of_mask(mask)})"
        faults.add(mask, None, problem, "restore the image, rename the mask like its image, or remove it")
    return matched


def label_clashes(photos: Iterable[tuple[Photo, Seen]]) -> Iterator[DataError]:
    """A fault for each picture that occurs under two labels: one of them is in a wrong folder."""
    first: dict[str, Photo] = {}
    for photo, seen in photos:
        other = first.setdefault(seen.digest, photo)
        if other.label != photo.label:
            problem = f"labelled {photo.label!r}, but {other.path} is the same picture and is labelled {other.label!r}"
            yield DataError.at(photo.path, None, problem, "keep it in the folder where it belongs")


def photo_by_folders(path: Path, root: Path, category: str, reference: Path | None, mask: Path | None = None) -> Photo:
    """A photo whose label is known from the folder that it lies in, as in MVTec AD and VisA.

    Its mask, unless given, is looked for where those datasets have it: in `ground_truth` beside `test`, or in `Masks`
    beside `Images`.
    """
    folder = path.parent.name
    label = NORMAL if folder.lower() in GOOD_FOLDERS else readable_type(folder)
    if label != NORMAL and mask is None:
        part = path.parent.parent.parent
        names = (f"{path.stem}_mask.png", f"{path.stem}.png")
        candidates = [part / masks / folder / name for masks in ("ground_truth", "Masks") for name in names]
        mask = next((each for each in candidates if each.is_file()), None)
    name = name_of(path, root)
    types = () if label == NORMAL else (label,)
    return Photo(name, path, category, label, name, mask=mask, reference=reference, types=types)
