"""A synthetic dataset, built once for all tests that only read it."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from sage_trl.data.authoring import Scene, author_inspections
from sage_trl.data.building import build_dataset
from sage_trl.data.dataset import AdPlDirectory, DatasetInfo, read_ad_pl
from sage_trl.data.sources import SourceOptions, open_source
from sage_trl.lexicon import WHOLE, readable_type
from sage_trl.records import Defect

GROUPS = {"train": 360, "validation": 180, "test": 30, "unseen": 60}


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> AdPlDirectory:
    """630 groups with seed 1; do not change its files."""
    root: Path = tmp_path_factory.mktemp("synthetic") / "ad_pl"
    build_dataset(open_source("synthetic"), SourceOptions(seed=1, groups=GROUPS), root)
    return read_ad_pl(root)


# Folder names of MVTec AD, of which the lexicon knows only some.
FOREIGN_TYPES = {
    "screw": ("manipulated_front", "scratch_head", "scratch_neck", "thread_side", "thread_top"),
    "metal_nut": ("bent", "color", "flip", "scratch"),
    "hazelnut": ("color",),
    "zipper": ("broken_teeth", "fabric_border", "squeezed_teeth"),
}


@pytest.fixture(scope="session")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> AdPlDirectory:
    """630 groups on parts as MVTec AD has them, without images: types of other names, wide and several defects."""
    return _written("foreign", _all_foreign_scenes(), tmp_path_factory.mktemp("foreign"))


@pytest.fixture(scope="session")
def placeless(tmp_path_factory: pytest.TempPathFactory) -> AdPlDirectory:
    """The parts of `foreign` without masks: nothing tells the place of any defect."""
    scenes = [
        replace(scene, defects=tuple(Defect(type=kind, box=WHOLE) for kind in scene.types))
        for scene in _all_foreign_scenes()
    ]
    return _written("placeless", scenes, tmp_path_factory.mktemp("placeless"))


def _written(name: str, scenes: list[Scene], root: Path) -> AdPlDirectory:
    inspections = tuple(author_inspections(scenes, 1))
    info = DatasetInfo(name=name, licence="CC0", sources={}, seed=1, splits={}, sha256="0" * 64)
    return AdPlDirectory(root, root, info, inspections)


def _all_foreign_scenes() -> list[Scene]:
    counts = {"train": 360, "validation": 180, "test": 30, "unseen": 60}
    return [scene for split, count in counts.items() for scene in _foreign_scenes(split, count)]


def _foreign_scenes(split: str, count: int) -> list[Scene]:
    rng = random.Random(split)
    scenes = []
    for number in range(count):
        category = list(FOREIGN_TYPES)[number % len(FOREIGN_TYPES)]
        defects = []
        if rng.random() < 0.6:
            kind = readable_type(rng.choice(FOREIGN_TYPES[category]))
            for _ in range(1 + (rng.random() < 0.3)):
                width, height = rng.choice([(0.1, 0.1), (0.3, 0.2), (0.8, 0.1), (0.1, 0.7)])
                left, top = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
                defects.append(Defect(type=kind, box=(left, top, left + width, top + height)))
        name = f"{split}/{number}"
        scenes.append(Scene(f"mvtec/{name}", "mvtec", category, split, f"{name}.png", "good.png", tuple(defects)))
    return scenes


@pytest.fixture(params=["synthetic", "foreign", "placeless"])
def authored(request: pytest.FixtureRequest) -> AdPlDirectory:
    """Each of the datasets that the rule author wrote."""
    data: AdPlDirectory = request.getfixturevalue(request.param)
    return data
