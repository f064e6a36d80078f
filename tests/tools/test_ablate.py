"""`tools/ablate.py`: what a user meets on the command line; tests/ablation/ has what it does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

TABLE3 = REPOSITORY / "recipes" / "ablations" / "table3.yaml"
RunTool = Callable[..., int]


def test_a_dry_run_of_the_paper_s_table(
    run_tool_file: RunTool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"

    assert run_tool_file("ablate.py", TABLE3, "--output", output, "--seeds", "0", "1", "--dry-run") == 0

    shown = capsys.readouterr().out
    assert not output.exists()
    assert f"tools/build_dataset.py --source synthetic --output {output / 'data'} --seed 0\n" in shown
    assert shown.count("tools/train.py ") == shown.count("/recipes/demo/") == 2 * 5
    assert shown.count("--facts-as-text") == 2
    assert "27 steps" in shown  # three for the data; for each seed five trainings, one export, six evaluations


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.yaml"], "nowhere.yaml: no such plan"),
        ([TABLE3, "--dataset", "nowhere"], "nowhere/dataset.json: no such file"),
        ([TABLE3, "--trained", "bass=x"], "stage 'bass' is not in the plan"),
        ([TABLE3, "--recipes", "nowhere"], "nowhere/sft.yaml: no such recipe"),
        ([TABLE3, "--set", "max_step=1"], "unknown key 'max_step'"),
    ],
)
def test_mistakes_are_told_on_one_screen(
    run_tool_file: RunTool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str | Path],
    message: str,
) -> None:
    assert run_tool_file("ablate.py", *arguments, "--output", tmp_path / "out") == 2

    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert message in shown
    assert "remedy: " in shown
    assert not (tmp_path / "out").exists()
