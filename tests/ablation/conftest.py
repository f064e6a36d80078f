"""Fixtures: tools that pretend, in a directory of their own, and a small plan."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from sage_trl.ablation.arms import parse_changes
from sage_trl.ablation.run import Ablation, AblationOptions
from tests.conftest import REPOSITORY
from tests.evaluation.small_ad_pl import write_small_ad_pl

# Notes what it was asked; a step that `fail` names ends half way with the code found there.
FAKE_TOOL = """
import json, pathlib, sys
tool, words, work = pathlib.Path(sys.argv[0]), sys.argv[1:], pathlib.Path(sys.argv[0]).parent.parent
option = lambda name: words[words.index(name) + 1]
with (work / "calls.jsonl").open("a") as calls:
    calls.write(json.dumps([tool.stem, *words]) + "\\n")
if tool.stem == "evaluate":
    output, model = pathlib.Path(option("--output")), pathlib.Path(option("--model")).name
elif tool.stem == "merge":
    output, model = pathlib.Path(words[1]), ""
else:
    output, model = pathlib.Path(option("--output_dir")), ""
assert tool.stem == "evaluate" or "--resume" in words or not output.exists(), f"{output} is there"
output.mkdir(parents=True, exist_ok=True)
failing = json.loads((work / "fail.json").read_text())
if f"{tool.stem} {output.name}" in failing:
    sys.exit(failing[f"{tool.stem} {output.name}"])
if tool.stem == "evaluate":
    accuracies = json.loads((work / "accuracies.json").read_text())
    seed = next(part for part in output.parts if part.startswith("seed-"))
    accuracy = accuracies.get(f"{seed}/{output.name}", 0.5)
    control = "+hard_facts" if "--facts-as-text" in words else ""
    control = "+" + option("--control") if "--control" in words else control
    settings = words[words.index("--setting") + 1 : words.index("--split")]
    splits = [word for word in words[words.index("--split") + 1 :] if word in ("test", "unseen", "validation")]
    figures = {
        "accuracy": accuracy, "balanced_accuracy": None, "acc_g": accuracy / 2, "f1": accuracy, "sbert": None,
        "mle_rule": {"type": 1, "location": 2, "logic": 3, "mean": 2.0}, "unreadable": 3, "questions": 8, "groups": 4,
        "majority_accuracy": 0.5,
        "intervals": {"accuracy": [accuracy - 0.1, accuracy + 0.1], "mle_rule/mean": [1.5, 2.5]},
    }
    keys = [setting + ("" if split == "test" else "@" + split) + control for setting in settings for split in splits]
    (output / "metrics.json").write_text(json.dumps({model: {key: figures for key in keys}}))
"""
PLAN = {
    "title": "Small",
    "recipes": str(REPOSITORY / "recipes" / "demo"),
    "settings": ["zero_shot", "one_shot"],
    "stages": {
        "base": {"recipe": "sft.yaml", "plain": True},
        "sfe": {"recipe": "sfe.yaml", "from": "base"},
        "dpo": {"recipe": "edpo.yaml", "from": "sfe", "override": {"eta": 0.0}},
    },
    "arms": {
        "baseline": {"stage": "base"},
        "hard": {"stage": "base", "control": "hard_facts", "title": "Fact[Hard]"},
        "sfe": {"stage": "sfe"},
        "dpo": {"stage": "dpo"},
    },
}


class Work:
    """A directory with pretending tools, a dataset and an output."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.output = root / "out"
        (root / "tools").mkdir()
        for name in ("train", "merge", "evaluate"):
            (root / "tools" / f"{name}.py").write_text(FAKE_TOOL)
        self.dataset = write_small_ad_pl(root / "ad_pl")
        (self.dataset / "scores.jsonl").write_text("")
        self.let_fail({})
        self.say_accuracies({})

    def let_fail(self, codes: dict[str, int]) -> None:
        (self.root / "fail.json").write_text(json.dumps(codes))

    def say_accuracies(self, accuracies: dict[str, float]) -> None:
        (self.root / "accuracies.json").write_text(json.dumps(accuracies))

    def write_plan(self, **changes: Any) -> Path:
        path = self.root / "plan.yaml"
        path.write_text(yaml.safe_dump({**PLAN, **changes}, sort_keys=False))
        return path

    def ablation(self, plan: Path, *, trained: list[str] = [], values: list[str] = [], **options: Any) -> Ablation:  # noqa: B006
        return Ablation(
            AblationOptions(
                plan=plan,
                output=self.output,
                tools=self.root / "tools",
                dataset=options.pop("dataset", self.dataset),
                changes=parse_changes(None, trained, values),
                quiet=options.pop("quiet", True),
                **options,
            )
        )

    def calls(self) -> list[list[str]]:
        """What the tools were asked, without `--quiet`."""
        path = self.root / "calls.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [[word for word in json.loads(line) if word != "--quiet"] for line in lines]

    def names(self) -> list[str]:
        """Each call as the tool and the name of what it made."""
        made = {"train": "--output_dir", "evaluate": "--output"}
        return [
            f"{call[0]} {Path(call[call.index(made[call[0]]) + 1] if call[0] in made else call[2]).name}"
            for call in self.calls()
        ]


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path)


@pytest.fixture
def option() -> Callable[[list[str], str], str]:
    """The word after an option of a call."""
    return lambda call, name: call[call.index(name) + 1]
