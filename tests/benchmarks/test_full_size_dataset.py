"""The benchmark of the full-size dataset runs; what it measures decides nothing here."""

import sys

import pytest

from tests.conftest import REPOSITORY
from tests.warm import run_warm


@pytest.mark.slow
def test_every_stage_is_measured():
    script = REPOSITORY / "benchmarks" / "full_size_dataset.py"
    result = run_warm([sys.executable, script, "--share", "0.01", "--size", "64"])
    assert result.returncode == 0, result.stderr
    rows = [line.split(" | ") for line in result.stdout.splitlines() if line.startswith("| 0.01")]
    assert [row[1] for row in rows] == ["build", "facts", "check", "load", "epoch"]
    assert all(float(row[4].rstrip(" |")) > 0 for row in rows)
