"""A dataset to review, and the real server in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.evaluation.small_ad_pl import write_small_ad_pl
from tests.warm import run_warm

TOOL = REPOSITORY / "tools" / "review.py"


@pytest.fixture
def ad_pl(tmp_path: Path) -> Path:
    """Five groups of two questions, see `write_small_ad_pl`."""
    return write_small_ad_pl(tmp_path / "ad_pl")


def review(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the tool to its end."""
    command = [sys.executable, str(TOOL), *map(str, arguments)]
    return run_warm(command, env=_environment())


class RunningReview:
    """A server under test; `address` is what it printed."""

    def __init__(self, dataset: Path, port: int) -> None:
        command = [sys.executable, str(TOOL), "--dataset", str(dataset), "--reviewer", "Ann", "--port", str(port)]
        self.process = subprocess.Popen(
            [*command, "--quiet"], env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None and self.process.stderr is not None
        self.address = self.process.stdout.readline().strip()
        assert self.address, self.process.stderr.read()
        self.base, _, self.key = self.address.partition("/?key=")
        self.port = int(self.base.rpartition(":")[2])

    def kill(self) -> None:
        """SIGKILL, as a crash or a lost machine would."""
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def serve() -> Iterator[Callable[..., RunningReview]]:
    """Starts servers, and kills them when the test is over."""
    started: list[RunningReview] = []

    def start(dataset: Path, port: int = 0) -> RunningReview:
        started.append(RunningReview(dataset, port))
        return started[-1]

    yield start
    for server in started:
        server.kill()


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY)}
