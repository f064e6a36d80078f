"""An evaluation of very many image pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from sage_trl.data.dataset import DatasetInfo, write_ad_pl
from sage_trl.evaluation.metrics import compute_metrics
from sage_trl.evaluation.results_files import merge_metrics
from sage_trl.records import Inspection, Question
from sage_trl.storage import write_jsonl
from tests.reporting.made_runs import evidence, prediction

SIDE = 512


def write_many_groups(root: Path, count: int) -> Path:
    """A folder with a dataset of so many groups, one question each on two photos of their own, and its evaluation."""
    dataset, output = root / "data", root / "evaluation"
    (dataset / "images").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for number in range(count):
        for kind in ("test", "reference"):
            _photo(generator).save(dataset / f"images/{number}_{kind}.jpg", quality=90)
    answers = ("Yes, a scratch at the top left.", "Yes, a scratch.", "Yes, a stain.", "No, fine.")
    inspections = [
        Inspection(
            id=f"g{number}",
            dataset="photos",
            category=f"kind {number % 12}",
            split="test",
            level="standard_comparison",
            test_image=f"images/{number}_test.jpg",
            reference_image=f"images/{number}_reference.jpg",
            defects=(),
            questions=(Question(id="q1", question="Is the part scratched?", verdict=True, answers=answers),),
        )
        for number in range(count)
    ]
    info = DatasetInfo(name="photos", licence="CC0", sources={"photos": "CC0"}, seed=0, splits={}, sha256="0" * 64)
    write_ad_pl(dataset, inspections, info)
    rows = {
        model: [prediction(model, f"g{number}", "q1", bool(number % share)) for number in range(count)]
        for model, share in (("first", 3), ("second", 4))
    }
    write_jsonl(output / "predictions.jsonl", (row.model_dump(mode="json") for found in rows.values() for row in found))
    write_jsonl(output / "evidence.jsonl", (evidence("first", f"g{number}") for number in range(count)))
    for model, found in rows.items():
        merge_metrics(output, {model: {"one_shot": compute_metrics(found).as_json()}})
    return root


def _photo(generator: np.random.Generator) -> Image.Image:
    """Blotches with grain: compresses about as a photo of a surface does."""
    blotches = generator.integers(60, 200, (12, 12, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(blotches).resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.int16)
    grain = generator.integers(-10, 11, (SIDE, SIDE, 1), dtype=np.int16)
    return Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8))
