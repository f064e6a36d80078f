"""Real images through the tools: built, checked clean, trained on for a few steps, evaluated."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from sage_trl.data.dataset import read_ad_pl
from sage_trl.data.images import open_image
from tests.tools.training import SETTINGS, TINY

SOURCES = {
    "deep_pcb": ("deep_pcb", ("--crops-per-defect", "1")),
    "mvtec": ("mvtec_layout", ("--pairing", "nearest")),
    "labelme": ("bsdata", ("--category", "ball screw", "--licence", "CC BY-SA 4.0")),
}


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES)
def test_built_checked_trained_and_evaluated(
    source: str, real_data: Path, run_tool_file: Callable[..., int], tmp_path: Path
) -> None:
    folder, options = SOURCES[source]
    root = real_data / folder
    if not root.is_dir():
        pytest.skip(f"no images at {root}; set SAGE_TEST_DATA to the folder above them")
    data, model = tmp_path / "data", tmp_path / "sfe"
    groups = ("--groups", "train=16", "validation=0", "test=4")
    assert (
        run_tool_file("build_dataset.py", "--source", source, "--root", root, "--output", data, *options, *groups) == 0
    )
    assert run_tool_file("check.py", data) == 0
    check_pairs(data, source)
    assert run_tool_file("generate_facts.py", "--dataset", data, "--model", "template", "--num-facts", "2") == 0
    recipe = {"stage": "sfe", "model": "tiny", "tiny": TINY, "dataset": str(data), "output_dir": str(model)}
    (tmp_path / "sfe.yaml").write_text(yaml.safe_dump({**recipe, **SETTINGS, "save_strategy": "no", "max_steps": 3}))
    assert run_tool_file("train.py", tmp_path / "sfe.yaml") == 0
    to = ("--output", tmp_path / "evaluation", "--judge", "rule", "--split", "test")
    assert run_tool_file("evaluate.py", "--model", model, "--dataset", data, "--setting", "one_shot", *to) == 0
    metrics = json.loads((tmp_path / "evaluation/metrics.json").read_text(encoding="utf-8"))
    (measured,) = (found["one_shot"] for found in metrics.values())
    asked = sum(len(row.questions) for row in read_ad_pl(data).select(["test"]))
    assert measured["questions"] == asked > 0
    assert 0 <= measured["accuracy"] <= 1


def check_pairs(directory: Path, source: str) -> None:
    data = read_ad_pl(directory)
    assert {row.split for row in data.inspections} <= {"train", "test"}
    defective = [row for row in data.inspections if row.defects]
    assert 0 < len(defective) < len(data.inspections)
    tests = {row.test_image for row in data.inspections}
    for row in data.inspections:
        if row.reference_image is not None:
            assert row.reference_image not in tests
            assert open_image(data.image_path(row.reference_image)).width > 0
    if source == "labelme":
        places = {(row.test_image.split("_", 2)[2], row.reference_image.split("_", 2)[2]) for row in paired(data)}
        assert places and all(own == other for own, other in places)
    if source == "mvtec":
        assert {row.reference_image.rsplit("/", 1)[0] for row in paired(data)} == {"hazelnut/train/good"}
        assert {defect.type for row in defective for defect in row.defects} == {"discolouration"}
        assert all(0 < defect.share < 0.5 for row in defective for defect in row.defects)


def paired(data):
    return [row for row in data.inspections if row.reference_image is not None]
