"""Killed at any moment, or shared by several processes, an evaluation ends with the same figures, byte for byte."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sage_trl.evaluation.options import EvaluationOptions
from sage_trl.evaluation.run import run_evaluation
from sage_trl.storage import JsonlAppender, to_line
from tests.conftest import REPOSITORY
from tests.models.stock_checkpoints import save_stock

KILLS = 10
FIGURES = ("metrics.json", "evaluation.json")


def killed_in_append(options: EvaluationOptions, number: int, share: float) -> None:
    """Evaluate until the append of that number, which gets that share of its bytes to the file before SIGKILL."""
    append, appends = JsonlAppender.append, 0

    def append_or_die(self: Any, rows: Any) -> None:
        nonlocal appends
        appends += 1
        if appends < number:
            append(self, rows)
            return
        text = "".join(to_line(row) for row in rows)
        self._stream.write(text[: int(share * len(text))])
        self._stream.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    JsonlAppender.append = append_or_die
    run_evaluation(options)


def test_killed_twice_it_ends_with_the_same_figures(model: Path, ad_pl: Path, tmp_path: Path) -> None:
    def options(output: str) -> EvaluationOptions:
        return EvaluationOptions(
            models=(str(model),),
            dataset=ad_pl,
            settings=("one_shot", "one_shot_conversation"),
            output=tmp_path / output,
            splits=("test", "unseen"),
            batch_size=4,
            max_new_tokens=6,
            judge="rule",
            quiet=True,
        )

    run_evaluation(options("whole"))
    draw = random.Random(7)
    for _ in range(2):
        # Of the ten appends of a whole run at least one is left for the last.
        arguments = (options("killed"), draw.randint(1, 4), draw.random())
        process = multiprocessing.get_context("fork").Process(target=killed_in_append, args=arguments)
        process.start()
        process.join(timeout=300)
        assert process.exitcode == -signal.SIGKILL

    run_evaluation(options("killed"))

    for name in FIGURES:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.fixture
def command(model: Path, ad_pl: Path, tmp_path: Path) -> list[str]:
    """An evaluation of two models in four settings, one question at a time; its --output is to be added."""
    save_stock("internvl", tmp_path / "base")
    return [
        *(str(REPOSITORY / "tools" / "evaluate.py"), "--model", str(model), f"hf:{tmp_path / 'base'}"),
        *("--dataset", str(ad_pl), "--setting", "zero_shot", "one_shot", "--turns", "single", "conversation"),
        *("--split", "test", "unseen", "--batch-size", "1", "--max-new-tokens", "250", "--judge", "rule", "--quiet"),
    ]


@pytest.mark.soak
def test_killed_ten_times_at_random_it_ends_with_the_same_figures(command: list[str], tmp_path: Path) -> None:
    def run(output: str) -> float:
        start = time.monotonic()
        subprocess.run([sys.executable, *command, "--output", str(tmp_path / output)], check=True)
        return time.monotonic() - start

    whole = run("whole")
    start_up = run("whole")  # nothing is left to generate
    # Each kill comes before a twelfth of the generation is over, so that there is something left for all of them.
    latest = start_up + (whole - start_up) / (KILLS + 2)
    print(f"whole run {whole:.1f} s, start and metrics {start_up:.1f} s")
    draw = random.Random(0)
    for number in range(KILLS):
        process = subprocess.Popen([sys.executable, *command, "--output", str(tmp_path / "killed")])
        moment = draw.uniform(0.0, latest)
        time.sleep(moment)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        predictions = tmp_path / "killed" / "predictions.jsonl"
        known = predictions.read_bytes().count(b"\n") if predictions.is_file() else 0
        print(f"kill {number + 1} after {moment:.1f} s: {known} replies on the disk")
    run("killed")

    for name in (*FIGURES, "comparisons.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.soak
def test_two_launched_processes_end_with_the_same_figures(command: list[str], tmp_path: Path) -> None:
    launch = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    subprocess.run([sys.executable, *command, "--output", str(tmp_path / "alone")], check=True)

    subprocess.run([sys.executable, *launch, *command, "--output", str(tmp_path / "shared")], check=True)

    for name in (*FIGURES, "comparisons.json"):
        assert (tmp_path / "shared" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    assert not list((tmp_path / "shared").glob("predictions.process-*"))
