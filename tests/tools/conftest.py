"""Fixtures: a small dataset on disk, and tools run as users run them."""

from __future__ import annotations

import runpy
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from sage_trl.models.tiny import TinySize, build_tiny_internvl
from tests.evaluation.small_ad_pl import write_small_ad_pl
from tests.tools.training import build_small_dataset

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture
def ad_pl(tmp_path: Path) -> Path:
    """An AD-PL directory of five groups, see `write_small_ad_pl`."""
    return write_small_ad_pl(tmp_path / "ad_pl")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved tiny model with random weights."""
    directory = tmp_path_factory.mktemp("models") / "tiny"
    size = TinySize(image_size=32, vision_layers=1, text_layers=1, vision_width=32, text_width=32)
    made, processor = build_tiny_internvl(["Is the part scratched? Yes, a scratch.", "No, fine."] * 3, size)
    made.save_pretrained(directory)
    processor.save_pretrained(directory)
    return directory


@pytest.fixture
def run_tool_file(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., int]]:
    """Runs a tool's file as `python tools/NAME.py ARGUMENTS` would, in this process; returns the exit code."""
    before = signal.getsignal(signal.SIGTERM)

    def run(name: str, *arguments: str | Path) -> int:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(TOOLS / name), run_name="__main__")
        return int(stopped.value.code or 0)

    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small synthetic dataset with facts and scores, built by the tools."""
    directory = tmp_path_factory.mktemp("data") / "ad_pl"
    groups = ("train=8", "validation=3", "test=3", "unseen=0")
    return build_small_dataset(directory, *groups)


@pytest.fixture
def run_here(run_tool_file, capfd):
    """As `run`, in this process: starting one takes longer than what most tests look at."""

    def here(tool: str, *arguments: object) -> SimpleNamespace:
        capfd.readouterr()
        code = run_tool_file(tool, *arguments)
        return SimpleNamespace(returncode=code, stderr=capfd.readouterr().err)

    return here
