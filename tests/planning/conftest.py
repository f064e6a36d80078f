"""Fixtures: a small dataset with scores, small checkpoints of each stage, and recipes for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from sage_trl.data.dataset import read_ad_pl
from sage_trl.judge.scorer import open_judge, score_answers
from sage_trl.models.adapters import add_lora
from sage_trl.models.checkpoints import load_pretrained, save_pretrained
from sage_trl.planning.memory import OVERRIDES
from sage_trl.recipe import Recipe, load_recipe
from sage_trl.storage import write_jsonl
from tests.evaluation.small_ad_pl import write_small_ad_pl
from tests.models.stock_checkpoints import save_stock
from tests.tools.conftest import run_tool_file  # noqa: F401

FUSION = {"num_selected_patches": 2, "fusion_num_heads": 2}


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight questions on four image pairs in split `test`, with facts and the rule judge's scores."""
    directory = write_small_ad_pl(tmp_path_factory.mktemp("data") / "ad_pl")
    scores = score_answers(open_judge("rule"), read_ad_pl(directory).inspections)
    write_jsonl(directory / "scores.jsonl", (score.model_dump() for score in scores))
    return directory


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder per backbone with `base`, `sfe` (the same with a fusion) and `lora` (an adapter on `base`)."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            save_stock(name, made[name] / "base")
            model, processor = load_pretrained(made[name] / "base", fusion=FUSION)
            save_pretrained(model, processor, made[name] / "sfe")
            torch.manual_seed(0)
            adapted = add_lora(model, ["projector", "fusion", "language_model"], r=4)
            save_pretrained(adapted, processor, made[name] / "lora")
        return made[name]

    return make


@pytest.fixture
def recipe(dataset: Path, tmp_path: Path) -> Callable[..., Recipe]:
    """A recipe whose one batch is the whole split, with the given keys on top."""

    def make(**keys: Any) -> Recipe:
        return load_recipe(write_recipe(tmp_path, dataset, **keys), OVERRIDES)

    return make


def write_recipe(directory: Path, dataset: Path, **keys: Any) -> Path:
    values = {
        "stage": "sfe",
        "dataset": str(dataset),
        "split": "test",
        "output_dir": str(directory / "out"),
        "per_device_train_batch_size": 16,
        "reference_dropout": 0.0,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
        "learning_rate": 1e-3,
        **keys,
    }
    path = directory / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    return path
