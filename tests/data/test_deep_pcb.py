"""DeepPCB: its files as they are, shifts, splits by board, and what is said of faulty ones."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sage_trl.data.sources import Part, SourceOptions, open_source
from sage_trl.data.sources.deep_pcb import Photo, assign_splits, estimate_shift, read_photos
from sage_trl.errors import DataError


@pytest.fixture(scope="module")
def root(real_data: Path) -> Path:
    folder = real_data / "deep_pcb"
    if not folder.is_dir():
        pytest.skip(f"no DeepPCB photos at {folder}; set SAGE_TEST_DATA to the folder above them")
    return folder


@pytest.fixture(scope="module")
def parts(root: Path) -> list[Part]:
    groups = {"train": 40, "validation": 30, "test": 30}
    return list(open_source("deep_pcb").parts(SourceOptions(root=root, seed=2, groups=groups, crops_per_defect=1)))


def test_all_photos_and_defects_are_read(root: Path) -> None:
    photos = read_photos(root)
    assert len(photos) == 109
    counted = Counter(kind for photo in photos for kind in photo.types)
    assert counted == {"open": 149, "short": 103, "mousebite": 124, "spur": 106, "copper": 97, "pin-hole": 96}


def test_each_split_has_its_share_of_every_type(root: Path) -> None:
    photos = read_photos(root)
    splits = assign_splits(photos)
    total = Counter(kind for photo in photos for kind in photo.types)
    for split, share in (("train", 0.6), ("validation", 0.2), ("test", 0.2)):
        own = Counter(kind for photo in photos if splits[photo.group] == split for kind in photo.types)
        assert all(abs(own[kind] / total[kind] - share) < 0.1 for kind in total)


def test_boards_do_not_cross_splits(parts: list[Part]) -> None:
    splits_of: dict[str, set[str]] = {}
    for part in parts:
        splits_of.setdefault(part.unit, set()).add(part.split)
    assert all(len(splits) == 1 for splits in splits_of.values())
    assert Counter(part.split for part in parts) == {"train": 40, "validation": 30, "test": 30}


def test_crops_are_aligned_and_differ_at_the_defect(parts: list[Part]) -> None:
    clearer = 0
    defective = [part for part in parts if part.defects]
    assert 0.5 < len(defective) / len(parts) < 0.7
    for part in defective:
        assert part.reference is not None and part.test.size == part.reference.size == (128, 128)
        change = np.abs(np.asarray(part.test.convert("L"), float) - np.asarray(part.reference.convert("L"), float))
        held = np.zeros((128, 128), dtype=bool)
        for defect in part.defects:
            x1, y1, x2, y2 = (round(128 * value) for value in defect.box)
            held[y1:y2, x1:x2] = True
        clearer += change[held].mean() > 2 * change[~held].mean()
    assert clearer > 0.9 * len(defective)


def test_defects_lie_all_over_the_crops(parts: list[Part]) -> None:
    centres = np.array([[(d.box[0] + d.box[2]) / 2, (d.box[1] + d.box[3]) / 2] for p in parts for d in p.defects])
    assert (centres.std(0) > 0.15).all()


def test_the_shifted_pair_is_aligned(root: Path) -> None:
    shifts = []
    for photo in read_photos(root):
        test, reference = (
            np.asarray(Image.open(path).convert("L"), dtype=np.float32) for path in (photo.test, photo.reference)
        )
        dx, dy = estimate_shift(test, reference)
        if max(abs(dx), abs(dy)) < 8:
            continue
        shifts.append((dx, dy))
        moved = np.roll(reference, (dy, dx), (0, 1))
        assert np.abs(test - moved)[20:-20, 20:-20].mean() < 0.5 * np.abs(test - reference)[20:-20, 20:-20].mean()
    assert shifts == [(-10, 0)]


def test_shift_by_hand() -> None:
    reference = np.zeros((64, 64), dtype=np.float32)
    reference[20:30, 30:34] = 255
    test = np.zeros_like(reference)
    test[17:27, 35:39] = 255  # five to the right, three up
    assert estimate_shift(test, reference) == (5, -3)


def photo(group: str, *types: str) -> Photo:
    return Photo("x", group, Path("t"), Path("r"), tuple((0, 0, 1, 1) for _ in types), types)


def test_split_by_hand() -> None:
    photos = [photo("a", *["open"] * 6), photo("b", *["open"] * 2), photo("c", *["open"] * 2)]
    assert assign_splits(photos) == {"a": "train", "b": "validation", "c": "test"}


def small_root(folder: Path, line: str = "40 40 80 80 2") -> Path:
    for name in ("groupA/A", "groupA/A_not"):
        (folder / "PCBData" / name).mkdir(parents=True)
    for kind in ("test", "temp"):
        Image.new("L", (320, 320), 0).save(folder / f"PCBData/groupA/A/1_{kind}.jpg")
    (folder / "PCBData/groupA/A_not/1.txt").write_text(line + "\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize("line", ["40 40 80 80 2", "40,40,80,80,2"])
def test_spaces_and_commas(tmp_path: Path, line: str) -> None:
    (only,) = read_photos(small_root(tmp_path, line))
    assert only.boxes == ((40, 40, 80, 80),) and only.types == ("short",)


@pytest.mark.parametrize("line", ["40 40 80 80", "40 40 80 x 2", "80 40 40 80 2", "40 40 80 80 7"])
def test_faulty_annotations_are_named(tmp_path: Path, line: str) -> None:
    with pytest.raises(DataError, match=r"1\.txt:1: "):
        read_photos(small_root(tmp_path, line))


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--root"):
        read_photos(None)
    with pytest.raises(DataError, match="holds no DeepPCB photos"):
        read_photos(tmp_path)
    root = small_root(tmp_path)
    (root / "PCBData/groupA/A/1_temp.jpg").unlink()
    with pytest.raises(DataError, match=r"1_temp\.jpg"):
        read_photos(root)
