"""Which checkpoint a run goes on from, and what it says when it is not the same run any more."""

from __future__ import annotations

import logging

import pytest
import yaml

from sage_trl.errors import RecipeError
from sage_trl.recipe import load_recipe
from sage_trl.resuming import find_checkpoint, identify, refuse_another_run
from tests.trainer.sealed import sealed_checkpoint

BASE = {"stage": "sfe", "model": "tiny", "use_cpu": True, "bf16": False, "per_device_train_batch_size": 4}


def identity(tmp_path, **values):
    data = tmp_path / values.pop("named", "data")
    data.mkdir(exist_ok=True)
    for name in ("ad_pl.jsonl", "facts.jsonl"):
        if not (data / name).exists():
            (data / name).write_text("{}\n")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({**BASE, "dataset": str(data), "output_dir": str(tmp_path / "run"), **values}))
    return identify(load_recipe(recipe))


def test_a_model_without_checkpoint_is_not_overwritten(tmp_path):
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(RecipeError, match="a model and no checkpoint to go on from"):
        find_checkpoint(tmp_path, resume=True)


def test_the_newest_whole_checkpoint_is_found_and_a_broken_one_told(tmp_path, caplog):
    assert find_checkpoint(tmp_path, resume=True) is None
    for step in (2, 10, 30):
        sealed_checkpoint(tmp_path, step)
    (tmp_path / "checkpoint-best").mkdir()
    assert find_checkpoint(tmp_path, resume=True) == tmp_path / "checkpoint-30"
    weights = tmp_path / "checkpoint-30" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[::-1])
    with caplog.at_level(logging.WARNING):
        assert find_checkpoint(tmp_path, resume=True) == tmp_path / "checkpoint-10"
    assert "checkpoint-30 is not whole" in caplog.text and "model.safetensors does not have its SHA-256" in caplog.text
    assert weights.is_file()
    with pytest.raises(RecipeError, match="already holds a run"):
        find_checkpoint(tmp_path, resume=False)


def test_broken_checkpoints_alone_are_no_reason_to_start_anew(tmp_path):
    (tmp_path / "checkpoint-4").mkdir()
    with pytest.raises(RecipeError, match=r"no whole checkpoint \(checkpoint-4: it has no sage_manifest.json\)"):
        find_checkpoint(tmp_path, resume=True)


def test_weights_alone_cannot_be_gone_on_from(tmp_path):
    sealed_checkpoint(tmp_path, 3, weights_only=True)
    with pytest.raises(RecipeError, match="weights alone"):
        find_checkpoint(tmp_path, resume=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"learning_rate": 1e-3}, "recipe key learning_rate: 2e-05, now 0.001"),
        ({"seed": 5}, "recipe key seed: 42, now 5"),
        ({"stage": "sft"}, "recipe key stage: 'sfe', now 'sft'"),
        ({"per_device_train_batch_size": 8}, "rows of a step over all processes: 4, now 8"),
        ({"reference_dropout": 0.5}, "recipe key reference_dropout: 0.25, now 0.5"),
    ],
)
def test_a_run_that_differs_says_in_what_and_stops(tmp_path, change, said):
    checkpoint = sealed_checkpoint(tmp_path, 2, run=identity(tmp_path).model_dump())
    now = identity(tmp_path, **change)
    with pytest.raises(RecipeError) as refused:
        refuse_another_run(checkpoint, now, anyway=False)
    assert said in str(refused.value) and "--resume_anyway" in str(refused.value)
    assert said in refuse_another_run(checkpoint, now, anyway=True)


@pytest.mark.parametrize(
    "change",
    [
        {"logging_steps": 7, "save_steps": 3, "report_to": "none", "dataloader_num_workers": 2},
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
        {"reference_dropout": 0.25},  # the default, said aloud
        {"named": "moved"},
    ],
)
def test_what_changes_no_step_is_no_difference(tmp_path, change):
    checkpoint = sealed_checkpoint(tmp_path, 2, run=identity(tmp_path).model_dump())
    assert refuse_another_run(checkpoint, identity(tmp_path, **change), anyway=False) == []


def test_versions_code_and_data_are_compared(tmp_path):
    before = identity(tmp_path)
    other = before.model_copy(
        update={"versions": {**before.versions, "torch": "1.0"}, "git": {"commit": "abc", "changes": "none"}}
    )
    checkpoint = sealed_checkpoint(tmp_path, 2, run=other.model_dump())
    (tmp_path / "data" / "ad_pl.jsonl").write_text("{}\n{}\n")
    with pytest.raises(RecipeError) as refused:
        refuse_another_run(checkpoint, identity(tmp_path), anyway=False)
    for words in ("version of torch: 1.0, now ", "git commit: abc, now ", "data rows: "):
        assert words in str(refused.value)
    assert "data facts" not in str(refused.value)


def test_another_number_of_processes_is_told_where_a_step_stays_the_same(tmp_path):
    now = identity(tmp_path)
    two = now.model_copy(update={"world_size": 2})
    checkpoint = sealed_checkpoint(tmp_path, 2, run=two.model_dump())
    assert refuse_another_run(checkpoint, now, anyway=False) == ["processes: 2, now 1"]
    # Batches by tokens are each process's own, so that a step of two has twice as many.
    by_tokens = identity(tmp_path, max_tokens_per_batch=100)
    checkpoint = sealed_checkpoint(tmp_path, 3, run=by_tokens.model_copy(update={"world_size": 2}).model_dump())
    with pytest.raises(RecipeError, match="processes, each with max_tokens_per_batch: 2, now 1"):
        refuse_another_run(checkpoint, by_tokens, anyway=False)
