"""Any image-text-to-text model of transformers, read by the real loading code and without torchvision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig

from sage_trl.errors import DataError
from sage_trl.models.generation import ModelReplyGenerator
from sage_trl.models.molmo2_images import Molmo2ImageProcessorWithoutTorchvision
from sage_trl.models.plain import load_plain, shares_prefixes
from tests.conftest import picture, row
from tests.models.other_checkpoints import save_deepseek_vl, save_molmo2
from tests.models.stock_checkpoints import save_stock

SAVERS = {
    "molmo2": save_molmo2,
    "deepseek_vl": save_deepseek_vl,
    "llava_next": lambda directory: save_stock("llava_next", directory),
    "qwen2_vl": lambda directory: save_stock("qwen2_vl", directory),
    "internvl": lambda directory: save_stock("internvl", directory),
}


def one_by_one(model: Any, processor: Any, rows: list[dict[str, Any]]) -> list[str]:
    """Replies to each row alone, by transformers' own means."""
    replies = []
    for one in rows:
        images = [one["reference_image"], *one["images"]] if one["reference_image"] else one["images"]
        first = [{"type": "image"}]
        if one["reference_image"]:
            first += [
                {"type": "text", "text": "The first image shows a good part: take it as the baseline.\n"},
                {"type": "image"},
                {"type": "text", "text": "The second image shows the part to inspect.\n"},
            ]
        first.append({"type": "text", "text": one["prompt"][0]["content"]})
        text = processor.apply_chat_template([{"role": "user", "content": first}], add_generation_prompt=True)
        starts = text.startswith(processor.tokenizer.bos_token or "")
        batch = processor(text=[text], images=[images], return_tensors="pt", add_special_tokens=not starts)
        output = model.generate(**batch, max_new_tokens=6, do_sample=False)
        reply = processor.tokenizer.decode(output[0, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        replies.append(reply.strip())
    return replies


@pytest.mark.parametrize("model_type", SAVERS)
def test_a_batch_gets_the_replies_of_single_rows(model_type: str, tmp_path: Path) -> None:
    stock = SAVERS[model_type](tmp_path)

    model, processor = load_plain(tmp_path)

    assert type(model) is type(stock)
    for name, value in stock.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    rows = [row(0), row(1, reference=False), row(2, images=[picture(7, 80, 40)])]
    rows.append({**rows[0], **{name: row(3)[name] for name in ("prompt", "question_id")}})
    generate = ModelReplyGenerator(
        model, processor, 6, facts="none", reference_in_prompt=True, share_prefixes=shares_prefixes(model)
    )
    replies = [reply.text for reply in generate(rows)]
    assert replies == one_by_one(stock, processor, rows)
    assert len(set(replies)) > 1  # else nothing would have been compared


def test_the_images_of_molmo2_are_cut_and_scaled(tmp_path: Path) -> None:
    """A left half of 0 and a right half of 255: one view and two crops of it, whose edges are those of the picture."""
    image = Image.new("RGB", (64, 32))
    image.paste((255, 255, 255), (32, 0, 64, 32))
    processor = Molmo2ImageProcessorWithoutTorchvision(
        size={"height": 32, "width": 32}, patch_size=8, max_crops=2, overlap_margins=[0, 0]
    )

    batch = processor([image], return_tensors="pt")

    # Means and deviations of 0.5 send 0 to -1 and 255 to 1; 16 patches of 8 x 8 pixels to a crop.
    whole, left, right = batch["pixel_values"].reshape(3, 4, 4, 8, 8, 3)
    assert torch.equal(left, -torch.ones_like(left))
    assert torch.equal(right, torch.ones_like(right))
    assert torch.equal(whole[:, :2], -torch.ones(4, 2, 8, 8, 3))
    assert torch.equal(whole[:, 2:], torch.ones(4, 2, 8, 8, 3))
    # Pools of 2 x 2: 2 x 2 tokens of the view, 2 x 4 of the crops.
    assert batch["image_grids"].tolist() == [[2, 2, 2, 4]]
    assert batch["image_token_pooling"][0].tolist() == [0, 1, 4, 5]


def test_a_model_of_ours_needs_no_hf(tiny: Any, tmp_path: Path) -> None:
    model, processor = tiny
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)

    with pytest.raises(DataError, match=r"'sage_internvl' is of this toolkit\n  remedy: leave hf: out"):
        load_plain(tmp_path)


def test_other_kinds_of_models_are_refused(tmp_path: Path) -> None:
    LlamaConfig().save_pretrained(tmp_path)
    with pytest.raises(DataError, match="'llama' does not answer questions on images"):
        load_plain(tmp_path)
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "deepseek_vl_v2", "auto_map": {"AutoConfig": "a.B"}})
    )
    with pytest.raises(DataError, match="no model can be loaded"):
        load_plain(tmp_path)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        ("template", "it has no chat template"),
        ("images", "no processor can be loaded"),
        ("tensor", "1 missing tensors, first 'model.aligner.linear1.weight'"),
    ],
)
def test_a_checkpoint_that_lacks_something_is_named(spoil: str, expected: str, tmp_path: Path) -> None:
    save_deepseek_vl(tmp_path)
    if spoil == "template":
        (tmp_path / "chat_template.jinja").unlink()
    elif spoil == "images":
        (tmp_path / "processor_config.json").unlink()
    else:
        path = tmp_path / "model.safetensors"
        tensors = load_file(path)
        del tensors["model.aligner.linear1.weight"]
        save_file(tensors, path, metadata={"format": "pt"})

    with pytest.raises(DataError, match=expected) as raised:
        load_plain(tmp_path)

    assert str(tmp_path) in str(raised.value)
    assert "remedy:" in str(raised.value)
