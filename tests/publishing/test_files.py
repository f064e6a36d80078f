"""Which files go, and when none do."""

from __future__ import annotations

import subprocess

import pytest

from sage_trl.errors import DataError
from sage_trl.publishing.files import UploadFile, collect_files, is_allowed, left_out


@pytest.fixture
def sharded(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}'
    )
    for number in (1, 2):
        (tmp_path / f"model-0000{number}-of-00002.safetensors").write_bytes(b"x")
    return tmp_path


def test_shards_go_as_the_index_names_them(sharded):
    (sharded / "model-00003-of-00003.safetensors").write_bytes(b"of an earlier save")
    names = [file.name for file in collect_files(sharded)]
    assert names == [
        *("config.json", "model.safetensors.index.json"),
        *("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"),
    ]
    assert left_out(sharded, collect_files(sharded)) == ["model-00003-of-00003.safetensors"]


def test_a_missing_shard_is_named(sharded):
    (sharded / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(DataError, match=r"names model-00002-of-00002\.safetensors, which is not there"):
        collect_files(sharded)


@pytest.mark.parametrize("shard", ["../secret.safetensors", "optimizer.safetensors"])
def test_an_index_cannot_name_other_files(sharded, shard):
    (sharded / "model.safetensors.index.json").write_text(f'{{"weight_map": {{"a": "{shard}"}}}}')
    with pytest.raises(DataError, match="as a shard"):
        collect_files(sharded)


@pytest.mark.parametrize(
    "name",
    [
        *("training_args.bin", "optimizer.pt", "optimizer.safetensors", "scheduler.pt", "rng_state.pth"),
        *("trainer_state.json", "all_results.json", "events.out.tfevents.1", "train.log", ".env", "README.md"),
        *("sage_manifest.json", "recipe.yaml", "environment.json", "metrics.jsonl"),
        *("pytorch_model.bin", "global_step1", "predictions.jsonl", "metrics.json", "MODEL.SAFETENSORS"),
    ],
)
def test_never_allowed(name):
    assert not is_allowed(name)


def test_blob_ids_are_git_s(tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(b'{"a": 1}\n')
    expected = subprocess.run(["git", "hash-object", path], capture_output=True, text=True, check=True).stdout.strip()
    assert UploadFile("x.json", path).git_blob_id() == expected
    assert UploadFile("x.json", path.read_bytes()).git_blob_id() == expected
