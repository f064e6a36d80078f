"""The check of a recipe: data, model, memory, disk and hub, all in one run and before a weight is read."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sage_trl.data.checks.findings import Finding, Report
from sage_trl.recipe_check import check_recipe
from sage_trl.storage import read_json, write_json
from tests.conftest import REPOSITORY
from tests.planning.conftest import checkpoints, dataset, write_recipe  # noqa: F401
from tests.publishing.conftest import hub_environment
from tests.publishing.hub_server import running_hub
from tests.warm import run_warm


def check(recipe: Path, *overrides: str) -> Report:
    return check_recipe(recipe, overrides, lambda *_: None)


def found(report: Report) -> dict[str, Finding]:
    return {finding.kind: finding for finding in report.errors}


@pytest.fixture
def model(checkpoints, tmp_path: Path) -> Path:  # noqa: F811
    return Path(shutil.copytree(checkpoints("internvl") / "sfe", tmp_path / "model"))


@pytest.fixture
def recipe(model: Path, dataset: Path, tmp_path: Path) -> Path:  # noqa: F811
    return write_recipe(tmp_path, dataset, model=str(model))


def test_a_sound_recipe_has_no_error_and_leaves_nothing(recipe: Path, model: Path, tmp_path: Path) -> None:
    report = check(recipe)
    assert report.errors == []
    assert report.counts["rows"] == 8
    # A file of fp32 weights is as large as they are, but for its header; AdamW holds two numbers for each that trains.
    weights = (model / "model.safetensors").stat().st_size
    assert weights < report.counts["bytes_per_gpu"]
    assert report.counts["bytes_on_disk"] > weights * 0.9
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "recipe.yaml"]


def test_all_faults_of_the_keys_come_at_once(recipe: Path) -> None:
    faults = check(recipe, "--learning_rate", "fast", "--sede", "3", "--facts", "soft").errors
    assert {fault.field for fault in faults} == {"learning_rate", "sede", "facts"}
    assert any("did you mean 'seed'" in fault.remedy for fault in faults)
    assert next(fault.line for fault in faults if fault.field == "learning_rate") == 1 + [
        line.partition(":")[0] for line in recipe.read_text().splitlines()
    ].index("learning_rate")


def test_faults_of_data_model_and_machine_come_at_once(recipe: Path, model: Path, tmp_path: Path) -> None:
    (model / "model.safetensors").unlink()
    (tmp_path / "out" / "checkpoint-1").mkdir(parents=True)
    gone = str(tmp_path / "gone.jsonl")
    report = check(recipe, "--split", "trian", "--datasets", "[mvtec]", "--facts_file", gone)
    faults = found(report)
    assert faults.keys() == {"output", "facts-missing", "rows", "model"}
    rows = {fault.field: fault.remedy for fault in report.errors if fault.kind == "rows"}
    assert rows == {"split": "use one of test, unseen", "datasets": "use one of synthetic"}
    assert "no *.safetensors" in faults["model"].problem
    assert faults["facts-missing"].path == gone


def test_stage_2_needs_scores(recipe: Path, tmp_path: Path) -> None:
    report = check(recipe, "--stage", "edpo", "--scores", str(tmp_path / "gone.jsonl"))
    assert found(report).keys() == {"scores-missing"}


def test_facts_are_not_asked_for_where_none_are_used(recipe: Path, tmp_path: Path) -> None:
    gone = str(tmp_path / "gone.jsonl")
    assert check(recipe, "--facts", "none", "--facts_file", gone).errors == []
    assert found(check(recipe, "--facts", "hard", "--facts_file", gone)).keys() == {"facts-missing"}


def test_rows_longer_than_the_context_are_named(recipe: Path, model: Path) -> None:
    sound = check(recipe).counts["longest_row_tokens"]
    config = read_json(model / "config.json")
    config["text_config"]["max_position_embeddings"] = sound - 1
    write_json(model / "config.json", config)
    faults = check(recipe).errors
    assert {fault.kind for fault in faults} == {"tokens"}
    assert any(f"{sound} tokens" in fault.problem for fault in faults)
    assert all(fault.value.startswith("g") for fault in faults)


def test_too_little_disk(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    fault = found(check(recipe))["disk"]
    assert fault.field == "output_dir" and "0.0 GiB are free" in fault.problem


def run(recipe: Path, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(REPOSITORY / "tools" / "check.py"), str(recipe), *arguments]
    return run_warm(command, env=env)


@pytest.mark.slow
def test_the_tool_checks_a_recipe(recipe: Path) -> None:
    report: dict[str, Any] = json.loads(run(recipe, "--json", "--quiet").stdout)
    assert report["errors"] == 0 and report["counts"]["rows"] == 8
    result = run(recipe, "--split=nope", "--model", "no/such-model", "--quiet")
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert "field 'split': no split 'nope'" in result.stdout
    assert "field 'model': no model can be loaded" in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("token", "said"), [(None, "there is no token"), ("hf_wrong", "401"), ("right", "")])
def test_access_to_the_hub(recipe: Path, token: str | None, said: str) -> None:
    with running_hub() as hub:
        changes = {} if token == "right" else {"HF_TOKEN": token}
        result = run(recipe, "--push_to_hub", "--quiet", env=hub_environment(hub.url, **changes))
    assert result.returncode == (2 if said else 0), result.stderr
    assert said in result.stdout and "hf_wrong" not in result.stdout + result.stderr
