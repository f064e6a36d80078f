"""The benchmarks run and print a row for each variant; what they measure decides nothing here."""

import sys

import pytest

from tests.conftest import REPOSITORY
from tests.warm import run_warm


@pytest.mark.slow
@pytest.mark.parametrize(("name", "variants"), [("edpo_step.py", 6), ("sfe_step.py", 5)])
def test_every_variant_is_measured(name, variants):
    arguments = [
        "--shape",
        "tiny",
        "--prompt-tokens",
        "32",
        "--questions",
        "2",
        "--answer-tokens",
        "6",
        "--repeats",
        "1",
    ]
    result = run_warm([sys.executable, REPOSITORY / "benchmarks" / name, *arguments])
    assert result.returncode == 0, result.stderr
    rows = [line for line in result.stdout.splitlines() if line.startswith("│ ")]
    assert len(rows) == variants
    assert all("x" in row for row in rows)
