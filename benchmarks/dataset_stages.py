"""The stages of a dataset of AD-PL's size: built from generated images, given facts, loaded, read for an epoch."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader

from sage_trl import load_ad_pl
from sage_trl.data.authoring import Scene, author_inspections
from sage_trl.data.dataset import DatasetInfo, read_ad_pl, write_ad_pl
from sage_trl.facts.generation import generate_facts
from sage_trl.facts.template_bank import TemplateBank
from sage_trl.models.tiny import build_tiny_internvl
from sage_trl.records import Defect
from sage_trl.trainer.collators import SFECollator
from sage_trl.trainer.fact_trainer import keep_images_encoded
from sage_trl.trainer.group_sampler import GroupSampler

# AD-PL has 4,573 images and 28,415 questions, five to a group; how many of its images are references, it does not say.
GROUPS = 5683
TEST_IMAGES = 4273
REFERENCES = 300
CATEGORIES = ("hazelnut", "screw", "capsule", "cable", "pcb", "candle", "bracket", "tube", "grid", "tile")
TYPES = ("scratch", "crack", "stain", "hole", "dent")
SPLITS = ("train",) * 8 + ("validation", "test")
SPLIT_NAMES = ("train", "validation", "test")
BATCH = 32


def build(directory: Path, share: float, size: int) -> None:
    """Images as JPEG, questions by the rule author, one or two groups to a test image."""
    references, tests, groups = (max(10, round(count * share)) for count in (REFERENCES, TEST_IMAGES, GROUPS))
    for number in range(references):
        _save_photo(directory / f"images/reference_{number:04}.jpg", number, size)
    scenes = []
    for number in range(groups):
        image = number % tests
        reference = image % references
        if number < tests:
            _save_photo(directory / f"images/test_{image:04}.jpg", 1_000_000 + image, size)
        box = (0.1 * (image % 7) + 0.05, 0.1 * (image % 5) + 0.05, 0.1 * (image % 7) + 0.2, 0.1 * (image % 5) + 0.2)
        defects = (Defect(type=TYPES[image % len(TYPES)], box=box),) if image % 2 else ()
        scenes.append(
            Scene(
                id=f"full/{number:05}",
                dataset="full",
                category=CATEGORIES[reference % len(CATEGORIES)],
                split=SPLITS[reference % len(SPLITS)],
                test_image=f"images/test_{image:04}.jpg",
                reference_image=f"images/reference_{reference:04}.jpg",
                defects=defects,
            )
        )
    info = DatasetInfo(name="full", licence="CC0-1.0", sources={"full": "CC0-1.0"}, seed=0, splits={}, sha256="0" * 64)
    write_ad_pl(directory, author_inspections(scenes, 0), info)


@lru_cache(maxsize=1)
def _surface(size: int) -> NDArray[np.uint8]:
    """Details and sensor noise, about 0.3 bytes a pixel as a JPEG."""
    rng = np.random.default_rng(0)
    details = Image.fromarray(rng.integers(0, 256, (size // 8, size // 8, 3), dtype=np.uint8)).resize((size, size))
    noise = rng.integers(0, 16, (size, size, 1), dtype=np.uint8)
    return (np.asarray(details) >> 1) + noise


def _save_photo(path: Path, seed: int, size: int) -> None:
    """A picture with shading and a surface of its own; no two are alike."""
    rng = np.random.default_rng(seed)
    shading = Image.fromarray(rng.integers(0, 112, (6, 6, 3), dtype=np.uint8)).resize((size, size))
    pixels = np.roll(_surface(size), rng.integers(0, size, 2), axis=(0, 1)) + np.asarray(shading)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=90)


def write_facts(directory: Path) -> None:
    """The template bank's facts: every distinct test image is hashed and decoded."""
    generate_facts(read_ad_pl(directory), TemplateBank(), directory / "facts.jsonl")


def load(directory: Path) -> Any:
    """Rows of all splits, with facts."""
    return [load_ad_pl(directory, split=split, facts=directory / "facts.jsonl") for split in SPLIT_NAMES]


def epoch(directory: Path) -> None:
    """One epoch of SFE batches of 32 rows, groups together, with a tiny model's processor."""
    splits = [keep_images_encoded(rows) for rows in load(directory)]
    texts = [row["prompt"][0]["content"] for row in splits[1]]
    _, processor = build_tiny_internvl(texts)
    collator = SFECollator(processor, shared_prefix=True)
    for rows in splits:
        sampler = GroupSampler(rows["group_id"], 0)
        for _ in DataLoader(rows, BATCH, sampler=sampler, collate_fn=collator):
            pass
