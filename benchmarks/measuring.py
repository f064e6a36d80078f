"""Steps of several trainers side by side in one process: alternating, warmed up, median and spread."""

from __future__ import annotations

import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.counting import Work, count_work

# How the names of variants end that read the reference from a cache.
CACHED = "cached reference"


@dataclass(frozen=True)
class Measurement:
    """Times of one variant's steps in seconds, its peak memory in GiB above what stood before, and its work."""

    seconds: tuple[float, ...]
    peak: float
    tokens: int
    work: Work

    @property
    def median(self) -> float:
        """Median seconds of a step."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Largest minus smallest, as a share of the median."""
        return (max(self.seconds) - min(self.seconds)) / self.median


def measure(
    variants: Mapping[str, Callable[[], int]], repeats: int, vocab_size: int, progress: Callable[[str], None]
) -> dict[str, Measurement]:
    """Run every variant to warm up, counting its work the last time, then `repeats` times in turn.

    Args:
        variants: name -> a function that takes one whole step and returns the tokens it computed.
        repeats: measured steps of each.
        vocab_size: of the model's head, by which its work is told apart.
        progress: told what runs.
    """
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    peaks = dict.fromkeys(variants, 0.0)
    tokens = dict.fromkeys(variants, 0)
    work = {}
    for name, step in variants.items():
        progress(f"warm-up {name}")
        if name.endswith(CACHED):
            # The first step fills the cache, those of later epochs read it.
            step()
        work[name] = count_work(step, vocab_size)
    for repeat in range(1, repeats + 1):
        for name, step in variants.items():
            gc.collect()
            before = _reset_peak()
            start = time.perf_counter()
            tokens[name] = step()
            _synchronise()
            taken = time.perf_counter() - start
            progress(f"{repeat} {name}: {taken:.2f} s")
            seconds[name].append(taken)
            peaks[name] = max(peaks[name], _peak() - before)
    return {name: Measurement(tuple(seconds[name]), peaks[name], tokens[name], work[name]) for name in variants}


def largest_that_fits(step_of: Callable[[int], Callable[[], int]], limit: int) -> int:
    """The largest number of groups, up to `limit`, whose step does not run out of the device's memory; 0 for none."""
    fits, fails = 0, limit + 1
    while fits + 1 < fails:
        # Doubles until one fails, then halves what is between.
        groups = min(2 * fits or 1, limit) if fails > limit else (fits + fails) // 2
        try:
            step_of(groups)()
            fits = groups
        except torch.OutOfMemoryError:
            fails = groups
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return fits


def whole_step(trainer: Any, rows: list[dict[str, Any]]) -> Callable[[], int]:
    """A function that collates, runs forward and backward, and steps the optimizer, as `Trainer.train` does."""
    trainer.create_optimizer()
    trainer.current_gradient_accumulation_steps = 1
    if trainer.args.activation_checkpointing:
        trainer.model.activation_checkpointing_enable(trainer.args.activation_checkpointing_kwargs)
    # Under autocast where the arguments ask for it.
    model = trainer.accelerator.prepare_model(trainer.model)

    def step() -> int:
        batch = trainer.data_collator(rows)
        batch = trainer._prepare_inputs(batch)
        tokens = int(batch["attention_mask"].sum())
        trainer.training_step(model, batch, num_items_in_batch=None)
        trainer.optimizer.step()
        model.zero_grad(set_to_none=True)
        return tokens

    return step


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _reset_peak() -> float:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 2**30
    # What the allocator holds back from earlier steps would hide what this one takes.
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    # 5 sets the process's peak back to what it holds now (Linux, proc(5)).
    Path("/proc/self/clear_refs").write_text("5")
    return _resident("VmRSS")


def _peak() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return _resident("VmHWM")


def _resident(field: str) -> float:
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field)]
    return int(line.split()[1]) / 2**20
