"""LoRA that carries the fusion: what it wraps, round trips, the frozen reference, 4-bit bases."""

import json
import os
import sys

import pytest
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from sage_trl.errors import DataError
from sage_trl.models.adapters import add_lora, reference_adapter
from sage_trl.models.checkpoints import load_pretrained, save_pretrained
from sage_trl.models.encoding import encode_prompts
from sage_trl.models.parts import POLICY_ADAPTER, set_trainable_parts
from tests.conftest import REPOSITORY, row
from tests.models.stock_checkpoints import BUILDERS, save_stock
from tests.warm import run_warm

PARTS = ["projector", "fusion", "language_model"]
FUSION = {"num_selected_patches": 2, "fusion_num_heads": 4}
RELOAD = """
import sys, torch
from sage_trl import load_pretrained
from sage_trl.models.encoding import encode_prompts
from tests.conftest import row
model, processor = load_pretrained(sys.argv[1])
torch.save(model(**encode_prompts(processor, [row(0), row(1, reference=False)])).logits, sys.argv[2])
"""


def shake(model):
    """Move every trainable weight, so that an adapter that is lost shows."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def make_adapter(directory, name="internvl", **options):
    """A base, an adapter on it whose every weight has moved, and the processor."""
    save_stock(name, directory / "base")
    model, processor = load_pretrained(directory / "base", fusion=FUSION)
    adapted = shake(add_lora(model, PARTS, r=4, **options))
    save_pretrained(adapted, processor, directory / "adapter")
    return adapted, processor


def rows():
    return [row(0), row(1, reference=False)]


@pytest.mark.parametrize("name", BUILDERS)
def test_an_adapter_comes_back_on_its_base_with_fusion_and_projector(name, tmp_path):
    adapted, processor = make_adapter(tmp_path, name)
    again, again_processor = load_pretrained(tmp_path / "adapter")
    expected = adapted(**encode_prompts(processor, rows())).logits
    assert torch.allclose(again(**encode_prompts(again_processor, rows())).logits, expected, atol=1e-5)
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert sum(".fusion." in key for key in saved) == len(
        list(adapted.base_model.model.model.fusion.original_module.parameters())
    )
    base, _ = load_pretrained(tmp_path / "base", fusion=FUSION)
    assert not torch.allclose(base(**encode_prompts(processor, rows())).logits, expected, atol=1e-3)


@pytest.mark.slow
def test_an_adapter_comes_back_in_a_fresh_process(tmp_path):
    adapted, processor = make_adapter(tmp_path)
    arguments = [sys.executable, "-c", RELOAD, str(tmp_path / "adapter"), str(tmp_path / "logits.pt")]
    result = run_warm(arguments, cwd=REPOSITORY)
    assert result.returncode == 0, result.stderr
    expected = adapted(**encode_prompts(processor, rows())).logits
    assert torch.allclose(torch.load(tmp_path / "logits.pt"), expected, atol=1e-5)


@pytest.mark.parametrize("name", BUILDERS)
def test_lora_goes_into_the_parts_that_train_and_nowhere_else(name, tmp_path):
    save_stock(name, tmp_path)
    model, _ = load_pretrained(tmp_path, fusion=FUSION)
    linear = {
        f"base_model.model.{key}"
        for key, module in model.model.language_model.named_modules(prefix="model.language_model")
        if isinstance(module, torch.nn.Linear)
    }
    adapted = add_lora(model, PARTS, r=4)
    adapted_layers = {key.partition(".lora_A.")[0] for key, _ in adapted.named_parameters() if ".lora_A." in key}
    assert adapted_layers == linear
    sizes = {size.part: size for size in set_trainable_parts(adapted, PARTS)}
    assert sizes["vision_encoder"].trainable == sizes["input_embeddings"].trainable == 0
    assert sizes["fusion"].trainable == sizes["fusion"].parameters
    # Two matrices of rank 4 per layer: 4 * (inputs + outputs).
    plain = dict(AutoModelForImageTextToText.from_pretrained(tmp_path).named_modules())
    shapes = [plain[key.removeprefix("base_model.model.")].weight.shape for key in linear]
    assert sizes["language_model"].trainable == sum(4 * sum(shape) for shape in shapes)


def test_target_rank_and_scale_are_the_user_s(tmp_path):
    adapted, _ = make_adapter(tmp_path, alpha=3, target=["q_proj", "v_proj"])
    config = adapted.peft_config[POLICY_ADAPTER]
    assert (config.r, config.lora_alpha) == (4, 3)
    names = {key.split(".lora_A")[0].rpartition(".")[2] for key, _ in adapted.named_parameters() if ".lora_A." in key}
    assert names == {"q_proj", "v_proj"}


@pytest.mark.parametrize(
    ("parts", "target", "message"),
    [
        (PARTS, ["q_porj"], "q_porj"),
        (["projector", "fusion"], None, "no such linear layer"),
        (["language_model", "input_embeddings"], None, "input_embeddings"),
    ],
)
def test_what_lora_cannot_do_is_refused(tmp_path, parts, target, message):
    save_stock("internvl", tmp_path)
    model, _ = load_pretrained(tmp_path, fusion=FUSION)
    with pytest.raises(ValueError, match=message):
        add_lora(model, parts, r=4, target=target)


def test_the_vision_encoder_is_adapted_where_it_trains(tmp_path):
    save_stock("qwen2_vl", tmp_path)
    model, _ = load_pretrained(tmp_path, fusion=FUSION)
    adapted = add_lora(model, ["vision_encoder", "projector"], r=2)
    names = [key for key, _ in adapted.named_parameters() if ".lora_A." in key]
    assert names
    assert all(".visual.blocks." in key for key in names)


def test_the_reference_adapter_leaves_gradients_as_they_were(tmp_path):
    adapted, processor = make_adapter(tmp_path)
    adapted.add_adapter("ref", adapted.peft_config[POLICY_ADAPTER])
    set_trainable_parts(adapted, ["projector", "language_model"])
    before = {key: parameter.requires_grad for key, parameter in adapted.named_parameters()}
    batch = encode_prompts(processor, rows())
    policy = adapted(**batch).logits
    with reference_adapter(adapted):
        # A new adapter is the base's copy with LoRA at zero.
        base, _ = load_pretrained(tmp_path / "base", fusion=FUSION)
        assert torch.allclose(adapted(**batch).logits, base(**batch).logits, atol=1e-5)
    assert torch.equal(adapted(**batch).logits, policy)
    assert {key: parameter.requires_grad for key, parameter in adapted.named_parameters()} == before


def test_an_adapter_in_bf16_is_of_one_type_for_inference_and_in_fp32_for_training(tmp_path):
    make_adapter(tmp_path)
    model, processor = load_pretrained(tmp_path / "adapter", dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model(**encode_prompts(processor, rows())).logits.dtype == torch.bfloat16
    model, _ = load_pretrained(tmp_path / "adapter", dtype=torch.bfloat16, is_trainable=True)
    set_trainable_parts(model, PARTS)
    assert {parameter.dtype for parameter in model.parameters() if parameter.requires_grad} == {torch.float32}


FROM_HUB = """
import sys
from pathlib import Path
from sage_trl import load_pretrained
from sage_trl.models.adapters import add_lora
from sage_trl.models.checkpoints import save_pretrained
model, processor = load_pretrained("me/base", fusion={"fusion_num_heads": 4}, revision="first")
save_pretrained(add_lora(model, ["fusion", "language_model"], r=2), processor, Path(sys.argv[1]))
again, _ = load_pretrained(sys.argv[1])
print(again.get_base_model().config._commit_hash)
"""


@pytest.mark.slow
def test_the_base_s_commit_is_noted_and_used_again(tmp_path):
    """A hub cache that holds two commits of a base; the adapter was trained on the older one."""
    repository = tmp_path / "hub" / "models--me--base"
    (repository / "refs").mkdir(parents=True)
    for branch, commit in (("first", "a" * 40), ("main", "b" * 40)):
        save_stock("internvl", repository / "snapshots" / commit)
        (repository / "refs" / branch).write_text(commit)
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    arguments = [sys.executable, "-c", FROM_HUB, str(tmp_path / "adapter")]
    result = run_warm(arguments, cwd=REPOSITORY, env=environment)
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["revision"] == "a" * 40
    assert result.stdout.split()[-1] == "a" * 40


def test_going_on_in_bf16_loses_nothing_of_what_was_trained_in_fp32(tmp_path):
    make_adapter(tmp_path)
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    model, _ = load_pretrained(tmp_path / "adapter", dtype=torch.bfloat16, is_trainable=True)
    held = get_peft_model_state_dict(model)
    assert held.keys() == saved.keys()
    for key, tensor in saved.items():
        assert torch.equal(held[key], tensor), key


def test_a_base_that_is_gone_is_named_with_the_adapter(tmp_path):
    make_adapter(tmp_path)
    (tmp_path / "base").rename(tmp_path / "elsewhere")
    with pytest.raises(
        DataError, match=r"adapter: the base of this adapter cannot be loaded(.|\n)*base_model_name_or_path"
    ):
        load_pretrained(tmp_path / "adapter")


@pytest.mark.parametrize("fault", ["no fusion", "one missing", "garbage", "pickled", "unknown kind"])
def test_an_adapter_that_does_not_fit_is_refused(tmp_path, fault):
    make_adapter(tmp_path)
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    if fault == "no fusion":
        tensors = {key: value for key, value in tensors.items() if ".fusion." not in key}
    elif fault == "one missing":
        del tensors[next(key for key in tensors if "lora_A" in key)]
    save_file(tensors, path)
    if fault == "garbage":
        path.write_bytes(b"not safetensors")
    elif fault == "pickled":
        path.rename(path.with_name("adapter_model.bin"))
    elif fault == "unknown kind":
        (path.parent / "adapter_config.json").write_text('{"peft_type": "MAGIC"}')
    with pytest.raises(DataError, match="adapter"):
        load_pretrained(tmp_path / "adapter")


def test_an_adapter_of_a_plain_model_is_refused(tmp_path):
    plain = save_stock("internvl", tmp_path / "base")
    get_peft_model(plain, LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path / "adapter")
    with pytest.raises(DataError, match="without a fusion"):
        load_pretrained(tmp_path / "adapter")


@pytest.mark.parametrize("name", ["internvl", "qwen2_vl"])
def test_four_bits_hold_the_language_model_s_layers_alone(name, tmp_path):
    save_stock(name, tmp_path)
    model, processor = load_pretrained(tmp_path, fusion=FUSION, load_in_4bit=True)
    kinds = {}
    for key, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            kinds.setdefault(type(module).__name__, []).append(key)
    assert all(key.startswith("model.language_model.layers.") for key in kinds["Linear4bit"])
    assert not [key for key in kinds["Linear"] if key.startswith("model.language_model.")]
    assert "model.fusion.query" in kinds["FusionLinear"]
    packed = {key: model.get_submodule(key).weight.clone() for key in kinds["Linear4bit"]}
    with torch.no_grad():
        assert model(**encode_prompts(processor, rows())).logits.isfinite().all()
    # Reading a model leaves its weights as they are, on any CPU.
    for key, weight in packed.items():
        module = model.get_submodule(key)
        assert torch.equal(module.weight, weight) and module.weight.quant_state.nested
        assert not module.support_avx512bf16_for_cpu
