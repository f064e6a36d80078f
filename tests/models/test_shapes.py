"""Without weights a model has the tensors that it would have with them."""

from __future__ import annotations

import pytest
import torch

from sage_trl.models.adapters import add_lora
from sage_trl.models.checkpoints import load_pretrained, save_pretrained
from sage_trl.models.parts import set_trainable_parts
from tests.models.stock_checkpoints import BUILDERS, save_stock

FUSION = {"num_selected_patches": 2, "fusion_num_heads": 2}
PARTS = ["projector", "fusion", "language_model"]


def shapes(model) -> dict[str, tuple[torch.Size, torch.dtype, bool]]:
    return {name: (one.shape, one.dtype, one.requires_grad) for name, one in model.named_parameters()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", list(BUILDERS))
def test_whole_models(name, dtype, tmp_path):
    save_stock(name, tmp_path, tied=name == "qwen2_vl")
    real, _ = load_pretrained(tmp_path, fusion=FUSION, dtype=dtype)
    (tmp_path / "model.safetensors").unlink()
    model, _ = load_pretrained(tmp_path, fusion=FUSION, dtype=dtype, weights=False)
    assert shapes(model) == shapes(real)
    assert all(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))


@pytest.mark.parametrize("load_in_4bit", [False, True])
def test_new_and_saved_adapters(load_in_4bit, tmp_path):
    if load_in_4bit:
        pytest.importorskip("bitsandbytes")
    save_stock("internvl", tmp_path / "base")
    options = {"dtype": torch.bfloat16, "load_in_4bit": load_in_4bit}
    new = []
    for weights in (True, False):
        model, processor = load_pretrained(tmp_path / "base", fusion=FUSION, **options, weights=weights)
        new.append(add_lora(model, PARTS, r=4))
        if weights:
            save_pretrained(new[0], processor, tmp_path / "lora")
    assert shapes(new[1]) == shapes(new[0])
    assert set_trainable_parts(new[1], PARTS) == set_trainable_parts(new[0], PARTS)
    for is_trainable in (True, False):
        loaded = [
            load_pretrained(tmp_path / "lora", **options, is_trainable=is_trainable, weights=weights)[0]
            for weights in (True, False)
        ]
        assert shapes(loaded[1]) == shapes(loaded[0])
