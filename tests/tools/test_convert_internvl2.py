"""tools/convert_internvl2.py as users run it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from sage_trl.models.checkpoints import load_pretrained
from tests.conftest import REPOSITORY
from tests.models.internvl2.released import write_released
from tests.warm import run_warm


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "tools/convert_internvl2.py", *map(str, arguments)]
    return run_warm(command, cwd=REPOSITORY)


def test_converts_what_load_pretrained_then_loads(tmp_path: Path) -> None:
    write_released(tmp_path / "source", "internlm2")
    done = run(tmp_path / "source", tmp_path / "native")
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'native'}: written\n")
    assert "3/3" in done.stderr
    model, processor = load_pretrained(tmp_path / "native")
    assert model.config.text_config.model_type == "llama"
    assert processor.image_seq_length == 16


def test_quiet_says_nothing(tmp_path: Path) -> None:
    write_released(tmp_path / "source", "qwen2")
    done = run(tmp_path / "source", tmp_path / "native", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_refusal_has_no_traceback_and_leaves_nothing(tmp_path: Path) -> None:
    write_released(tmp_path / "source", "qwen2", config={"ps_version": "v1"})
    done = run(tmp_path / "source", tmp_path / "native")
    assert done.returncode == 2
    assert "ps_version is 'v1'" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
