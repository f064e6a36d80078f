"""Both stages on LoRA and QLoRA: what moves, the frozen reference, checkpoints, the frozen tower."""

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file

from sage_trl.models.adapters import add_lora
from sage_trl.models.checkpoints import load_pretrained
from sage_trl.models.parts import adapter_of, part_of
from sage_trl.trainer.collators import EntropyDPOCollator
from sage_trl.trainer.entropy_dpo_config import EntropyDPOConfig
from sage_trl.trainer.entropy_dpo_trainer import EntropyDPOTrainer
from sage_trl.trainer.sfe_config import SFEConfig
from sage_trl.trainer.sfe_trainer import SFETrainer
from tests.conftest import assistant, row
from tests.models.stock_checkpoints import BUILDERS, save_stock

PARTS = ["projector", "fusion", "language_model"]
COMMON = {
    "per_device_train_batch_size": 2,
    "max_steps": 5,
    "learning_rate": 1e-2,
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": True,
    "report_to": "none",
    "logging_steps": 1,
    "disable_tqdm": True,
    "save_strategy": "no",
}


def completion_rows():
    return Dataset.from_list(
        [row(0, completion=assistant("Yes, a scratch.")), row(1, reference=False, completion=assistant("No."))]
    )


def pair_rows():
    extra = {"chosen": assistant("Yes, a scratch."), "rejected": assistant("No."), "delta_entropy": 0.1}
    return Dataset.from_list([row(0, **extra, pair_kind="min"), row(1, reference=False, **extra, pair_kind="max")])


def train_stage_one(directory, name="internvl", *, load_in_4bit=False, **options):
    save_stock(name, directory / "base")
    fusion = {"num_selected_patches": 2, "fusion_num_heads": 4}
    model, processor = load_pretrained(directory / "base", fusion=fusion, load_in_4bit=load_in_4bit)
    trainer = SFETrainer(
        add_lora(model, PARTS, r=4),
        SFEConfig(str(directory / "sfe"), **{**COMMON, **options}),
        train_dataset=completion_rows(),
        processing_class=processor,
    )
    before = snapshot(trainer.model)
    trainer.train()
    trainer.save_model()
    return trainer, before


def stage_two(directory, *, load_in_4bit=False, **options):
    model, processor = load_pretrained(directory / "sfe", is_trainable=True, load_in_4bit=load_in_4bit)
    return EntropyDPOTrainer(
        model,
        None,
        EntropyDPOConfig(str(directory / "edpo"), **{**COMMON, **options}),
        train_dataset=pair_rows(),
        processing_class=processor,
    )


def snapshot(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def moved(model, before):
    return {name for name, parameter in model.named_parameters() if not torch.equal(before[name], parameter)}


def logged(trainer, key):
    return [entry[key] for entry in trainer.state.log_history if key in entry]


@pytest.mark.parametrize(
    ("name", "load_in_4bit"),
    [
        *((name, False) for name in BUILDERS),
        *(pytest.param(name, True, marks=() if name == "internvl" else pytest.mark.soak) for name in BUILDERS),
    ],
)
def test_both_stages_learn_on_adapters(name, load_in_4bit, tmp_path):
    first, before = train_stage_one(tmp_path, name, load_in_4bit=load_in_4bit)
    assert logged(first, "loss")[-1] < logged(first, "loss")[0]
    changed = moved(first.model, before)
    assert {adapter_of(key) for key in changed} == {"default"}
    assert {part_of(first.model, key) for key in changed} == set(PARTS)

    second = stage_two(tmp_path, load_in_4bit=load_in_4bit)
    before = snapshot(second.model)
    second.train()
    assert logged(second, "rewards/margins")[0] == 0
    assert logged(second, "loss")[-1] < logged(second, "loss")[0]
    changed = moved(second.model, before)
    assert {adapter_of(key) for key in changed} == {"default"}
    assert {part_of(second.model, key) for key in changed} == {"projector", "language_model"}
    fusion = [parameter for key, parameter in second.model.named_parameters() if ".fusion." in key]
    assert fusion
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in fusion)


def test_the_frozen_tower_runs_without_gradient_under_adapters_and_checkpointing(tmp_path):
    trainer, _ = train_stage_one(tmp_path, max_steps=1)
    tower = trainer.model.get_base_model().model.vision_tower
    outputs = []
    tower.register_forward_hook(lambda _module, _inputs, output: outputs.append(output.last_hidden_state))
    trainer.model.train()
    batch = trainer.data_collator(list(completion_rows()))
    trainer.compute_loss(trainer.model, dict(batch)).backward()
    assert outputs
    assert not any(output.requires_grad for output in outputs)


def test_the_reference_is_the_model_before_stage_two_whatever_the_policy_does(tmp_path):
    train_stage_one(tmp_path)
    trainer = stage_two(tmp_path)
    batch = trainer.data_collator(list(pair_rows()))
    inputs = {key: value for key, value in batch.items() if key not in trainer.loss_keys}
    inputs |= {"shift_labels": batch["shift_labels"], "fused_lm_head": True, "use_cache": False}
    before = trainer._read(trainer.model, inputs)
    trainer.train()
    assert torch.equal(trainer._read(trainer.model, inputs), before)
    assert not torch.allclose(trainer.model(**inputs).log_probs, before, atol=1e-3)


def test_only_the_policy_is_saved_and_loads_again(tmp_path):
    train_stage_one(tmp_path)
    trainer = stage_two(tmp_path)
    trainer.train()
    trainer.save_model()
    files = {path.name for path in (tmp_path / "edpo").iterdir()}
    assert "ref" not in files
    assert {"adapter_config.json", "config.json", "sage_inference.json", "processor_config.json"} <= files
    saved = load_file(tmp_path / "edpo" / "adapter_model.safetensors")
    again, _ = load_pretrained(tmp_path / "edpo")
    inputs = EntropyDPOCollator(trainer.processing_class)(list(pair_rows()))
    inputs = {key: value for key, value in inputs.items() if key not in trainer.loss_keys}
    trainer.model.eval()
    assert saved
    assert torch.allclose(again(**inputs).logits, trainer.model(**inputs).logits, atol=1e-5)


@pytest.mark.parametrize("stage", ["sfe", "edpo"])
def test_a_resumed_run_ends_with_the_losses_of_an_unbroken_one(stage, tmp_path):
    checkpoints = {"save_strategy": "steps", "save_steps": 2, "lr_scheduler_type": "constant"}

    def trainer(max_steps):
        if stage == "edpo":
            return stage_two(tmp_path, max_steps=max_steps, **checkpoints)
        return stage_one(max_steps)

    def stage_one(max_steps):
        model, processor = load_pretrained(tmp_path / "base", fusion={"fusion_num_heads": 4})
        args = SFEConfig(str(tmp_path / "run"), **{**COMMON, **checkpoints, "max_steps": max_steps})
        adapted = add_lora(model, PARTS, r=4)
        return SFETrainer(adapted, args, train_dataset=completion_rows(), processing_class=processor)

    train_stage_one(tmp_path)
    torch.manual_seed(0)
    whole = trainer(4)
    whole.train()
    resumed = trainer(4)
    resumed.train(resume_from_checkpoint=str(tmp_path / ("edpo" if stage == "edpo" else "run") / "checkpoint-2"))
    assert logged(resumed, "loss") == pytest.approx(logged(whole, "loss"), rel=1e-6)
    if stage == "edpo":
        fusion = [p for key, p in resumed.model.named_parameters() if ".fusion." in key]
        assert not any(parameter.requires_grad for parameter in fusion)


def test_a_reference_model_beside_an_adapter_is_refused(tmp_path):
    train_stage_one(tmp_path, max_steps=1)
    model, processor = load_pretrained(tmp_path / "sfe", is_trainable=True)
    args = EntropyDPOConfig(str(tmp_path / "edpo"), **COMMON)
    with pytest.raises(ValueError, match="a frozen copy is the reference"):
        EntropyDPOTrainer(model, model, args, train_dataset=pair_rows(), processing_class=processor)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"train_parts": ["vision_encoder", "language_model"]}, "does not reach"),
        ({"train_parts": ["input_embeddings", "language_model"]}, "does not reach"),
    ],
)
def test_parts_that_an_adapter_cannot_train_are_refused(option, message, tmp_path):
    train_stage_one(tmp_path, max_steps=1)
    with pytest.raises(ValueError, match=message):
        stage_two(tmp_path, **option)


def test_policy_and_reference_are_equal_to_the_bit_on_a_bf16_base(tmp_path):
    train_stage_one(tmp_path, max_steps=2)
    model, processor = load_pretrained(tmp_path / "sfe", is_trainable=True, dtype=torch.bfloat16)
    args = EntropyDPOConfig(str(tmp_path / "edpo"), **{**COMMON, "bf16": True})
    trainer = EntropyDPOTrainer(model, None, args, train_dataset=pair_rows(), processing_class=processor)
    parameters = dict(trainer.model.named_parameters())
    copies = [name for name in parameters if adapter_of(name) == "ref"]
    assert copies
    assert all(torch.equal(parameters[name], parameters[name.replace(".ref.", ".default.")]) for name in copies)
