"""`tools/demo.py`: the order of the steps, and what happens when one fails, is stopped or has changed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from sage_trl.evaluation.demo_steps import StepLog
from sage_trl.storage import read_json

DEMO = Path(__file__).resolve().parents[2] / "tools" / "demo.py"
# Notes its arguments in a file and ends with the code found in another.
FAKE_TOOL = """
import pathlib, sys
output = pathlib.Path(sys.argv[1])
output.mkdir(exist_ok=True)
with (output / "calls").open("a") as calls:
    calls.write(" ".join(sys.argv[2:]) + "\\n")
sys.exit(int((output.parent / "code").read_text()))
"""


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The tool as a module, in a repository of one fake tool."""
    spec = importlib.util.spec_from_file_location("demo_under_test", DEMO)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "demo_under_test", module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    (tmp_path / "repository" / "tools").mkdir(parents=True)
    (tmp_path / "repository" / "sage_trl").mkdir()
    (tmp_path / "repository" / "tools" / "fake.py").write_text(FAKE_TOOL)
    (tmp_path / "code").write_text("0")
    monkeypatch.setattr(module, "REPOSITORY", tmp_path / "repository")
    return module


def run(demo: ModuleType, tmp_path: Path, *extra: str) -> int:
    produces = tmp_path / "made"
    steps = [
        demo.Step("first", ("fake.py", str(produces), "first", *extra), produces=produces, resume=("--resume",)),
        demo.Step("second", ("fake.py", str(tmp_path / "other"), "second")),
    ]
    code: int = demo.StepRunner(tmp_path).run(steps)
    return code


def calls(directory: Path) -> list[str]:
    path = directory / "calls"
    return path.read_text().splitlines() if path.exists() else []


def test_all_steps_run_once(demo: ModuleType, tmp_path: Path) -> None:
    assert run(demo, tmp_path) == 0
    assert run(demo, tmp_path) == 0

    assert calls(tmp_path / "made") == ["first"]
    assert calls(tmp_path / "other") == ["second"]


def test_the_first_failure_stops_with_its_code(
    demo: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "code").write_text("7")

    assert run(demo, tmp_path) == 7

    assert calls(tmp_path / "other") == []
    shown = capfd.readouterr()
    assert "step 'first' failed with exit code 7" in shown.err
    assert "fake.py" in shown.out


def test_a_stopped_step_is_resumed(demo: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "code").write_text("130")
    run(demo, tmp_path)
    (tmp_path / "code").write_text("0")

    assert run(demo, tmp_path) == 0

    assert calls(tmp_path / "made") == ["first", "first --resume"]
    assert calls(tmp_path / "other") == ["second"]


def test_a_changed_step_and_all_after_it_are_done_anew(demo: ModuleType, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("lr: 1")
    run(demo, tmp_path, str(recipe))
    recipe.write_text("lr: 2")

    assert run(demo, tmp_path, str(recipe)) == 0

    assert calls(tmp_path / "made") == [f"first {recipe}"]
    assert calls(tmp_path / "other") == ["second", "second"]


def test_changed_code_is_run_again(demo: ModuleType, tmp_path: Path) -> None:
    run(demo, tmp_path)
    (tmp_path / "repository" / "sage_trl" / "losses.py").write_text("beta = 2")

    assert run(demo, tmp_path) == 0

    assert calls(tmp_path / "other") == ["second", "second"]


def test_what_the_demo_did_not_make_is_never_removed(demo: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "theirs").write_text("")

    run(demo, tmp_path)

    assert (tmp_path / "made" / "theirs").exists()


def test_step_log_remembers(tmp_path: Path) -> None:
    StepLog(tmp_path / "steps.json").note("train", "a", None)
    assert StepLog(tmp_path / "steps.json").state("train", "a") == "stopped"

    StepLog(tmp_path / "steps.json").note("train", "a", 1.5)
    log = StepLog(tmp_path / "steps.json")
    assert (log.state("train", "a"), log.state("train", "b"), log.state("other", "a")) == ("done", "new", "new")
    assert read_json(tmp_path / "steps.json")["steps"]["train"]["seconds"] == 1.5


def test_steps_of_the_demo(demo: ModuleType) -> None:
    runs = Path("runs/demo")
    data = demo.data_steps("deep_pcb", Path("photos"), runs / "data", 3)
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
    monkeypatch.setattr(demo, "REPOSITORY", DEMO.parent.parent)
    monkeypatch.setattr(demo, "RECIPES", recipes)
    monkeypatch.setitem(demo.BUILD_OPTIONS, "synthetic", ("--groups", "train=8", "validation=2", "test=3", "unseen=3"))
    monkeypatch.setattr(sys, "argv", ["demo.py", "--output", str(tmp_path / "demo")])
    assert demo.main() == 0
    summary = read_json(tmp_path / "demo" / "summary.json")
    conditions = {(entry["stage"], entry["setting"], entry["split"]) for entry in summary}
    assert len(summary) == len(conditions) == 4 * 2 * 2
    assert all(0 <= entry["accuracy"] <= 1 and entry["questions"] == 15 for entry in summary)
    shown = capsys.readouterr().out
    for control in (*demo.CONTROLS, "no_facts"):
        assert f"SFE, {control}" in shown
