"""Saving: whole or absent on a disk that is full, read-only, or too small, and what is kept of what was there."""

from __future__ import annotations

import json
import os
import resource
import subprocess
from pathlib import Path

import pytest
from transformers import TrainerCallback

from sage_trl.errors import MachineError
from sage_trl.trainer import checkpoint_files, whole_checkpoints
from sage_trl.trainer.checkpoint_files import fault_of, newest_whole, read_manifest
from tests.trainer.test_divergence import make_trainer


def names(run: Path) -> set[str]:
    return {path.name for path in run.iterdir()}


def test_a_checkpoint_holds_what_the_trainer_saves_and_the_run_s_identity(tiny, tmp_path):
    trainer = make_trainer(tiny, tmp_path, max_steps=2, save_total_limit=1)
    trainer.run_identity = {"seed": 1}
    trainer.train()
    assert {name for name in names(tmp_path) if name.startswith(("checkpoint-", "."))} == {"checkpoint-2"}
    manifest = read_manifest(tmp_path / "checkpoint-2")
    assert manifest.step == 2 and not manifest.weights_only and manifest.run == {"seed": 1}
    files = {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"}
    assert files | {"sage_inference.json"} <= set(manifest.files)
    trainer.save_model()
    assert (tmp_path / "model.safetensors").read_bytes() == (tmp_path / "checkpoint-2/model.safetensors").read_bytes()
    assert ".partial" not in names(tmp_path)


def test_the_best_checkpoint_has_its_own_name_and_stays(tiny, tmp_path):
    options = {"eval_strategy": "steps", "eval_steps": 1, "metric_for_best_model": "loss", "save_total_limit": 2}
    trainer = make_trainer(tiny, tmp_path, max_steps=3, learning_rate=0.0, **options)
    trainer.train()
    # At a learning rate of 0 the first is the best, for none is better.
    assert trainer.state.best_model_checkpoint == str(tmp_path / "checkpoint-1")
    state = json.loads((tmp_path / "checkpoint-3" / "trainer_state.json").read_text())
    assert state["best_model_checkpoint"] == str(tmp_path / "checkpoint-1")
    assert state["best_global_step"] == 1
    assert {name for name in names(tmp_path) if name.startswith("checkpoint-")} == {"checkpoint-1", "checkpoint-3"}


def test_the_end_of_a_run_deletes_nothing(tiny, tmp_path):
    """The `Trainer`'s own, for a limit of 1, deletes all but the best."""
    (tmp_path / "checkpoint-3.broken").mkdir()
    options = {"eval_strategy": "steps", "eval_steps": 1, "metric_for_best_model": "loss", "save_total_limit": 1}
    trainer = make_trainer(tiny, tmp_path, max_steps=2, learning_rate=0.0, **options)
    trainer.train()
    assert newest_whole(tmp_path) == (tmp_path / "checkpoint-2", {})
    expected = {"checkpoint-1", "checkpoint-2", "checkpoint-3.broken"}
    assert {name for name in names(tmp_path) if name.startswith("checkpoint-")} == expected
    assert trainer.args.save_total_limit == 1


@pytest.mark.parametrize("limit", [1, 2])
def test_a_damaged_checkpoint_of_the_right_size_is_replaced(tiny, tmp_path, limit):
    make_trainer(tiny, tmp_path, max_steps=2).train()
    weights = tmp_path / "checkpoint-2" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    whole, broken = newest_whole(tmp_path)
    assert whole == tmp_path / "checkpoint-1" and list(broken) == [tmp_path / "checkpoint-2"]
    make_trainer(tiny, tmp_path, max_steps=2, save_total_limit=limit).train(resume_from_checkpoint=str(whole))
    assert newest_whole(tmp_path) == (tmp_path / "checkpoint-2", {})
    assert (tmp_path / "checkpoint-2.broken" / "model.safetensors").read_bytes() == content
    assert (tmp_path / "checkpoint-1").exists() == (limit == 2)


def test_an_epoch_and_a_step_that_ask_for_the_same_checkpoint_write_it_once(tiny, tmp_path, monkeypatch):
    trainer = make_trainer(tiny, tmp_path, max_steps=1)
    trainer.train()
    written = (tmp_path / "checkpoint-1" / "sage_manifest.json").stat().st_mtime_ns
    monkeypatch.setattr(checkpoint_files, "_changed", lambda *_: pytest.fail("it was read once more"))
    trainer._save_checkpoint(trainer.model, None)
    assert (tmp_path / "checkpoint-1" / "sage_manifest.json").stat().st_mtime_ns == written


class DiskFillsUp(TrainerCallback):
    """Between two checkpoints somebody else takes the space, or the right to write; undone at the end."""

    def __init__(self, spoil):
        self.spoil = spoil

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 1:
            self.spoil()


def fill(place: Path, left: int) -> None:
    status = os.statvfs(place)
    with (place / "others").open("wb") as stream:
        stream.write(bytes(status.f_bavail * status.f_frsize - left))


def test_a_full_disk_is_seen_before_anything_is_written(tiny, small_disk):
    run = small_disk / "run"
    trainer = make_trainer(tiny, run)
    trainer.add_callback(DiskFillsUp(lambda: fill(small_disk, 100_000)))
    with pytest.raises(MachineError, match=r"a checkpoint takes about .* MB, and 0.1 MB are free") as stopped:
        trainer.train()
    assert stopped.value.exit_code == 9
    assert "checkpoint-1 is whole: the same command with --resume" in str(stopped.value)
    assert newest_whole(run) == (run / "checkpoint-1", {})


@pytest.mark.parametrize("left", [2_000, 60_000])
def test_a_disk_that_fills_up_while_saving_leaves_the_checkpoint_before(tiny, small_disk, monkeypatch, left):
    monkeypatch.setattr(whole_checkpoints, "refuse_full_disk", lambda *_: None)
    run = small_disk / "run"
    trainer = make_trainer(tiny, run)
    trainer.add_callback(DiskFillsUp(lambda: fill(small_disk, left)))
    with pytest.raises(MachineError, match=r"checkpoint-2: cannot be written: .*\n  remedy: free space"):
        trainer.train()
    assert newest_whole(run) == (run / "checkpoint-1", {})
    assert not (run / ".partial").exists() and not (run / "checkpoint-2").exists()
    (small_disk / "others").unlink()
    again = make_trainer(tiny, run)
    again.train(resume_from_checkpoint=str(run / "checkpoint-1"))
    assert fault_of(run / "checkpoint-4") is None


def test_a_disk_that_becomes_read_only(tiny, small_disk):
    run = small_disk / "run"
    trainer = make_trainer(tiny, run)
    remount = ["mount", "-o", "remount,ro", str(small_disk)]
    trainer.add_callback(DiskFillsUp(lambda: subprocess.run(remount, check=True)))
    with pytest.raises(MachineError, match="Read-only file system"):
        trainer.train()
    assert newest_whole(run) == (run / "checkpoint-1", {})


def test_a_file_that_may_not_grow_further(tiny, tmp_path):
    """The same without root: the system refuses the write in the middle of the weights."""
    trainer = make_trainer(tiny, tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))

    trainer.add_callback(DiskFillsUp(limit))
    try:
        with pytest.raises(MachineError, match=r"checkpoint-2: cannot be written"):
            trainer.train()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert newest_whole(tmp_path) == (tmp_path / "checkpoint-1", {})


def test_a_model_that_cannot_be_written_leaves_the_one_before(tiny, tmp_path):
    trainer = make_trainer(tiny, tmp_path)
    trainer.save_model()
    old = (tmp_path / "model.safetensors").read_bytes()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(MachineError, match="cannot be written"):
            trainer.save_model()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (tmp_path / "model.safetensors").read_bytes() == old


def test_other_errors_while_saving_stay_what_they_are(tiny, tmp_path, monkeypatch):
    trainer = make_trainer(tiny, tmp_path)

    def fail(*_):
        raise ValueError("a fault of ours")

    monkeypatch.setattr(trainer, "_save_rng_state", fail)
    with pytest.raises(ValueError, match="a fault of ours"):
        trainer.train()
    assert not list(tmp_path.glob("checkpoint-*")) and not (tmp_path / ".partial").exists()
