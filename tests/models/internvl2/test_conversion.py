"""Converted checkpoints compute what the released model computes, load whole, and come with their settings."""

from __future__ import annotations

import json
import weakref
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import GenerationConfig, InternVLForConditionalGeneration

from sage_trl.models import checkpoints
from sage_trl.models.encoding import encode_prompts
from sage_trl.models.internvl2 import conversion
from sage_trl.models.internvl2.tensors import split_grouped
from tests.conftest import picture, row
from tests.models.internvl2.released import KINDS, write_released
from tests.models.internvl2.straight_line import released_logits


def convert(source: Path, destination: Path) -> Path:
    conversion.convert_checkpoint(source, destination, lambda done, total: None)
    return destination


def load_stock(directory: Path, dtype: torch.dtype = torch.float32) -> InternVLForConditionalGeneration:
    model, report = InternVLForConditionalGeneration.from_pretrained(directory, dtype=dtype, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"))
    return model.eval()


def count_tiles(processor, image) -> int:
    ids = encode_prompts(processor, [row(0, images=[image])], facts="none")["input_ids"]
    return int((ids == processor.image_token_id).sum()) // processor.image_seq_length


def inputs(image_token_id: int, length: int = 60, tile_size: int = 32) -> tuple[Tensor, Tensor]:
    """Ids of a sequence with two tiles in it, and the tiles."""
    generator = torch.Generator().manual_seed(3)
    per_tile = (tile_size // 8) ** 2
    ids = torch.randint(9, image_token_id - 3, (length,), generator=generator)
    ids[4 : 4 + 2 * per_tile] = image_token_id
    return ids, torch.randn(2, 3, tile_size, tile_size, generator=generator)


@torch.no_grad()
def assert_equal_logits(directory: Path, settings: dict, tensors: dict[str, Tensor], **sizes: int) -> Tensor:
    """The stock class and ours give the straight line's logits, which are returned."""
    stock = load_stock(directory)
    ours, _ = checkpoints.load_pretrained(directory)
    image_token_id = stock.config.image_token_id
    ids, tiles = inputs(image_token_id, **sizes)
    expected = released_logits(tensors, settings, image_token_id, ids, tiles)
    assert expected.std() > 0.3  # small logits would agree however they were made
    for model in (stock, ours):
        torch.testing.assert_close(
            model(input_ids=ids[None], pixel_values=tiles).logits[0], expected, atol=1e-4, rtol=0
        )
    return expected


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_the_released_model(tmp_path, kind):
    settings, tensors = write_released(tmp_path / "source", kind)
    assert_equal_logits(convert(tmp_path / "source", tmp_path / "native"), settings, tensors)


def test_beyond_the_trained_length_the_base_grows_as_released(tmp_path):
    trained = {"max_position_embeddings": 40, "rope_theta": 100.0}
    settings, tensors = write_released(tmp_path / "source", "internlm2", llm_config=trained)
    expected = assert_equal_logits(convert(tmp_path / "source", tmp_path / "native"), settings, tensors, length=120)
    ids, tiles = inputs(462, length=120)
    settings["llm_config"]["rope_scaling"] = None
    assert (released_logits(tensors, settings, 462, ids, tiles) - expected).abs().max() > 1e-2


@pytest.mark.parametrize("changes", [{"bias": True}, {"rope_scaling": {"type": "linear", "factor": 3.0}}], ids=str)
def test_internlm2_with_biases_or_linear_scaling(tmp_path, changes):
    settings, tensors = write_released(tmp_path / "source", "internlm2", llm_config=changes)
    assert_equal_logits(convert(tmp_path / "source", tmp_path / "native"), settings, tensors)


def test_tiles_of_another_size_than_the_tower_was_trained_with(tmp_path):
    settings, tensors = write_released(tmp_path / "source", "qwen2", config={"force_image_size": 48})
    native = convert(tmp_path / "source", tmp_path / "native")
    assert_equal_logits(native, settings, tensors, length=90, tile_size=48)
    _, processor = checkpoints.load_pretrained(native)
    assert processor.image_seq_length == 36
    assert encode_prompts(processor, [row(0)], facts="none")["pixel_values"].shape[-2:] == (48, 48)


@pytest.mark.parametrize("stored", [False, True], ids=["tied", "stored"])
def test_a_head_is_tied_only_where_none_is_stored(tmp_path, stored):
    settings, tensors = write_released(tmp_path / "source", "qwen2", llm_config={"tie_word_embeddings": not stored})
    settings["llm_config"]["tie_word_embeddings"] = True
    (tmp_path / "source" / "config.json").write_text(json.dumps(settings))
    native = convert(tmp_path / "source", tmp_path / "native")
    assert_equal_logits(native, settings, tensors)
    assert load_stock(native).config.tie_word_embeddings is not stored


def test_weights_keep_their_type_and_their_values(tmp_path):
    _, tensors = write_released(
        tmp_path / "source", "internlm2", dtype=torch.bfloat16, config={"torch_dtype": "bfloat16"}
    )
    native = convert(tmp_path / "source", tmp_path / "native")
    model = load_stock(native, dtype="auto")
    assert model.dtype == torch.bfloat16
    down = model.model.language_model.layers[1].mlp.down_proj.weight
    assert torch.equal(down, tensors["language_model.model.layers.1.feed_forward.w2.weight"])


@pytest.mark.parametrize("shards", [1, 4])
def test_a_native_shard_holds_what_a_source_shard_held(tmp_path, shards):
    _, tensors = write_released(tmp_path / "source", "internlm2", shards=shards)
    native = convert(tmp_path / "source", tmp_path / "native")
    files = sorted(native.glob("*.safetensors"))
    assert len(files) == shards
    assert {file.stat().st_mode & 0o777 for file in native.iterdir()} == {0o644}
    for mine, theirs in zip(files, sorted((tmp_path / "source").glob("*.safetensors")), strict=True):
        assert sum(one.numel() for one in load_file(mine).values()) == sum(
            one.numel() for one in load_file(theirs).values()
        )
    index = native / "model.safetensors.index.json"
    assert index.is_file() is (shards > 1)
    if shards > 1:
        total = json.loads(index.read_text())["metadata"]["total_size"]
        assert total == sum(tensor.nbytes for tensor in tensors.values())


def test_never_more_than_two_shards_in_memory(tmp_path, monkeypatch):
    _, tensors = write_released(tmp_path / "source", "internlm2", shards=6)
    held = {"handles": 0, "bytes": 0}
    peaks = {"handles": 0, "bytes": 0}

    def count(key, change, more=0):
        held[key] += change
        peaks[key] = max(peaks[key], held[key] + more)

    class CountedHandle:
        def __init__(self, *arguments, **keywords):
            self._handle = safe_open(*arguments, **keywords)

        def __enter__(self):
            count("handles", 1)
            return self

        def __exit__(self, *exception):
            count("handles", -1)

        def get_tensor(self, name):
            tensor = self._handle.get_tensor(name)
            count("bytes", tensor.nbytes)
            weakref.finalize(tensor, count, "bytes", -tensor.nbytes)
            return tensor

    def save(native, *arguments, **keywords):
        # A tensor that only got another name is counted twice.
        count("bytes", 0, more=sum(tensor.nbytes for tensor in native.values()))
        save_file(native, *arguments, **keywords)

    monkeypatch.setattr(conversion, "safe_open", CountedHandle)
    monkeypatch.setattr(conversion, "save_file", save)
    convert(tmp_path / "source", tmp_path / "native")
    largest = max(path.stat().st_size for path in (tmp_path / "source").glob("*.safetensors"))
    assert peaks["handles"] == 1
    assert max(tensor.nbytes for tensor in tensors.values()) < peaks["bytes"] <= 2 * largest
    assert held == {"handles": 0, "bytes": 0}


def test_query_heads_come_before_key_and_value_in_each_group():
    # 4 query heads on 2 key/value heads of width 1: rows q0 q1 k0 v0 q2 q3 k1 v1
    rows = torch.tensor([0.0, 1.0, 10.0, 20.0, 2.0, 3.0, 11.0, 21.0])
    query, key, value = split_grouped(rows, heads=4, key_value_heads=2)
    assert query.tolist() == [0, 1, 2, 3]
    assert key.tolist() == [10, 11]
    assert value.tolist() == [20, 21]


@pytest.mark.parametrize("kind", KINDS)
def test_images_are_cut_and_normalised_as_released(tmp_path, kind):
    write_released(tmp_path / "source", kind)
    _, processor = checkpoints.load_pretrained(convert(tmp_path / "source", tmp_path / "native"))
    # Three tiles side by side and the thumbnail; a square is one tile.
    assert count_tiles(processor, picture(0, width=96, height=32)) == 4
    assert count_tiles(processor, picture(1)) == 1
    batch = encode_prompts(processor, [row(0)], facts="none")
    pixels = torch.tensor(list(row(0)["images"][0].get_flattened_data()), dtype=torch.float32).T.reshape(3, 32, 32)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = (pixels / 255 - mean[:, None, None]) / std[:, None, None]
    torch.testing.assert_close(batch["pixel_values"][0], expected, atol=1e-5, rtol=0)


def test_images_stay_whole_where_the_source_does_not_cut_them(tmp_path):
    write_released(tmp_path / "source", "qwen2", config={"dynamic_image_size": False, "use_thumbnail": False})
    _, processor = checkpoints.load_pretrained(convert(tmp_path / "source", tmp_path / "native"))
    assert count_tiles(processor, picture(0, width=96, height=32)) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_replies_end_with_the_turn(tmp_path, kind):
    write_released(tmp_path / "source", kind)
    native = convert(tmp_path / "source", tmp_path / "native")
    model, processor = checkpoints.load_pretrained(native)
    end = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert GenerationConfig.from_pretrained(native).eos_token_id == end
    assert model.generation_config.eos_token_id == end
    with torch.no_grad():  # the end of the turn becomes the likeliest token everywhere
        model.lm_head.weight.zero_()
        model.model.language_model.norm.weight.fill_(0.0)
    batch = encode_prompts(processor, [row(0)], facts="none")
    bias = {(end,): 10.0}
    reply = model.generate(**batch, max_new_tokens=5, do_sample=False, sequence_bias=bias)
    assert reply[0, batch["input_ids"].shape[1] :].tolist() == [end]


@pytest.mark.parametrize("kind", KINDS)
def test_a_fact_enhanced_model_trains_on_it(tmp_path, kind):
    write_released(tmp_path / "source", kind)
    native = convert(tmp_path / "source", tmp_path / "native")
    model, processor = checkpoints.load_pretrained(native, fusion={"num_selected_patches": 2, "fusion_num_heads": 2})
    batch = encode_prompts(processor, [row(0), row(1, reference=False)])
    labels = batch["input_ids"].masked_fill(batch["input_ids"] >= model.config.text_config.vocab_size, -100)
    loss = model(**batch, labels=labels).loss
    loss.backward()
    assert torch.isfinite(loss)
    assert model.model.fusion.key.weight.grad.abs().max() > 0


def test_nothing_of_the_remote_code_is_left(tmp_path):
    write_released(tmp_path / "source", "internlm2")
    native = convert(tmp_path / "source", tmp_path / "native")
    assert not list(native.rglob("*.py"))
    for file in native.glob("*.json"):
        assert "auto_map" not in file.read_text(), file.name
    assert json.loads((native / "processor_config.json").read_text())["processor_class"] == "InternVLProcessor"
