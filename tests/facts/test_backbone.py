"""Facts by a model: from the image alone, each image once, the same file after a kill."""

from __future__ import annotations

import json
import multiprocessing
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sage_trl.data.dataset import AdPlDirectory
from sage_trl.data.fact_sets import read_facts
from sage_trl.facts.backbone import BackboneWriter, open_backbone
from sage_trl.facts.generation import generate_facts
from sage_trl.facts.template_bank import TemplateBank
from sage_trl.facts.writer import FilledWriter, Part
from sage_trl.storage import file_sha256
from tests.conftest import REPOSITORY
from tests.facts.conftest import FACTS, part
from tests.warm import run_warm

Run = Callable[..., int]
Capture = pytest.CaptureFixture[str]


def finish(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(REPOSITORY / "tools" / "generate_facts.py"), *map(str, arguments)]
    return run_warm(command)


@pytest.fixture
def writer(talker: Path) -> BackboneWriter:
    return open_backbone(str(talker), count=5, batch_size=2, max_new_tokens=60)


def test_the_sentences_come_from_the_image(writer: BackboneWriter) -> None:
    images = [part(False, 7), part(True, 8), part(False, 9)]
    written = writer.write([Part("plate", image) for image in images])
    assert written == [FACTS[False], FACTS[True], FACTS[False]]
    # What the dataset calls the part is not told.
    assert writer.write([Part("screw", images[1])]) == [FACTS[True]]
    assert writer.model.startswith("talker@") and len(writer.model) == len("talker@") + 12


def test_every_image_is_covered_or_listed(writer: BackboneWriter, parts: AdPlDirectory) -> None:
    parts.image_path("images/3_test.png").write_bytes(b"not an image")
    path = parts.root / "facts.jsonl"
    report = generate_facts(parts, writer, path)
    facts = read_facts(path)
    listed = [json.loads(line) for line in (parts.root / "facts.short.jsonl").read_text().splitlines()]
    covered = {name for name in range(5) if file_sha256(parts.image_path(f"images/{name}_test.png")) in facts}
    assert covered == {0, 1, 2, 4}
    assert {one["test_image"]: one["facts"] for one in listed} == {
        "images/0_test.png": 4,
        "images/2_test.png": 4,
        "images/3_test.png": 0,
        "images/4_test.png": 4,
    }
    assert "unreadable image" in next(one["reason"] for one in listed if not one["facts"])
    assert (report.images, report.written, report.without) == (5, 4, 1)


def test_an_image_of_several_groups_is_asked_about_once(writer: BackboneWriter, parts: AdPlDirectory) -> None:
    shutil.copy(parts.image_path("images/0_test.png"), parts.image_path("images/4_test.png"))
    report = generate_facts(parts, writer, parts.root / "facts.jsonl")
    assert (report.images, report.written) == (4, 4)


def test_templates_fill_up_only_where_asked(writer: BackboneWriter) -> None:
    filled = FilledWriter(writer, TemplateBank(5))
    [dark, bright] = filled.write([Part("plate", part(False, 7)), Part("plate", part(True, 8))])
    assert dark[:4] == FACTS[False] and len(dark) == 5 and "plate with round holes" in dark[4]
    assert bright == FACTS[True]
    assert "talker@" in filled.model and "template-bank" in filled.model


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_killed_run_ends_with_the_same_file(
    talker: Path, parts: AdPlDirectory, tmp_path: Path, batch_size: int
) -> None:
    arguments = ("--dataset", parts.root, "--model", talker, "--num-facts", 5, "--batch-size", batch_size, "--quiet")
    whole, broken = tmp_path / "whole.jsonl", tmp_path / "broken.jsonl"
    assert finish(*arguments, "--output", whole).returncode == 0
    command = [*map(str, arguments), "--output", str(broken)]
    killed = multiprocessing.get_context("fork").Process(target=run_slowly, args=(command,))
    killed.start()
    deadline = time.monotonic() + 100
    while not (broken.exists() and broken.read_bytes().count(b"\n") >= batch_size):
        assert killed.is_alive() and time.monotonic() < deadline
        time.sleep(0.01)
    killed.kill()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    written = broken.read_bytes()
    assert 0 < len(written) < whole.stat().st_size and whole.read_bytes().startswith(written)
    if batch_size == 2:  # the kill may also come within a line, or between the lines of one batch
        broken.write_bytes(whole.read_bytes()[: written.index(b"\n") + 30])
    assert finish(*arguments, "--output", broken).returncode == 0
    assert broken.read_bytes() == whole.read_bytes()
    assert (tmp_path / "whole.short.jsonl").read_bytes() == (tmp_path / "broken.short.jsonl").read_bytes()


def run_slowly(arguments: list[str]) -> None:
    """The tool in a fork, with a pause before every batch, so that there is a time to kill it."""
    write = BackboneWriter.write
    BackboneWriter.write = lambda self, parts: (time.sleep(0.5), write(self, parts))[1]
    sys.argv = [str(REPOSITORY / "tools" / "generate_facts.py"), *arguments]
    runpy.run_path(sys.argv[0], run_name="__main__")


def test_the_tool(run_tool_file: Run, capfd: Capture, talker: Path, parts: AdPlDirectory) -> None:
    parts.image_path("images/3_test.png").write_bytes(b"not an image")
    command = ("generate_facts.py", "--dataset", parts.root, "--model", talker, "--num-facts")
    assert run_tool_file(*command, "4") == 3
    stdout = capfd.readouterr().out
    assert "facts written for 4 images of 5" in stdout
    assert "1 images have fewer than 4 facts, 1 of them none" in stdout
    assert run_tool_file(*command, "5") == 2
    assert "holds facts by talker@" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "openai:gpt", "--base-url", "http://127.0.0.1:9"], "nobody is there to be asked"),
        (["--model", "/no/such"], "no such model directory"),
        (["--model", "template", "--num-facts", "7"], "more than the template bank has"),
    ],
)
def test_mistakes(run_tool_file: Run, capfd: Capture, parts: AdPlDirectory, arguments: list[str], said: str) -> None:
    assert run_tool_file("generate_facts.py", "--dataset", parts.root, *arguments) == 2
    stderr = capfd.readouterr().err
    assert said in stderr and "Traceback" not in stderr
