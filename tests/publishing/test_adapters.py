"""Publishing an adapter: as it is with a base model others can load, or merged."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from sage_trl.models import export
from sage_trl.models.checkpoints import load_pretrained
from sage_trl.models.encoding import encode_prompts
from sage_trl.publishing.publication import PublishOptions, prepared
from sage_trl.run_record import write_run_record
from sage_trl.storage import write_json
from tests.models.test_adapters import make_adapter, rows
from tests.publishing.conftest import run_record

NAME = "me/sage-lora"


@pytest.fixture
def adapter_run(tmp_path):
    """An adapter as PEFT saves it, on a base model of this machine."""
    directory = tmp_path / "runs" / "lora"
    directory.mkdir(parents=True)
    base = tmp_path / "base"
    write_json(directory / "adapter_config.json", {"base_model_name_or_path": str(base), "r": 4, "revision": None})
    save_file({"lora_A": torch.zeros(2)}, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    write_run_record(directory, run_record(base_model=None, base_revision=None, model="base"))
    return directory


def test_a_local_base_model_stops_the_upload_and_can_be_named(adapter_run, hub, publish):
    before = (adapter_run / "adapter_config.json").read_bytes()
    refused = publish(adapter_run, "--repo-id", NAME)
    assert refused.returncode == 2
    assert "adapter_config.json" in refused.stderr and "--base-model HUB_ID" in refused.stderr
    assert hub.repositories == {}
    named = publish(adapter_run, "--repo-id", NAME, "--base-model", "acme/base-vlm", "--base-revision", "abc123")
    assert named.returncode == 0, named.stderr
    files = hub.repositories[NAME].files
    published = json.loads(files["adapter_config.json"])
    assert published == {"base_model_name_or_path": "acme/base-vlm", "r": 4, "revision": "abc123"}
    record = json.loads(files["sage_run.json"])
    assert (record["base_model"], record["base_revision"]) == ("acme/base-vlm", "abc123")
    assert b"library_name: peft" in files["README.md"] and b"base_model: acme/base-vlm" in files["README.md"]
    assert (adapter_run / "adapter_config.json").read_bytes() == before, "the run is never changed"


def test_merged_publishes_what_merging_writes_with_the_run_s_record(adapter_run, monkeypatch):
    def merge(run, output):
        assert run == adapter_run
        write_json(output / "config.json", {})
        save_file({"w": torch.zeros(2)}, output / "model.safetensors", metadata={"format": "pt"})

    monkeypatch.setattr(export, "merge_adapter", merge)
    options = PublishOptions(run=adapter_run, repo_id=NAME, merged=True)
    with prepared(options, NAME) as publication:
        names = [file.name for file in publication.files]
        assert names == ["config.json", "sage_run.json", "model.safetensors", "README.md"]
        [record] = [file for file in publication.files if file.name == "sage_run.json"]
        assert record.read() == (adapter_run / "sage_run.json").read_bytes()
    assert "library_name: transformers" in publication.card and "whole model" in publication.card
    assert "--merged" in options.command


def test_merged_is_told_by_the_adapter_s_own_error_where_its_base_is_gone(adapter_run, hub, publish):
    result = publish(adapter_run, "--repo-id", NAME, "--merged")
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr and hub.repositories == {}


@pytest.mark.slow
def test_a_merged_adapter_arrives_as_the_model_it_makes(tmp_path, hub, publish):
    adapted, processor = make_adapter(tmp_path)
    write_run_record(tmp_path / "adapter", run_record(base_model=None, base_revision=None, model="base"))
    result = publish(tmp_path / "adapter", "--repo-id", NAME, "--merged")
    assert result.returncode == 0, result.stderr
    arrived = tmp_path / "arrived"
    arrived.mkdir()
    for name, content in hub.repositories[NAME].files.items():
        (arrived / name).write_bytes(content)
    assert not (arrived / "adapter_config.json").exists()
    merged, _ = load_pretrained(arrived)
    batch = encode_prompts(processor, rows())
    assert torch.allclose(merged(**batch).logits, adapted(**batch).logits, atol=1e-4)
