"""`tools/demo.py`: the order of the steps, and the whole of it on little data."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from sage_trl.steps import runner
from sage_trl.steps.dataset import BUILD_OPTIONS, data_steps
from sage_trl.steps.running import RunningStep
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
        "score_mle.py",
        "train.py",
        "train.py",
        "train.py",
        "evaluate.py",
        "evaluate.py",
        "evaluate.py",
        "evaluate.py",
    ]
    assert "--source deep_pcb --root photos" in commands[0]
    assert [command.split()[1] for command in commands if command.startswith("train")] == [
        f"recipes/demo/{stage}.yaml" for stage in ("sfe", "sft", "dpo", "edpo")
    ]
    assert all("--model runs/demo/sfe" in command for command in commands[5:7])
    assert "--control blank_image shuffled_reference shuffled_facts" in commands[7]
    assert "--model runs/demo/sft runs/demo/sfe runs/demo/dpo runs/demo/edpo" in commands[10]
    assert "--setting zero_shot one_shot --split test unseen" in commands[10]


def test_steps_wait_for_what_they_use_alone(demo: ModuleType) -> None:
    runs = Path("runs/demo")
    training = demo.training_steps(Path("recipes/demo"), runs / "data", runs, 3)
    evaluation = demo.evaluation_steps(runs / "data", runs, runs / "evaluation", ["test"])

    needs = {step.name: step.needs for step in [*training, *evaluation]}
    data = ("build the dataset", "write the facts")
    assert needs == {
        "train sfe": data,
        "score the ranked answers": data,
        "train sft": data,
        "train dpo": ("train sfe", "score the ranked answers"),
        "train edpo": ("train sfe", "score the ranked answers"),
        "evaluate the controls": ("train sfe",),
        "evaluate without facts": ("evaluate the controls",),
        "evaluate the first stages": ("evaluate without facts", "train sft", "train sfe"),
        "evaluate all stages": None,
    }


class WarmStep(RunningStep):
    """As the runner starts a command, see tests/steps for that, without ten imports of TRL."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], *_: object) -> None:
        self.name = name
        self._start = time.monotonic()
        self._result = run_warm([sys.executable, *command[1:]], env=environment)
        print(self._result.stdout, self._result.stderr)

    def __exit__(self, *_: object) -> None:
        pass

    def exit_code(self) -> int | None:
        return self._result.returncode


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
    monkeypatch.setattr(runner, "RunningStep", WarmStep)
    monkeypatch.setitem(BUILD_OPTIONS, "synthetic", ("--groups", "train=8", "validation=2", "test=3", "unseen=3"))
    monkeypatch.setattr(sys, "argv", ["demo.py", "--output", str(tmp_path / "demo"), "--jobs", "1"])
    assert demo.main() == 0
    summary = read_json(tmp_path / "demo" / "summary.json")
    conditions = {(entry["stage"], entry["setting"], entry["split"]) for entry in summary}
    assert len(summary) == len(conditions) == 4 * 2 * 2
    assert all(0 <= entry["accuracy"] <= 1 and entry["questions"] == 15 for entry in summary)
    shown = capsys.readouterr().out
    for control in (*demo.CONTROLS, "no_facts"):
        assert f"SFE, {control}" in shown
