"""A training that is killed again and again, half of the time while it saves, ends with the weights of an unbroken one.

The short form kills four times; `pytest -m soak -s tests/tools/test_train_killed.py` a hundred times.
"""

from __future__ import annotations

import json
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
import torch

from sage_trl.trainer.checkpoint_files import checkpoints, fault_of
from tests.tools.training import command, losses, write_recipe
from tests.warm import WarmProcess, run_warm, start_warm

# Seconds; a busy machine is no fault of a training.
PATIENCE = 3600
SETTINGS = {"save_steps": 1, "save_total_limit": 2, "logging_steps": 1}
KINDS = [(number, in_save) for number in (signal.SIGKILL, signal.SIGTERM) for in_save in (True, False)]


def newest(output: Path) -> int:
    return max((int(path.name.rpartition("-")[2]) for path in checkpoints(output)), default=0)


def is_saving(output: Path) -> bool:
    try:
        return any(path.name.startswith("checkpoint-") for path in (output / ".partial").iterdir())
    except FileNotFoundError:  # each save makes it, and takes it away
        return False


def until(condition, process: WarmProcess) -> None:
    """Wait for a condition, looking every half millisecond; the process must not end before."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, process.output("stderr")
        assert process.wait(0) is None, process.output("stderr")
        time.sleep(0.0005)


def live_and_die(recipe: Path, output: Path, number: signal.Signals, in_save: bool, rng: random.Random) -> bool:
    """Resume, save at least one step, and be killed; whether the signal came during a save."""
    before = newest(output)
    with start_warm(command("train.py", recipe, "--resume")) as process:
        until(lambda: newest(output) > before, process)
        until(lambda: is_saving(output) == in_save, process)
        time.sleep(rng.uniform(0, 0.02) if in_save else 0)
        was_saving = is_saving(output)
        process.send_signal(number)
        was_saving &= is_saving(output)
        code = process.wait(PATIENCE)
        assert code == (143 if number == signal.SIGTERM else -signal.SIGKILL), process.output("stderr")
        assert "Traceback" not in process.output("stderr")
    if number == signal.SIGKILL:
        was_saving = is_saving(output)  # nobody is left to finish it
    assert fault_of(checkpoints(output)[0]) is None
    return was_saving


def train_unbroken(dataset: Path, folder: Path, steps: int) -> Path:
    """A run that nobody kills."""
    recipe = write_recipe(folder / "unbroken.yaml", dataset, folder / "unbroken", **SETTINGS, max_steps=steps)
    result = run_warm(command("train.py", recipe), timeout=PATIENCE)
    assert result.returncode == 0, result.stderr
    return folder / "unbroken"


def kill_again_and_again(dataset: Path, unbroken: Path, folder: Path, kills: int, seed: int = 0) -> Counter:
    """Kill a training, as often in a save as outside one, by either signal, and compare its end with the unbroken."""
    steps = newest(unbroken)
    output = folder / "killed"
    recipe = write_recipe(folder / "killed.yaml", dataset, output, **SETTINGS, max_steps=steps)
    rng = random.Random(seed)
    wanted = Counter({kind: kills // len(KINDS) for kind in KINDS})
    seen: Counter = Counter()
    while seen.total() < kills:
        # A signal can come a moment too late; so many of each kind as were seen to come when they should.
        number, in_save = rng.choice([kind for kind in KINDS if seen[kind] < wanted[kind]])
        was_saving = live_and_die(recipe, output, number, in_save, rng)
        kind = (number, was_saving)
        seen[kind] += seen[kind] < wanted[kind]
    result = run_warm(command("train.py", recipe, "--resume"), timeout=PATIENCE)
    assert result.returncode == 0, result.stderr
    assert_same_end(unbroken, output, steps)
    return seen


def assert_same_end(one: Path, other: Path, steps: int) -> None:
    """Weights, optimizer state and logged losses are the same to the bit."""
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    states = [
        torch.load(run / f"checkpoint-{steps}" / "optimizer.pt", weights_only=True)["state"] for run in (one, other)
    ]
    assert states[0].keys() == states[1].keys()
    for index, state in states[0].items():
        assert all(torch.equal(value, states[1][index][name]) for name, value in state.items())
    assert losses(one) == losses(other) and len(losses(one)) == steps
    logged = [json.loads(line) for line in (other / "metrics.jsonl").read_text().splitlines()]
    assert [entry["loss"] for entry in logged if "loss" in entry] == losses(one)


@pytest.mark.slow
def test_four_kills(dataset, tmp_path):
    seen = kill_again_and_again(dataset, train_unbroken(dataset, tmp_path, 40), tmp_path, kills=4)
    assert seen == dict.fromkeys(KINDS, 1)


@pytest.mark.soak
def test_a_hundred_kills(dataset, tmp_path):
    start = time.monotonic()
    unbroken = train_unbroken(dataset, tmp_path, 150)
    total: Counter = Counter()
    for turn in range(5):
        folder = tmp_path / str(turn)
        folder.mkdir()
        total += kill_again_and_again(dataset, unbroken, folder, kills=20, seed=turn)
        counts = [f"{total[kind]} {kind[0].name} {'during' if kind[1] else 'outside'} a save" for kind in KINDS]
        print(f"\n{', '.join(counts)}: same weights to the bit; {time.monotonic() - start:.0f} s", flush=True)
    assert total == dict.fromkeys(KINDS, 25)
