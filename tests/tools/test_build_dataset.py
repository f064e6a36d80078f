"""The data tools through their command lines: what they write, and exit code 2 without a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sage_trl.data.dataset import read_ad_pl
from sage_trl.data.fact_sets import read_facts
from tests.warm import run_warm

TOOLS = Path(__file__).resolve().parents[2] / "tools"
SMALL = ["--groups", "train=4", "validation=2", "test=2", "unseen=2"]


def run(tool: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOLS / tool), *map(str, arguments)]
    return run_warm(command)


def refused(result: subprocess.CompletedProcess[str], said: str) -> None:
    assert result.returncode == 2, result.stderr
    assert said in result.stderr
    assert "Traceback" not in result.stderr and len(result.stderr.splitlines()) < 25


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tools") / "ad_pl"
    result = run("build_dataset.py", "--source", "synthetic", "--output", root, "--seed", "3", *SMALL)
    assert result.returncode == 0, result.stderr
    assert "licence: Apache-2.0" in result.stdout and "unseen" in result.stdout
    return root


def test_build_check_and_facts(built: Path) -> None:
    assert len(read_ad_pl(built).inspections) == 10
    assert "no fault found" in run("check.py", built).stdout
    result = run("generate_facts.py", "--dataset", built, "--model", "template", "--num-facts", "3")
    assert result.returncode == 0 and "10 images" in result.stdout
    assert {len(row.facts) for row in read_facts(built / "facts.jsonl").values()} == {3}


def test_quiet_prints_nothing(tmp_path: Path) -> None:
    result = run("build_dataset.py", "--source", "synthetic", "--output", tmp_path / "d", "--quiet", *SMALL)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_a_dataset_is_not_overwritten_without_force(built: Path, tmp_path: Path) -> None:
    refused(run("build_dataset.py", "--source", "synthetic", "--output", built, *SMALL), "holds a dataset already")
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    command = ["build_dataset.py", "--source", "synthetic", "--output", tmp_path, "--force", *SMALL]
    refused(run(*command), "is no dataset")
    assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--source", "nope"], "source 'nope' is unknown"),
        (["--source", "deep_pcb"], "--root"),
        (["--source", "deep_pcb", "--root", "nowhere"], "holds no DeepPCB photos"),
        (["--source", "synthetic", "--groups", "trian=4"], "split 'trian' is unknown"),
        (["--source", "synthetic", "--groups", "train:4"], "is not SPLIT=NUMBER"),
        (["--source", "synthetic", "--defective-share", "2"], "defective share 2.0"),
        (["--source", "synthetic", "--dry-run"], "--dry-run shows what"),
        (["--source", "synthetic", "--push-to-hub", "me/d", "--dry-run"], "--dry-run shows what"),
        (["--from-hub", "me/d", "--dry-run"], "--dry-run shows what"),
        (["--from-hub", "me/d", "--author", "openai", "--dry-run"], "--dry-run shows what"),
        (["--source", "mmad", "--root", ".", "--author", "openai", "--dry-run"], "brings its own questions"),
        (["--source", "manta", "--root", ".", "--author", "openai"], "brings its own questions"),
    ],
)
def test_mistakes(tmp_path: Path, arguments: list[str], said: str) -> None:
    refused(run("build_dataset.py", *arguments, "--output", tmp_path / "d"), said)
    assert list(tmp_path.iterdir()) == []


def test_faults_of_a_dataset(tmp_path: Path) -> None:
    result = run("check.py", tmp_path)
    assert result.returncode == 2 and "ad_pl.jsonl" in result.stdout and "Traceback" not in result.stderr
    refused(run("generate_facts.py", "--dataset", tmp_path, "--model", "template"), "dataset.json")
