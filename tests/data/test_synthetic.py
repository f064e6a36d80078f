"""Generated parts: same seed same bytes, exact boxes, visible defects, categories kept apart."""

from __future__ import annotations

import numpy as np
import pytest

from sage_trl.data.dataset import AdPlDirectory
from sage_trl.data.images import open_image
from sage_trl.data.sources import Part, SourceOptions, open_source
from sage_trl.data.sources.part_defects import DEFECT_TYPES, inside
from sage_trl.data.sources.part_shapes import bump, superellipse
from sage_trl.errors import DataError

SMALL = {"train": 60, "validation": 8, "test": 8, "unseen": 20}


def make(seed: int = 0, **options) -> list[Part]:
    return list(open_source("synthetic").parts(SourceOptions(seed=seed, groups=SMALL, **options)))


def test_same_seed_same_bytes_other_seed_others() -> None:
    first, again, other = make(5), make(5), make(6)
    assert [part.test.tobytes() for part in first] == [part.test.tobytes() for part in again]
    assert [part.defects for part in first] == [part.defects for part in again]
    assert first[0].test.tobytes() != other[0].test.tobytes()


def test_counts_shares_and_categories() -> None:
    parts = make()
    assert len(parts) == sum(SMALL.values())
    assert len({part.unit for part in parts}) == len(parts)
    train = [part for part in parts if part.split == "train"]
    assert sum(bool(part.defects) for part in train) == 36  # 60 * 0.6
    assert {d.type for part in train for d in part.defects} == set(DEFECT_TYPES)
    trained, unseen = ({p.category for p in parts if (p.split == "unseen") is flag} for flag in (False, True))
    assert len(trained) == len(unseen) == 4 and not trained & unseen
    assert {p.dataset for p in parts if p.split == "unseen"} == {"synthetic_unseen"}


def test_defects_show_inside_their_box_and_little_outside() -> None:
    stronger = 0
    defective = [part for part in make() if part.defects and part.defects[0].type in ("scratch", "stain")]
    for part in defective:
        assert part.reference is not None
        change = np.abs(np.asarray(part.test, float) - np.asarray(part.reference, float)).max(2)
        left, top, right, bottom = (round(64 * value) for value in part.defects[0].box)
        assert max(right - left, bottom - top) >= 10
        inside_box = np.zeros((64, 64), dtype=bool)
        inside_box[top:bottom, left:right] = True
        stronger += change[inside_box].mean() > change[~inside_box].mean()
    assert stronger >= 0.9 * len(defective)


def test_a_normal_part_is_photographed_anew() -> None:
    for part in make():
        assert part.reference is not None
        assert part.test.size == part.reference.size == (64, 64)
        assert part.test.tobytes() != part.reference.tobytes()


def test_image_size_is_an_option() -> None:
    assert make(image_size=96)[0].test.size == (96, 96)
    with pytest.raises(DataError, match="image size 8 "):
        make(image_size=8)


def test_unknown_split_and_share_are_named() -> None:
    with pytest.raises(DataError, match="split 'trian' is unknown"):
        list(open_source("synthetic").parts(SourceOptions(groups={"trian": 3})))
    with pytest.raises(DataError, match="defective share"):
        SourceOptions(defective_share=1.5)
    with pytest.raises(DataError, match="source 'nope' is unknown"):
        open_source("nope")


def test_geometry_by_hand() -> None:
    square = superellipse((32, 32), 10, 10, 40)
    assert inside(square, (32, 32)) and inside(square, (40, 40)) and not inside(square, (43, 32))
    dented = bump(square, 0, -5.0, 8.0)  # point 0 lies at (42, 32), the dent goes towards the middle
    assert dented[0] == pytest.approx([37, 32], abs=1e-6)
    assert dented[120] == pytest.approx(square[120], abs=1e-3)


def test_saved_images_match_the_rows(synthetic: AdPlDirectory) -> None:
    row = synthetic.inspections[0]
    assert open_image(synthetic.image_path(row.test_image)).size == (64, 64)
    assert row.reference_image is not None
    assert synthetic.image_path(row.reference_image).is_file()
