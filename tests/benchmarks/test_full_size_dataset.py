"""The benchmark of the full-size dataset runs, and what its stages hold in memory does not grow with the images."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from benchmarks import dataset_stages  # noqa: F401  forks find it, and all it needs, imported
from benchmarks import full_size_dataset as benchmark

SHARES = (0.004, 0.02)
SIZE = 512
# Held in memory, the 68 test images that the larger share has more would be 51 MiB. Batches differ by some images.
MOST_GROWTH = 25 / 1024  # GiB


class Forked:
    """In place of `subprocess.Popen`: the same command in a fork of this process, which has imported what it needs."""

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        self.pid = os.fork()
        if not self.pid:
            run_and_end(command[1:], env)


def run_and_end(arguments: list[str], environment: dict[str, str]) -> NoReturn:
    code = 1
    try:
        os.environ |= environment
        if arguments[0] == "-c":
            sys.argv = ["-c", *arguments[2:]]
            exec(arguments[1], {"__name__": "__main__"})
        else:
            sys.argv = arguments
            runpy.run_path(arguments[0], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.stdout.flush()
        os._exit(code)


@pytest.mark.slow
def test_every_stage_is_measured_and_none_grows_with_the_images(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    peaks: dict[tuple[str, float], float] = {}
    measure = benchmark.measure

    def noted(stage: str, directory: Path, share: float, size: int) -> tuple[float, float, float]:
        measured = measure(stage, directory, share, size)
        peaks[stage, share] = measured[2]
        return measured

    monkeypatch.setattr(benchmark.subprocess, "Popen", Forked)
    monkeypatch.setattr(benchmark, "measure", noted)
    shares = [str(share) for share in SHARES]
    monkeypatch.setattr(sys, "argv", ["full_size_dataset.py", "--share", *shares, "--size", str(SIZE)])
    benchmark.main()
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| 0")]
    assert [(row[0], row[1]) for row in rows] == [
        (f"| {share}", stage) for share in SHARES for stage in benchmark.STAGES
    ]
    assert all(float(row[4].rstrip(" |")) > 0 for row in rows)
    small, large = SHARES
    grown = {stage: peaks[stage, large] - peaks[stage, small] for stage in benchmark.STAGES}
    print({stage: round(1024 * more, 2) for stage, more in grown.items()})
    assert max(grown.values()) < MOST_GROWTH, grown


def test_a_stage_that_fails_ends_the_benchmark(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(benchmark.subprocess, "Popen", Forked)
    with pytest.raises(SystemExit, match="check failed"):
        benchmark.measure("check", tmp_path / "nothing", 1.0, 64)
