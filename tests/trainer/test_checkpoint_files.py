"""Checkpoints on disk: what is whole, what is told of what is not, and what is ever deleted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sage_trl.trainer.checkpoint_files import (
    MANIFEST_FILE,
    checkpoints,
    clear_partial,
    fault_of,
    newest_whole,
    publish,
    read_manifest,
    rotate,
)
from tests.trainer.sealed import sealed_checkpoint


def names(run: Path) -> set[str]:
    return {path.name for path in run.iterdir() if path.name.startswith("checkpoint-")}


def test_a_sealed_checkpoint_is_whole_and_knows_its_files(tmp_path):
    checkpoint = sealed_checkpoint(tmp_path, 3)
    assert fault_of(checkpoint) is None
    manifest = read_manifest(checkpoint)
    assert set(manifest.files) == {"model.safetensors", "optimizer_0/__0_0.distcp", "trainer_state.json"}
    assert manifest.total_bytes == len("weights of step 3") + len("state of step 3") + len("{}")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda one: (one / MANIFEST_FILE).unlink(), "it has no sage_manifest.json"),
        (lambda one: (one / MANIFEST_FILE).write_text((one / MANIFEST_FILE).read_text()[:-20]), "not JSON"),
        (
            lambda one: (one / MANIFEST_FILE).write_text(
                (one / MANIFEST_FILE).read_text().replace('"step": 3', '"step": 4')
            ),
            "its content does not have its SHA-256",
        ),
        (lambda one: (one / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda one: (one / "model.safetensors").write_text("short"), "model.safetensors has 5 bytes instead of 17"),
        (lambda one: flip(one / "optimizer_0" / "__0_0.distcp"), "optimizer_0/__0_0.distcp does not have its SHA-256"),
    ],
)
def test_every_damage_is_seen_and_the_one_before_is_taken(tmp_path, damage, said):
    before = sealed_checkpoint(tmp_path, 2)
    checkpoint = sealed_checkpoint(tmp_path, 3)
    damage(checkpoint)
    whole, broken = newest_whole(tmp_path)
    assert whole == before
    assert list(broken) == [checkpoint] and said in broken[checkpoint]
    assert checkpoint.is_dir()


def test_the_order_is_that_of_steps_whatever_the_clock_says(tmp_path):
    for step in (9, 10, 100):
        os.utime(sealed_checkpoint(tmp_path, step), (1e9 - step, 1e9 - step))
    (tmp_path / "checkpoint-7.broken").mkdir()
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-100", "checkpoint-10", "checkpoint-9"]
    rotate(tmp_path / "checkpoint-100", 1, None)
    assert names(tmp_path) == {"checkpoint-100", "checkpoint-7.broken"}


def test_rotation_keeps_the_best_the_broken_and_what_has_just_been_published(tmp_path):
    for step in (1, 2, 3, 4):
        sealed_checkpoint(tmp_path, step)
    (tmp_path / "checkpoint-3" / "model.safetensors").unlink()
    flip(tmp_path / "checkpoint-4" / "model.safetensors")  # all sizes are right
    rotate(tmp_path / "checkpoint-2", 1, None)
    assert names(tmp_path) == {"checkpoint-2", "checkpoint-3", "checkpoint-4"}
    published = sealed_checkpoint(tmp_path, 5)
    rotate(published, 2, str(tmp_path / "checkpoint-2"))
    assert names(tmp_path) == {"checkpoint-2", "checkpoint-3", "checkpoint-5"}
    rotate(published, None, None)
    assert "checkpoint-2" in names(tmp_path)
    rotate(published, 1, None)
    assert names(tmp_path) == {"checkpoint-3", "checkpoint-5"}


def test_a_broken_checkpoint_is_put_aside_for_a_new_one_of_its_step(tmp_path):
    for turn in range(2):
        (tmp_path / "checkpoint-3").mkdir()
        (tmp_path / "checkpoint-3" / "junk").write_text(str(turn))
        publish(sealed_checkpoint(tmp_path / ".partial", 3), tmp_path / "checkpoint-3")
        assert fault_of(tmp_path / "checkpoint-3") is None
        (tmp_path / "checkpoint-3").rename(tmp_path / f"checkpoint-{turn + 10}")
    assert (tmp_path / "checkpoint-3.broken" / "junk").read_text() == "0"
    assert (tmp_path / "checkpoint-3.broken1" / "junk").read_text() == "1"
    clear_partial(tmp_path)
    assert not (tmp_path / ".partial").exists()
