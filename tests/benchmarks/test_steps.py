"""The benchmarks run and print a row for each variant; what they measure decides nothing here."""

import argparse
import re
import sys

import pytest
import torch

from benchmarks.counting import count_work
from benchmarks.edpo_step import build_variants
from benchmarks.group import SHAPES
from benchmarks.measuring import largest_that_fits, whole_step
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


@pytest.mark.slow
def test_the_command_for_a_gpu_runs_on_a_tiny_shape():
    arguments = ["--shape", "tiny", "--lora", "4", "--prompt-tokens", "32", "--questions", "2", "--answer-tokens", "6"]
    arguments += ["--repeats", "1", "--bf16", "--gradient-checkpointing"]
    arguments += ["--peak-tflops", "0.001", "--largest-batch", "2"]
    arguments += ["--variants", "stock, tower frozen", "trees, split"]
    result = run_warm([sys.executable, REPOSITORY / "benchmarks" / "edpo_step.py", *arguments])
    assert result.returncode == 0, result.stderr
    assert re.findall(r"largest batch, ([\w, ]+): (\d+) pairs", result.stdout) == [
        ("stock, tower frozen", "8"),
        ("trees, split", "8"),
    ]
    rows = [line for line in result.stdout.splitlines() if line.startswith("│ ")]
    assert len(rows) == 2 and all(line.count("%") == 3 for line in rows)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["stock", "trees, split"])
def test_checkpointing_computes_layers_again(variant, tmp_path):
    arguments = argparse.Namespace(
        shape="tiny", questions=2, answer_tokens=6, lora=None, bf16=False, variants=[variant]
    )
    work = []
    for arguments.gradient_checkpointing in (False, True):
        trainers, rows_of = build_variants(arguments, 32, tmp_path)
        work.append(count_work(whole_step(trainers[variant], list(rows_of(1))), SHAPES["tiny"].vocab_size))
    without, checkpointed = work
    assert checkpointed.total > without.total
    assert checkpointed.head == without.head


@pytest.mark.parametrize("limit", [1, 5, 6, 100])
def test_the_largest_batch(limit):
    tried = []

    def step_of(groups):
        def step():
            tried.append(groups)
            if groups > 5:
                raise torch.OutOfMemoryError
            return 0

        return step

    assert largest_that_fits(step_of, limit) == min(limit, 5)
    assert len(tried) == len(set(tried))
    assert max(tried) <= min(limit, 8)
