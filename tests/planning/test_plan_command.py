"""`tools/train.py --plan` through the real command line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY
from tests.planning.conftest import write_recipe
from tests.warm import run_warm


def plan(recipe, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, REPOSITORY / "tools" / "train.py", recipe, "--plan", *map(str, arguments)]
    return run_warm(command, env={**os.environ, "COLUMNS": "120"})


def figures(stdout: str) -> dict[str, list[str]]:
    """First cell of a table's row -> the other cells."""
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in stdout.splitlines() if "│" in line]
    return {first: rest for first, *rest in cells}


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["absent", "truncated"])
def test_a_plan_needs_no_weights_and_leaves_nothing(weights, checkpoints, dataset, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(checkpoints("internvl") / "sfe", model)
    size = (model / "model.safetensors").stat().st_size
    if weights == "absent":
        (model / "model.safetensors").unlink()
    else:
        os.truncate(model / "model.safetensors", size // 2)
    recipe = write_recipe(tmp_path, dataset, stage="edpo", model=str(model), bf16=True)
    result = plan(recipe)
    assert result.returncode == 0, result.stderr
    shown = figures(result.stdout)
    held = int(shown["weights"][0].replace(",", ""))
    # A file of fp32 weights is as large as they are, but for its header.
    assert held < size < held * 1.1
    assert shown["weights of the reference"][0] == shown["weights"][0]
    total = sum(int(cells[0].replace(",", "")) for name, cells in shown.items() if name in NAMES)
    assert shown["all"][0] == f"{total:,}"
    assert "language_model" in shown
    assert "out of 16 rows" in result.stdout
    assert not (tmp_path / "out").exists()


NAMES = (
    *("weights", "weights of the reference", "buffers, 4-bit scales", "gradients", "optimizer state"),
    *("activations", "activations, recomputed layer", "autocast's copies of weights", "gathered layers, communication"),
)


@pytest.mark.parametrize(
    ("keys", "arguments", "words"),
    [
        ({}, ("--dataset", "nowhere"), ["nowhere", "no such dataset directory"]),
        ({"optim": "lomo"}, (), ["optim lomo", "adamw_torch"]),
        ({}, ("--processes", "0"), ["--processes", "1"]),
        ({"learnin_rate": 1}, (), ["learnin_rate", "did you mean 'learning_rate'"]),
    ],
)
def test_bad_input(keys, arguments, words, checkpoints, dataset, tmp_path, run_tool_file, capfd):
    recipe = write_recipe(tmp_path, dataset, model=str(checkpoints("internvl") / "sfe"), **keys)
    capfd.readouterr()
    assert run_tool_file("train.py", recipe, "--plan", *arguments) == 2
    written = capfd.readouterr().err
    assert "Traceback" not in written
    for word in words:
        assert word in written
