"""Several seeds in one table, as API and as tool."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sage_trl.errors import DataError
from sage_trl.evaluation.results_files import merge_metrics
from sage_trl.evaluation.seeds import collect_seeds, over_seeds
from tests.evaluation.test_report import figures
from tests.tools.conftest import run_tool_file

__all__ = ["run_tool_file"]


def runs(root: Path, *accuracies: float | None, **changes: Any) -> list[Path]:
    """Evaluations of one model, the last with `changes`."""
    made = []
    for seed, accuracy in enumerate(accuracies):
        entry = figures(accuracy) | (changes if seed == len(accuracies) - 1 else {})
        merge_metrics(root / f"seed{seed}", {"sfe": {"one_shot": entry}})
        made.append(root / f"seed{seed}")
    return made


def test_mean_every_seed_and_the_widest_bounds() -> None:
    found = over_seeds([0.5, 0.75, 0.25], [(0.4, 0.6), (0.7, 0.8), (0.2, 0.3)])

    assert (found.mean, found.seeds, found.interval) == (0.5, (0.5, 0.75, 0.25), (0.2, 0.8))


def test_what_a_seed_lacks_is_not_made_up() -> None:
    assert over_seeds([0.5, None], [(0.4, 0.6), None]).model_dump() == {
        "mean": None,
        "seeds": (0.5, None),
        "interval": None,
    }
    assert over_seeds([0.5, 0.7], [(0.4, 0.6), None]).interval is None


def test_through_the_tool(
    tmp_path: Path, run_tool_file: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    made = runs(tmp_path, 0.7, 0.8, 0.9, intervals={"accuracy": [0.85, 0.95]})

    assert run_tool_file("seeds.py", *made) == 0

    [row] = [line for line in capsys.readouterr().out.splitlines() if "sfe" in line]
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    # The other seeds' interval is 70-90; the last has none for Acc-G; none has F1.
    assert cells[:5] == ["sfe", "one_shot", "80.0", "70-95", "70.0 / 80.0 / 90.0"]
    assert cells[8:11] == ["25.0", "-", "25.0 / 25.0 / 25.0"]
    assert cells[-3:] == ["-", "-", "- / - / -"]


def test_other_questions_are_refused(
    tmp_path: Path, run_tool_file: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    made = runs(tmp_path, 0.7, 0.8, questions=41)

    assert run_tool_file("seeds.py", *made) == 2

    assert f"questions to 'sfe' in 'one_shot': 40 in {made[0]} but 41 in {made[1]}" in capsys.readouterr().err


def test_a_model_that_one_seed_lacks_is_refused(tmp_path: Path) -> None:
    made = runs(tmp_path, 0.7, 0.8)
    merge_metrics(made[1], {"edpo": {"one_shot": figures()}})

    with pytest.raises(DataError, match=r"'edpo' in 'one_shot': none in .*seed0 but 40 in"):
        collect_seeds(made)


def test_a_run_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"metrics\.json"):
        collect_seeds([*runs(tmp_path, 0.7), tmp_path / "nowhere"])
