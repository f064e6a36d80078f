"""Every command and every Python line of the README runs, on small data and without a download."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import REPOSITORY
from tests.publishing.conftest import hub_environment
from tests.publishing.hub_server import FakeHub, running_hub
from tests.warm import run_warm

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
HUB_MODEL = "OpenGVLab/InternVL3-1B-hf"
PHOTOS = "path/to/DeepPCB"
# What makes a command short, by its tool; none of these changes what the README shows.
SHORTER = {
    "build_dataset.py": ["--crops-per-defect", "1", "--quiet"],
    "generate_facts.py": ["--fill", "template", "--max-new-tokens", "4", "--quiet"],
    "train.py": [
        *("--use_cpu", "true", "--max_steps", "1", "--per_device_train_batch_size", "2"),
        *("--report_to", "none", "--disable_tqdm", "true"),
    ],
    "evaluate.py": ["--limit", "1", "--max-new-tokens", "4", "--quiet"],
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[list[str]]:
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    return [shlex.split(line) for line in lines if line and not line.startswith("#")]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four boards in DeepPCB's layout, one photo pair each, with two defects to a board."""
    root = tmp_path / "photos"
    rng = np.random.default_rng(0)
    for number in range(4):
        folder = root / f"group{number}" / "0001"
        annotations = root / f"group{number}" / "0001_not"
        folder.mkdir(parents=True)
        annotations.mkdir()
        board = np.repeat(np.repeat(rng.integers(0, 2, (16, 16), dtype=np.uint8) * 255, 40, 0), 40, 1)
        Image.fromarray(board).save(folder / f"{number}_temp.jpg")
        lines = []
        for kind, (x, y) in enumerate(((100, 100), (500, 540)), start=1 + number % 2):
            board[y : y + 24, x : x + 24] = 255 - board[y, x]
            lines.append(f"{x} {y} {x + 24} {y + 24} {kind}\n")
        Image.fromarray(board).save(folder / f"{number}_test.jpg")
        (annotations / f"{number}.txt").write_text("".join(lines))
    return root


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """An empty directory with the repository's tools and recipes."""
    place = tmp_path / "workplace"
    place.mkdir()
    for name in ("tools", "recipes"):
        (place / name).symlink_to(REPOSITORY / name)
    return place


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with running_hub() as server:
        yield server


def environment() -> dict[str, str]:
    scripts = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}


@pytest.mark.slow
def test_the_real_path_and_the_python_code_run(photos, stock, workplace, hub):
    model, _ = stock

    def real(text: str) -> str:
        return text.replace(PHOTOS, str(photos)).replace(HUB_MODEL, str(model))

    shown = [command for command in commands() if command[0] != "make"]
    assert {Path(word).name for command in shown for word in command if word.startswith("tools/")} == {
        *("build_dataset.py", "check.py", "generate_facts.py", "train.py", "score_mle.py", "evaluate.py"),
        *("report.py", "merge.py", "publish.py"),
    }
    launched = [command for command in shown if command[0] == "accelerate"]
    for command in shown:
        tool = next(Path(word).name for word in command if word.startswith("tools/"))
        arguments = [real(word) for word in command] + SHORTER.get(tool, [])
        settings = environment()
        if tool == "publish.py":
            settings = hub_environment(hub.url, workplace, PATH=settings["PATH"])
        program = {"python": [], "accelerate": [Path(sys.executable).with_name("accelerate")]}[arguments[0]]
        if command in launched[1:]:
            # The launcher takes a quarter of a minute, and starts them as it has started the first.
            program, arguments = [], arguments[arguments.index("launch") :]
        result = run_warm([sys.executable, *program, *arguments[1:]], cwd=workplace, env=settings)
        assert result.returncode == 0, f"{shlex.join(arguments)}\n{result.stderr}"
    assert (workplace / "runs" / "evaluation" / "metrics.json").is_file()
    assert (workplace / "runs" / "report.html").is_file()
    assert b"sfe, then edpo" in hub.repositories["me/sage-internvl3-1b"].files["README.md"]
    [code] = blocks("python")
    short = 'SFEConfig(use_cpu=True, max_steps=1, report_to="none", '
    assert code.count("SFEConfig(output") == 1
    script = workplace / "example.py"
    script.write_text(real(code).replace("SFEConfig(output", f"{short}output"))
    result = run_warm([sys.executable, script], cwd=workplace, env=environment())
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("target", ["demo", "test", "check", "setup"])
def test_make_targets_are_there(target):
    result = subprocess.run(["make", "-n", target], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert ".venv" in result.stdout or target == "setup"


def test_make_demo_takes_a_source_and_its_root():
    [words] = [command for command in commands() if "SOURCE=deep_pcb" in command]
    result = subprocess.run(["make", "-n", *words[1:]], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert f"tools/demo.py --source deep_pcb --root {PHOTOS}" in result.stdout


def test_linked_files_exist():
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", README):
        assert (REPOSITORY / link).exists(), link
