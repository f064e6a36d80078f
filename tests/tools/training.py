"""Trainings of a tiny model through `tools/train.py`: recipes, commands, and what they logged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import yaml

from tests.conftest import REPOSITORY
from tests.warm import run_warm

TINY = {"image_size": 32, "vision_width": 16, "vision_layers": 1, "vision_heads": 2, "text_width": 32, "text_layers": 1}
SETTINGS = {
    "learning_rate": 1e-3,
    "per_device_train_batch_size": 4,
    "max_steps": 6,
    "bf16": False,
    "use_cpu": True,
    "gradient_checkpointing": False,
    "logging_steps": 1,
    "save_strategy": "steps",
    "save_steps": 2,
    "report_to": "none",
    "disable_tqdm": True,
    "seed": 3,
}


def command(tool: str, *arguments: object) -> list[str]:
    return [sys.executable, str(REPOSITORY / "tools" / tool), *map(str, arguments)]


def run(tool: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return run_warm(command(tool, *arguments))


def build_small_dataset(directory: Path, *groups: str) -> Path:
    """A synthetic dataset of so many groups (`SPLIT=NUMBER`) with facts and scores, built by the tools."""
    for arguments in (
        ("build_dataset.py", "--source", "synthetic", "--output", directory, "--seed", 0, "--groups", *groups),
        ("generate_facts.py", "--dataset", directory, "--model", "template"),
        ("score_mle.py", "--dataset", directory, "--judge", "rule"),
    ):
        result = run(*arguments)
        assert result.returncode == 0, result.stderr
    return directory


def write_recipe(path: Path, dataset: Path, output: Path, /, **values: object) -> Path:
    recipe = {"stage": "sfe", "model": "tiny", "tiny": TINY, "dataset": str(dataset), "output_dir": str(output)}
    path.write_text(yaml.safe_dump({**recipe, **SETTINGS, **values}))
    return path


def losses(output: Path) -> list[float]:
    history = json.loads((output / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in history if "loss" in entry]
