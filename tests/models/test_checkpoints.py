"""Stock checkpoints load whole into our classes, and faulty ones are refused."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from sage_trl.errors import DataError
from sage_trl.models.checkpoints import load_pretrained, save_pretrained
from sage_trl.models.encoding import encode_prompts
from tests.conftest import row


def test_a_stock_checkpoint_loads_whole_and_only_the_fusion_is_new(stock):
    directory, plain = stock
    model, processor = load_pretrained(directory)
    ours = dict(model.named_parameters())
    for name, parameter in plain.named_parameters():
        assert torch.equal(ours.pop(name), parameter), name
    assert ours
    assert all(name.startswith("model.fusion.") for name in ours)
    batch = encode_prompts(processor, [row(0)], facts="none")
    assert torch.equal(model(**batch).logits, plain(**batch).logits)


def test_the_new_fusion_is_seeded_and_takes_its_settings(stock):
    directory, _ = stock
    first, _ = load_pretrained(directory, seed=3, fusion={"num_selected_patches": 5, "fusion_num_heads": 4})
    second, _ = load_pretrained(directory, seed=3, fusion={"num_selected_patches": 5, "fusion_num_heads": 4})
    assert first.config.num_selected_patches == 5
    assert torch.equal(first.model.fusion.key.weight, second.model.fusion.key.weight)


def test_saved_models_come_back_with_equal_logits(tiny, tmp_path):
    model, processor = tiny
    save_pretrained(model, processor, tmp_path)
    loaded, loaded_processor = load_pretrained(tmp_path)
    batch = encode_prompts(processor, [row(0), row(1, reference=False)])
    other = encode_prompts(loaded_processor, [row(0), row(1, reference=False)])
    assert torch.equal(batch["input_ids"], other["input_ids"])
    assert torch.equal(loaded(**other).logits, model(**batch).logits)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert {"fact_token_id", "num_selected_patches", "fusion_num_heads", "patch_similarity"} <= set(saved)
    assert saved["fusion_keys"] == "difference"


@pytest.mark.parametrize("fault", ["missing", "unknown", "shape"])
def test_a_checkpoint_that_does_not_fit_is_refused(tiny, tmp_path, fault):
    save_pretrained(*tiny, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    name = "model.fusion.key.weight"
    if fault == "missing":
        del tensors[name]
    elif fault == "unknown":
        tensors["model.fusion.extra"] = torch.ones(1)
    else:
        tensors[name] = torch.ones(3, 3)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match="does not fit"):
        load_pretrained(tmp_path)


def test_other_fusion_settings_than_the_saved_ones_are_refused(tiny, tmp_path):
    save_pretrained(*tiny, tmp_path)
    with pytest.raises(DataError, match="num_selected_patches is 2 in this model, not 9"):
        load_pretrained(tmp_path, fusion={"num_selected_patches": 9})


def test_no_model_and_an_unsupported_one(tmp_path):
    with pytest.raises(DataError, match="no model can be loaded"):
        load_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(DataError, match="'bert' is not supported"):
        load_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fusion": {"num_patches": 3}}, "'num_patches' is unknown"),
        ({"fusion": {"patch_similarity": "near"}}, "patch_similarity is 'near'"),
        ({"fusion": {"fusion_num_heads": 7}}, "fusion_num_heads 7"),
        ({"attn_implementation": "foo"}, "cannot be loaded"),
        ({"attn_implementation": "flash_attention_2"}, "cannot be loaded"),
    ],
)
def test_settings_that_cannot_be_are_one_error(stock, options, message):
    with pytest.raises(DataError, match=message):
        load_pretrained(stock[0], **options)


def test_pickled_weights_are_not_read(stock):
    directory, plain = stock
    (directory / "model.safetensors").unlink()
    torch.save(plain.state_dict(), directory / "pytorch_model.bin")
    with pytest.raises(DataError, match="safetensors"):
        load_pretrained(directory)
