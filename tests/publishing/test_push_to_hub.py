"""Training that pushes, and the record it leaves, through the real command line."""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sage_trl.errors import RecipeError
from sage_trl.recipe import load_recipe
from sage_trl.run_record import RunRecord, without_local_paths
from tests.conftest import REPOSITORY
from tests.publishing.conftest import hub_environment
from tests.publishing.hub_server import TOKEN, Fault, Repository
from tests.tools.training import build_small_dataset, write_recipe
from tests.warm import run_warm

HUB_BASE = "acme/base-vlm"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """A small synthetic dataset with facts and scores, built by the tools."""
    directory = tmp_path_factory.mktemp("data") / "ad_pl"
    groups = ("train=4", "validation=2", "test=2", "unseen=0")
    return build_small_dataset(directory, *groups)


def train(recipe: Path, url: str, folder: Path, *overrides: str, **changes: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, REPOSITORY / "tools" / "train.py", recipe, *overrides]
    return run_warm(command, env=hub_environment(url, **changes), cwd=folder)


def read_record(output: Path) -> RunRecord:
    return RunRecord.model_validate(json.loads((output / "sage_run.json").read_text()))


PUSHING = {"push_to_hub": True, "hub_model_id": "me/pushed", "max_steps": 2, "save_steps": 1}


@pytest.mark.slow
def test_a_training_pushes_privately_and_never_the_training_arguments(dataset, tmp_path, hub):
    recipe = write_recipe(tmp_path / "recipe.yaml", dataset, tmp_path / "out", **PUSHING)
    result = train(recipe, hub.url, tmp_path)
    assert result.returncode == 0, result.stderr
    assert "failed" not in result.stderr
    repository = hub.repositories["me/pushed"]
    assert repository.private
    assert {"model.safetensors", "README.md", "sage_run.json", "sage_inference.json"} <= set(repository.files)
    local = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"training_args.bin", "trainer_state.json"} <= local
    assert not {"training_args.bin", "trainer_state.json", "optimizer.pt"} & set(repository.files)
    for name in ("model.safetensors", "sage_run.json"):
        assert repository.files[name] == (tmp_path / "out" / name).read_bytes()
    messages = [commit["summary"] for commit in repository.commits]
    assert messages[0].startswith("Training in progress, step 1") and messages[-1] == "Model save"
    assert not list((tmp_path / "out").glob(".push-*"))


@pytest.mark.slow
def test_a_dead_hub_ends_no_training_and_the_printed_retry_works(dataset, tmp_path, hub, publish):
    recipe = write_recipe(tmp_path / "recipe.yaml", dataset, tmp_path / "out", **PUSHING)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        result = train(recipe, f"http://127.0.0.1:{taken.getsockname()[1]}", tmp_path)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    assert "pushing" in result.stderr and "training is not affected" in result.stderr
    assert "cannot be reached" in result.stderr
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "sage_run.json", "checkpoint-2"} <= names
    retries = [shlex.split(line.partition("retry: ")[2]) for line in result.stderr.splitlines() if "retry: " in line]
    assert [words[2] for words in retries][-1] == str(tmp_path / "out")
    assert publish(*retries[-1][2:]).returncode == 0
    assert "model.safetensors" in hub.repositories["me/pushed"].files


@pytest.mark.slow
def test_a_refused_push_is_a_warning_with_the_reason(dataset, tmp_path, hub):
    hub.fault = Fault("repos/create", 403)
    recipe = write_recipe(
        tmp_path / "recipe.yaml", dataset, tmp_path / "out", **PUSHING, hub_strategy="end", hub_private_repo=False
    )
    result = train(recipe, hub.url, tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("training is not affected") == 1
    assert "write access" in result.stderr and "--public" in result.stderr.partition("retry: ")[2]
    assert TOKEN not in result.stderr


def test_what_publishing_never_does_is_refused_before_training(dataset, tmp_path, hub):
    wishes = {"hub_strategy": "all_checkpoints", "hub_revision": "dev", "hub_always_push": True}
    recipe = write_recipe(tmp_path / "recipe.yaml", dataset, tmp_path / "out", **PUSHING, **wishes)
    result = train(recipe, hub.url, tmp_path)
    assert result.returncode == 2, result.stderr
    assert all(name in result.stderr for name in wishes) and "Traceback" not in result.stderr
    assert hub.log == []


def test_a_token_in_a_recipe_is_refused_and_not_repeated(dataset, tmp_path):
    recipe = write_recipe(tmp_path / "recipe.yaml", dataset, tmp_path / "out", hub_token="hf_secret")
    with pytest.raises(RecipeError, match="HF_TOKEN") as refused:
        load_recipe(recipe)
    assert "hf_secret" not in str(refused.value)


@pytest.mark.slow
def test_stage_2_records_stage_1_and_the_base_model_s_commit(dataset, stock, hub, tmp_path, publish):
    base, _ = stock
    hub.repositories[HUB_BASE] = Repository(private=False)
    hub.repositories[HUB_BASE].files |= {path.name: path.read_bytes() for path in base.iterdir() if path.is_file()}
    short = {"tiny": None, "max_steps": 1, "save_strategy": "no"}
    fusion = {"num_selected_patches": 2, "fusion_num_heads": 2}
    stage_1 = write_recipe(tmp_path / "sfe.yaml", dataset, tmp_path / "sfe", model=HUB_BASE, **short, **fusion)
    result = train(stage_1, hub.url, tmp_path, "--learning_rate", "5e-4")
    assert result.returncode == 0, result.stderr
    first = read_record(tmp_path / "sfe")
    assert (first.stage, first.model, first.base_model) == ("sfe", HUB_BASE, HUB_BASE)
    assert first.base_revision == hub.repositories[HUB_BASE].head
    assert first.chain == () and first.data.judges == () and first.data.facts_by == ("template-bank",)
    assert first.recipe["learning_rate"] == first.training.learning_rate == 5e-4
    assert (first.training.steps, first.training.rows_per_step, first.training.dtype) == (1, 4, "float32")
    assert {part.part: part.trainable > 0 for part in first.parts}["fusion"]
    before = str(tmp_path / "sfe")
    stage_2 = write_recipe(tmp_path / "edpo.yaml", dataset, tmp_path / "edpo", stage="edpo", model=before, **short)
    result = train(stage_2, hub.url, tmp_path)
    assert result.returncode == 0, result.stderr
    second = read_record(tmp_path / "edpo")
    assert (second.stage, second.model, second.base_model) == ("edpo", "sfe", HUB_BASE)
    assert second.base_revision == first.base_revision
    assert second.chain == (first,) and second.data.judges == ("rule",)
    assert second.method["objective"] == "dpo" and second.method["beta"] == 0.1
    assert not {part.part: part.trainable > 0 for part in second.parts}["fusion"]
    assert str(tmp_path) not in (tmp_path / "edpo" / "sage_run.json").read_text()
    # What a real stage 2 run leaves behind passes the scan and can be published.
    published = publish(tmp_path / "edpo", "--repo-id", "me/edpo")
    assert published.returncode == 0, published.stderr
    assert b"sfe, then edpo" in hub.repositories["me/edpo"].files["README.md"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/home/ann/runs/sfe", "sfe"),
        (r"C:\runs\sfe", "sfe"),
        ("../runs/sfe", "sfe"),
        ("~/sfe", "sfe"),
        ("runs/sfe", "runs/sfe"),
        ("acme/base-vlm", "acme/base-vlm"),
        ({"a": ["/x/y", 3, None]}, {"a": ["y", 3, None]}),
    ],
)
def test_paths_of_this_machine_are_reduced_to_names(value, expected):
    assert without_local_paths(value) == expected
