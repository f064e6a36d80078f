"""Photos outlined with labelme whose names tell no camera place."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from sage_trl.data.sources import SourceOptions, open_source
from tests.data.sources.trees import grow


def test_photos_without_a_place_are_divided_one_by_one(tmp_path: Path) -> None:
    tree = grow("labelme", tmp_path / "root")
    for number, photo in enumerate(sorted((tree.root / "data").iterdir())):
        photo.rename(photo.with_stem(f"IMG_{number:04d}"))
        for annotation in (tree.root / "label").glob(f"{photo.stem}.json"):
            annotation.rename(annotation.with_stem(f"IMG_{number:04d}"))
    options = SourceOptions(root=tree.root, split_shares={"train": 0.5, "test": 0.5})
    parts = list(open_source("labelme").parts(options))
    # Ten of the twenty photos have a defect.
    assert Counter(part.split for part in parts if part.defects) == {"train": 5, "test": 5}
    assert all(part.reference is not None and part.unit is None for part in parts)
