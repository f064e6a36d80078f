"""`tools/ablate.py` with the real tools, on little data: from nothing to the table, and killed on the way."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from sage_trl.storage import read_json
from tests.conftest import REPOSITORY

SMALL = "{text_width: 32, text_layers: 1, vision_width: 16, vision_layers: 1}"
PLAN = {
    "title": "Real",
    "recipes": str(REPOSITORY / "recipes" / "demo"),
    "settings": ["zero_shot", "one_shot"],
    "stages": {
        "base": {"recipe": "sft.yaml", "plain": True, "override": {"tiny": yaml.safe_load(SMALL)}},
        "learned": {"recipe": "sfe.yaml", "from": "base", "override": {"learned_queries": 2, "num_facts": 2}},
        "edpo": {"recipe": "edpo.yaml", "from": "learned", "tune": {"beta": [0.1, 0.2]}},
    },
    "arms": {
        "hard": {"stage": "base", "control": "hard_facts"},
        "learned": {"stage": "learned"},
        "edpo": {"stage": "edpo", "control": "shuffled_reference"},
    },
}


def tool(name: str, *arguments: str | Path) -> list[str]:
    return [sys.executable, str(REPOSITORY / "tools" / f"{name}.py"), *map(str, arguments)]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("data") / "ad_pl"
    groups = ["train=8", "validation=2", "test=3", "unseen=1"]
    for command in (
        tool("build_dataset", "--source", "synthetic", "--groups", *groups, "--output", directory, "--quiet"),
        tool("generate_facts", "--dataset", directory, "--model", "template", "--quiet"),
        tool("score_mle", "--dataset", directory, "--judge", "rule", "--quiet"),
    ):
        subprocess.run(command, check=True)
    return directory


def ablate(tmp_path: Path, dataset: Path, output: Path) -> list[str]:
    plan = tmp_path / "plan.yaml"
    plan.write_text(yaml.safe_dump(PLAN, sort_keys=False))
    steps = ("max_steps=2", "save_steps=1", "logging_steps=1", "per_device_train_batch_size=2")
    return tool("ablate", plan, "--dataset", dataset, "--output", output, "--set", *steps)


@pytest.mark.soak
def test_killed_at_any_moment_it_ends_with_the_same_table(tmp_path: Path, dataset: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(ablate(tmp_path, dataset, whole), check=True)
    moments = random.Random(0)
    for _ in range(6):
        process = subprocess.Popen(ablate(tmp_path, dataset, killed), start_new_session=True)
        try:
            process.wait(timeout=moments.uniform(15, 60))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        time.sleep(1)
    done = subprocess.run(ablate(tmp_path, dataset, killed), capture_output=True, text=True, check=True)

    assert (killed / "table.json").read_bytes() == (whole / "table.json").read_bytes()
    assert "train base: done before" in done.stdout
    rows = read_json(whole / "table.json")["rows"]
    assert [(row["arm"], row["setting"]) for row in rows[:3]] == [
        *(("hard", "zero_shot"), ("learned", "zero_shot"), ("edpo", "zero_shot")),
    ]
    assert all(row["questions"] == 15 for row in rows)
    assert rows[2]["chosen"]["beta"] in (0.1, 0.2)
    assert read_json(whole / "seed-0" / "models" / "learned" / "config.json")["learned_queries"] == 2
