"""What cannot be converted is refused with its name, and a failed conversion leaves nothing behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sage_trl.errors import DataError
from sage_trl.models.internvl2.conversion import convert_checkpoint
from tests.models.internvl2.released import write_released, write_shards


@pytest.fixture
def source(tmp_path):
    """A released checkpoint in three shards, its configuration and its tensors."""
    settings, tensors = write_released(tmp_path / "source", "internlm2")
    return tmp_path / "source", settings, tensors


def refusal(directory: Path, destination: Path | None = None) -> str:
    """The message of the refusal, after which nothing stands beside the source."""
    before = set(directory.parent.iterdir())
    with pytest.raises(DataError) as error:
        convert_checkpoint(directory, destination or directory.parent / "native", lambda done, total: None)
    assert error.value.exit_code == 2
    assert set(directory.parent.iterdir()) == before
    assert "remedy:" in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        (None, {"model_type": "internvl"}, "model_type is 'internvl'"),
        (None, {"ps_version": "v1"}, "ps_version is 'v1'"),
        (None, {"select_layer": -4}, "select_layer is -4"),
        (None, {"pad2square": True}, "pad2square is True"),
        (None, {"use_thumbnail": False}, "use_thumbnail is False"),
        (None, {"use_llm_lora": 16}, "use_llm_lora is 16"),
        (None, {"downsample_ratio": 0.3}, "downsample_ratio is 0.3"),
        (None, {"force_image_size": 36}, "force_image_size is 36"),
        (None, {"template": "phi3-chat"}, "template: unknown conversation template 'phi3-chat'"),
        (None, {"llm_config": None}, "llm_config is None: expected dict"),
        ("llm_config", {"architectures": ["Phi3ForCausalLM"]}, "llm_config.architectures is ['Phi3ForCausalLM']"),
        ("llm_config", {"rope_scaling": {"type": "yarn", "factor": 2.0}}, "llm_config.rope_scaling is"),
        ("llm_config", {"hidden_size": "32"}, "llm_config.hidden_size is '32': expected int"),
        ("llm_config", {"num_key_value_heads": 3}, "llm_config.num_attention_heads is 8"),
        ("vision_config", {"norm_type": "batch_norm"}, "vision_config.norm_type is 'batch_norm'"),
        ("vision_config", {"qk_normalization": True, "layer_norm_eps": 1e-5}, "vision_config.layer_norm_eps is 1e-05"),
        ("vision_config", {"qkv_bias": None}, "vision_config.qkv_bias is None: expected bool"),
        ("vision_config", {"num_attention_heads": 5}, "vision_config.num_attention_heads is 5"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_configuration_without_a_native_form(source, section, changes, message):
    directory, settings, _ = source
    (settings if section is None else settings[section]).update(changes)
    (directory / "config.json").write_text(json.dumps(settings))
    assert message in refusal(directory)


def test_rope_scaling_of_qwen2(tmp_path):
    scaling = {"rope_scaling": {"type": "dynamic", "factor": 2.0}}
    write_released(tmp_path / "source", "qwen2", llm_config=scaling)
    assert "the released Qwen2 code has none" in refusal(tmp_path / "source")


def test_tensors_left_over_missing_and_of_another_shape(source):
    directory, _, tensors = source
    tensors["vision_model.head.weight"] = torch.zeros(2)
    del tensors["mlp1.3.bias"]
    tensors["mlp1.1.bias"] = torch.zeros(5)
    write_shards(directory, tensors, 3)
    message = refusal(directory)
    assert "tensors left over (1): vision_model.head.weight" in message
    assert "tensors missing (1): mlp1.3.bias" in message
    assert "tensors of another shape than config.json says (1): mlp1.1.bias is [5], not [32]" in message


def test_many_faulty_tensors_are_counted(source):
    directory, _, tensors = source
    kept = {name: tensor for name, tensor in tensors.items() if "vision_model" not in name}
    write_shards(directory, kept, 2)
    assert "and 27 more" in refusal(directory)


def test_quantised_tensors(source):
    directory, _, tensors = source
    tensors["mlp1.1.weight"] = tensors["mlp1.1.weight"].to(torch.int8)
    write_shards(directory, tensors, 3)
    assert "tensor mlp1.1.weight is I8" in refusal(directory)


def test_a_missing_shard_and_a_cut_one(source):
    directory, _, _ = source
    shard = directory / "model-00002-of-00003.safetensors"
    shard.write_bytes(shard.read_bytes()[:-10])
    assert "the shard cannot be read" in refusal(directory)
    shard.unlink()
    assert "no such shard" in refusal(directory)


def test_an_index_that_disagrees_with_the_shards(source):
    directory, _, _ = source
    index = directory / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["mlp1.9.bias"] = "model-00001-of-00003.safetensors"
    index.write_text(json.dumps(content))
    assert "tensor mlp1.9.bias is not in model-00001-of-00003.safetensors" in refusal(directory)
    content["weight_map"]["mlp1.9.bias"] = "../model.safetensors"
    index.write_text(json.dumps(content))
    assert "no file beside it" in refusal(directory)
    index.write_text("{}")
    assert "no weight_map" in refusal(directory)


def test_a_tensor_in_two_shards(source):
    directory, _, tensors = source
    write_shards(directory, tensors, 3)
    index = (directory / "model.safetensors.index.json").read_text()
    first = directory / "model-00001-of-00003.safetensors"
    (directory / "model-00002-of-00003.safetensors").write_bytes(first.read_bytes())
    (directory / "model.safetensors.index.json").write_text(index)
    assert "is in model-00001-of-00003.safetensors as well" in refusal(directory)


def test_pickles_and_no_weights(source):
    directory, _, _ = source
    for path in directory.glob("model*.safetensors*"):
        path.unlink()
    assert "no model.safetensors" in refusal(directory)
    (directory / "pytorch_model.bin").write_bytes(b"x")
    assert "PyTorch pickles (pytorch_model.bin)" in refusal(directory)


def test_a_destination_that_holds_something(source):
    directory, _, _ = source
    destination = directory.parent / "native"
    destination.mkdir()
    (destination / "notes.txt").write_text("mine")
    assert "it exists and is not empty" in refusal(directory, destination)
    assert [path.name for path in destination.iterdir()] == ["notes.txt"]


def test_no_source(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "no such directory" in refusal(tmp_path / "nowhere")
    assert "config.json: no such file" in refusal(tmp_path / "empty")


def test_a_conversion_that_is_stopped_leaves_nothing(source):
    directory, _, _ = source
    before = set(directory.parent.iterdir())

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_checkpoint(directory, directory.parent / "native", stop)
    assert set(directory.parent.iterdir()) == before


def test_an_empty_destination_is_filled(source):
    directory, _, _ = source
    destination = directory.parent / "native"
    destination.mkdir()
    convert_checkpoint(directory, destination, lambda done, total: None)
    assert (destination / "config.json").is_file()
