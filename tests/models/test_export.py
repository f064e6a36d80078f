"""Merged models equal their adapters; plain ones load with stock transformers."""

import json

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoTokenizer
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from sage_trl.errors import DataError
from sage_trl.models.checkpoints import load_pretrained
from sage_trl.models.encoding import encode_prompts
from sage_trl.models.export import export_plain, merge_adapter
from tests.models.stock_checkpoints import BUILDERS, save_stock
from tests.models.test_adapters import make_adapter, rows


@pytest.mark.parametrize("name", BUILDERS)
def test_merged_and_plain_models_answer_as_the_adapter_does(name, tmp_path):
    adapted, processor = make_adapter(tmp_path, name)
    (tmp_path / "adapter" / "sage_inference.json").write_text('{"facts": "fusion", "stage": "sfe"}')
    merge_adapter(tmp_path / "adapter", tmp_path / "merged")
    merged, _ = load_pretrained(tmp_path / "merged")
    assert not hasattr(merged, "peft_config")
    batch = encode_prompts(processor, rows())
    assert torch.allclose(merged(**batch).logits, adapted(**batch).logits, atol=1e-4)
    assert json.loads((tmp_path / "merged" / "sage_inference.json").read_text())["stage"] == "sfe"

    export_plain(tmp_path / "adapter", tmp_path / "plain")
    plain = AutoModelForImageTextToText.from_pretrained(tmp_path / "plain", dtype=torch.float32).eval()
    base = AutoModelForImageTextToText.from_pretrained(tmp_path / "base")
    assert type(plain) is type(base)
    assert {key: value.shape for key, value in plain.state_dict().items()} == {
        key: value.shape for key, value in base.state_dict().items()
    }
    without_facts = encode_prompts(processor, rows(), facts="none")
    assert torch.allclose(plain(**without_facts).logits, adapted(**without_facts).logits, atol=1e-4)
    settings = json.loads((tmp_path / "plain" / "processor_config.json").read_text())
    assert not settings["processor_class"].startswith("Sage")
    assert type(AutoImageProcessor.from_pretrained(tmp_path / "plain")) is type(processor.image_processor)
    assert len(AutoTokenizer.from_pretrained(tmp_path / "plain")) == len(processor.tokenizer)


def test_a_tied_head_is_still_tied_in_the_plain_model(tmp_path):
    save_stock("qwen2_vl", tmp_path / "base", tied=True)
    export_plain_from = tmp_path / "sage"
    model, processor = load_pretrained(tmp_path / "base", fusion={"fusion_num_heads": 4})
    model.save_pretrained(export_plain_from)
    processor.save_pretrained(export_plain_from)
    export_plain(export_plain_from, tmp_path / "plain")
    plain = AutoModelForImageTextToText.from_pretrained(tmp_path / "plain")
    assert plain.lm_head.weight is plain.get_input_embeddings().weight


def test_weights_can_be_written_in_bf16(tmp_path):
    make_adapter(tmp_path)
    merge_adapter(tmp_path / "adapter", tmp_path / "merged", dtype=torch.bfloat16)
    merged, _ = load_pretrained(tmp_path / "merged", dtype="auto")
    assert {parameter.dtype for parameter in merged.parameters()} == {torch.bfloat16}


def test_a_failed_merge_leaves_nothing_and_a_full_directory_is_refused(tmp_path):
    make_adapter(tmp_path)
    merge_adapter(tmp_path / "adapter", tmp_path / "merged")
    with pytest.raises(DataError, match="exists and is not empty"):
        merge_adapter(tmp_path / "adapter", tmp_path / "merged")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(DataError, match="not an adapter"):
        merge_adapter(tmp_path / "merged", tmp_path / "again")
    assert sorted(tmp_path.iterdir()) == before
