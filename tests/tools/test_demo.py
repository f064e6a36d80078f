"""`tools/demo.py`: the order of the steps, and the whole of it on little data."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from sage_trl.steps.dataset import BUILD_OPTIONS, data_steps
from sage_trl.steps.runner import StepRunner, environment_of_steps
from sage_trl.storage import read_json
from tests.warm import run_warm

DEMO = Path(__file__).resolve().parents[2] / "tools" / "demo.py"


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The tool as a module."""
    spec = importlib.util.spec_from_file_location("demo_under_test", DEMO)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_steps_of_the_demo(demo: ModuleType) -> None:
    runs = Path("runs/demo")
    data = data_steps("deep_pcb", Path("photos"), runs / "data", 3)
    training = demo.training_steps(Path("recipes/demo"), runs / "data", runs, 3)
    evaluation = demo.evaluation_steps(runs / "data", runs, runs / "evaluation", ["test", "unseen"])

    commands = [" ".join(step.arguments) for step in [*data, *training, *evaluation]]
    assert [command.split()[0] for command in commands] == [
        "build_dataset.py",
        "generate_facts.py",
        "train.py",
        "train.py",
        "score_mle.py",
        "train.py",
        "train.py",
        "evaluate.py",
        "evaluate.py",
        "evaluate.py",
    ]
    assert "--source deep_pcb --root photos" in commands[0]
    assert [command.split()[1] for command in commands if command.startswith("train")] == [
        f"recipes/demo/{stage}.yaml" for stage in ("sft", "sfe", "dpo", "edpo")
    ]
    assert all("--model runs/demo/sfe" in command for command in commands[5:7])
    assert "--setting zero_shot one_shot --split test unseen" in commands[7]
    assert "--control blank_image shuffled_reference shuffled_facts" in commands[8]


def call_warm(runner: StepRunner, command: Sequence[str]) -> int:
    """As the runner starts a command, see tests/steps for that, without ten imports of TRL."""
    result = run_warm([sys.executable, *command[1:]], env={**os.environ, **environment_of_steps()})
    print(result.stdout, result.stderr)
    return result.returncode


@pytest.mark.slow
def test_the_whole_demo_on_little_data(
    demo: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    small = {"tiny": {"text_width": 32, "text_layers": 1, "vision_width": 16, "vision_layers": 1}}
    for path in sorted((DEMO.parent.parent / "recipes" / "demo").glob("*.yaml")):
        recipe = {**yaml.safe_load(path.read_text()), "max_steps": 2, "save_steps": 2, "logging_steps": 1}
        from_scratch = recipe["model"] == "tiny"
        (recipes / path.name).write_text(yaml.safe_dump({**recipe, **(small if from_scratch else {})}))
    monkeypatch.setattr(demo, "RECIPES", recipes)
    monkeypatch.setattr(StepRunner, "_call", call_warm)
    monkeypatch.setitem(BUILD_OPTIONS, "synthetic", ("--groups", "train=8", "validation=2", "test=3", "unseen=3"))
    monkeypatch.setattr(sys, "argv", ["demo.py", "--output", str(tmp_path / "demo")])
    assert demo.main() == 0
    summary = read_json(tmp_path / "demo" / "summary.json")
    conditions = {(entry["stage"], entry["setting"], entry["split"]) for entry in summary}
    assert len(summary) == len(conditions) == 4 * 2 * 2
    assert all(0 <= entry["accuracy"] <= 1 and entry["questions"] == 15 for entry in summary)
    shown = capsys.readouterr().out
    for control in (*demo.CONTROLS, "no_facts"):
        assert f"SFE, {control}" in shown
