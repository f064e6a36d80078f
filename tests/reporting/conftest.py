"""Fixtures: a demo's folder, its report as the real tool writes it, and the tool in this process."""

from __future__ import annotations

import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.reporting.made_runs import make_demo

TOOL = REPOSITORY / "tools" / "report.py"


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See `make_demo`; tests only read it."""
    return make_demo(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="session")
def demo_report(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The report of the demo's folder, from the real command line, and what the tool printed."""
    output = tmp_path_factory.mktemp("report") / "report.html"
    command = [sys.executable, str(TOOL), str(demo), "--output", str(output)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert finished.returncode == 0, finished.stderr
    return output, finished.stdout


@pytest.fixture
def run_tool(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., int]]:
    """Runs the tool's file in this process; returns the exit code."""
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", [str(TOOL), *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(TOOL), run_name="__main__")
        return int(stopped.value.code or 0)

    yield run
    signal.signal(signal.SIGTERM, before)
