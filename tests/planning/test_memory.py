"""A plan equals what one step of real training holds, by the tensors' own `nbytes` and torch's hooks."""

from __future__ import annotations

import itertools
import weakref
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count
from transformers import TrainerCallback

from sage_trl.data.rows import PairCounts
from sage_trl.errors import DataError, RecipeError
from sage_trl.model_building import build_models
from sage_trl.models.checkpoints import load_pretrained
from sage_trl.models.parts import part_of
from sage_trl.planning.memory import plan_memory
from sage_trl.training import build_trainer, load_rows, training_steps
from tests.models.stock_checkpoints import save_stock

aten = torch.ops.aten


class Saved:
    """A tensor as long as autograd keeps it."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


class Gradients(TrainerCallback):
    nbytes = 0

    def on_pre_optimizer_step(self, *args, model, **kwargs):
        self.nbytes = sum(parameter.grad.nbytes for parameter in model.parameters() if parameter.grad is not None)


def four_bit_scales(models) -> int:
    """Bytes that bitsandbytes keeps beside the packed weights, outside parameters and buffers."""
    states = [module.weight.quant_state for model in models for module in model.modules() if is_four_bit(module)]
    kept = [(state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code) for state in states]
    return sum({tensor.data_ptr(): tensor.nbytes for tensors in kept for tensor in tensors}.values())


def is_four_bit(module) -> bool:
    return hasattr(getattr(module, "weight", None), "quant_state")


def train_one_step(recipe) -> dict[str, int]:
    """Bytes of a real step, by data pointers so that shared memory counts once."""
    models = build_models(recipe)
    args = recipe.training
    args.max_steps, args.save_strategy, args.disable_tqdm = 1, "no", True
    trainer = build_trainer(args, models, load_rows(recipe, recipe.run.split, PairCounts()), None)
    own = [model for model in (trainer.model, getattr(trainer, "ref_model", None)) if model is not None]
    known = {tensor.data_ptr() for model in own for tensor in (*model.parameters(), *model.buffers())}
    saved: weakref.WeakSet[Saved] = weakref.WeakSet()

    def pack(tensor: torch.Tensor) -> Saved:
        one = Saved(tensor)
        saved.add(one)
        return one

    compute_loss = trainer.compute_loss

    def watched(*arguments: Any, **keywords: Any) -> Any:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda one: one.tensor):
            loss = compute_loss(*arguments, **keywords)
        kept = [one.tensor.untyped_storage() for one in saved]
        sizes = {storage.data_ptr(): storage.nbytes() for storage in kept if storage.data_ptr() not in known}
        activations.append(sum(sizes.values()))
        return loss

    activations: list[int] = []
    trainer.compute_loss = watched
    gradients = Gradients()
    trainer.add_callback(gradients)
    trainer.train()
    state = {
        value.data_ptr(): value.nbytes
        for values in trainer.optimizer.state.values()
        for value in values.values()
        if torch.is_tensor(value)
    }
    weights = [sum({p.data_ptr(): p.nbytes for p in model.parameters()}.values()) for model in own]
    return {
        "weights": weights[0],
        "reference": sum(weights[1:]),
        "buffers": sum(buffer.nbytes for model in own for buffer in model.buffers()) + four_bit_scales(own),
        "gradients": gradients.nbytes,
        "optimizer": sum(state.values()),
        "activations": activations[0],
    }


def check(recipe, *, within: float = 0.02) -> Any:
    """Compare plan and reality."""
    plan = plan_memory(recipe)
    real = train_one_step(recipe)
    planned = {name: getattr(plan.usage, name) for name in real}
    activations = real.pop("activations")
    assert planned.pop("activations") + plan.usage.weight_copies == pytest.approx(activations, rel=within)
    assert planned == real
    return plan


SWITCHES = (("bf16",), ("gradient_checkpointing",), ("bf16", "shared_prefix"))
FULL_TRAININGS = list(itertools.product(("internvl", "llava_next", "qwen2_vl"), ("sfe", "edpo"), SWITCHES))
# Every switch in either stage, and every backbone; `soak` has the others.
FIRST_FULL_TRAININGS = [
    *(one for one in FULL_TRAININGS if one[0] == "internvl"),
    *(("llava_next", "sfe", ("gradient_checkpointing",)), ("qwen2_vl", "edpo", ("gradient_checkpointing",))),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "stage", "switches"),
    [
        pytest.param(name, stage, switches, id="-".join((name, stage, *switches)), marks=marks)
        for name, stage, switches in FULL_TRAININGS
        for marks in [() if (name, stage, switches) in FIRST_FULL_TRAININGS else pytest.mark.soak]
    ],
)
def test_full_training(name, stage, switches, checkpoints, recipe):
    keys = {"shared_prefix": False, **dict.fromkeys(switches, True)}
    # Rows of one image share its activations in the projector; the plan's longest rows may be of different images.
    usage = check(recipe(stage=stage, model=str(checkpoints(name) / "sfe"), **keys), within=0.03).usage
    assert (usage.recomputed > 0) == ("gradient_checkpointing" in switches)
    assert (usage.reference > 0) == (stage == "edpo")


# Every two settings of stage, checkpointing and 4 bits together; `soak` has the other half.
ADAPTED = list(itertools.product((("sfe", "base"), ("edpo", "lora")), (False, True), (False, True)))
FIRST_ADAPTED = [one for one in ADAPTED if (one[0][0] == "edpo") == (one[1] == one[2])]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "model", "gradient_checkpointing", "load_in_4bit"),
    [
        pytest.param(*stage_and_model, checkpointing, four_bit, marks=marks)
        for stage_and_model, checkpointing, four_bit in ADAPTED
        for marks in [() if (stage_and_model, checkpointing, four_bit) in FIRST_ADAPTED else pytest.mark.soak]
    ],
)
def test_adapters(stage, model, gradient_checkpointing, load_in_4bit, checkpoints, recipe):
    if load_in_4bit:
        pytest.importorskip("bitsandbytes")
    keys: dict[str, Any] = {"stage": stage, "model": str(checkpoints("internvl") / model), "bf16": True}
    keys |= {"load_in_4bit": load_in_4bit, "gradient_checkpointing": gradient_checkpointing}
    check(recipe(**keys, lora_r=4))


@pytest.mark.parametrize("stage", ["sfe", "edpo"])
def test_shared_prefixes(stage, checkpoints, recipe):
    keys = {"stage": stage, "model": str(checkpoints("internvl") / "sfe")}
    shared = check(recipe(**keys, shared_prefix=True))
    assert shared.run.batch[0] == 4
    assert shared.usage.activations < plan_memory(recipe(**keys, shared_prefix=False)).usage.activations


def test_the_fullest_batch_of_a_budget_of_tokens(checkpoints, recipe):
    """The trees of all four groups in one batch, whatever the number of rows, or the largest of them alone."""
    keys = {"stage": "edpo", "model": str(checkpoints("internvl") / "sfe"), "per_device_train_batch_size": 1}
    whole = check(recipe(**keys, max_tokens_per_batch=100_000))
    assert whole.run.batch[0] == 4 and whole.steps == 3
    tokens = whole.run.batch[1]
    smallest = plan_memory(recipe(**keys, max_tokens_per_batch=tokens))
    assert smallest.run.batch == (1, tokens) and smallest.steps == 3 * 4
    with pytest.raises(DataError, match=f"max_tokens_per_batch is {tokens - 1}, but group .* has {tokens} tokens"):
        plan_memory(recipe(**keys, max_tokens_per_batch=tokens - 1))


@pytest.mark.parametrize(
    "keys",
    [
        {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2, "num_train_epochs": 2.5},
        {"per_device_train_batch_size": 3, "dataloader_drop_last": True},
        {"max_tokens_per_batch": 500, "gradient_accumulation_steps": 2},
        {"max_steps": 7},
    ],
)
def test_steps_are_those_that_the_trainer_takes(keys, recipe):
    read = recipe(model="tiny", **keys)
    rows = load_rows(read, read.run.split, PairCounts())
    trainer = build_trainer(read.training, build_models(read, weights=False), rows, None)
    *_, expected = trainer.set_initial_training_values(trainer.args, trainer.get_train_dataloader())
    assert training_steps(read.training, trainer.batches_per_epoch()) == expected


@pytest.mark.parametrize("optim", ["sgd", "adafactor", "adamw_8bit", "paged_adamw_32bit", "lion_8bit"])
def test_other_optimizers(optim, checkpoints, recipe):
    if optim not in ("sgd", "adafactor"):
        pytest.importorskip("bitsandbytes")
    check(recipe(model=str(checkpoints("internvl") / "sfe"), optim=optim))


def test_whole_vision_training_and_tied_embeddings(tmp_path, recipe):
    save_stock("qwen2_vl", tmp_path / "tied", tied=True)
    parts = ["vision_encoder", "projector", "fusion", "input_embeddings", "language_model"]
    fusion = {"num_selected_patches": 2, "fusion_num_heads": 2}
    check(recipe(model=str(tmp_path / "tied"), train_parts=parts, **fusion))


def test_parts_are_those_that_training_prints(checkpoints, recipe):
    pytest.importorskip("bitsandbytes")
    keys = {"model": str(checkpoints("internvl") / "base"), "bf16": True, "lora_r": 4}
    whole = {size.part: size for size in plan_memory(recipe(**keys)).part_sizes}
    packed = {size.part: size for size in plan_memory(recipe(**keys, load_in_4bit=True)).part_sizes}
    assert whole == packed
    plain, _ = load_pretrained(checkpoints("internvl") / "sfe")
    text = [p.numel() for name, p in plain.named_parameters() if part_of(plain, name) == "language_model"]
    lora = [(32 + 32) + 2 * (32 + 16) + (32 + 32) + 2 * (32 + 48) + (48 + 32)]  # q, k and v, o, gate and up, down
    assert whole["language_model"].trainable == 2 * 4 * lora[0]
    assert whole["language_model"].parameters == sum(text) + 2 * 4 * lora[0]
    assert whole["vision_encoder"].trainable == 0


def test_recomputed_is_the_largest_layer(checkpoints, recipe):
    keys = {"model": str(checkpoints("internvl") / "sfe")}
    unbroken = plan_memory(recipe(**keys)).usage.activations
    run = plan_memory(recipe(**keys, gradient_checkpointing=True)).run
    checkpointed = run.usage
    assert run.unbroken_activations == pytest.approx(unbroken, rel=1e-5)
    # Two equal layers, of which the first keeps what both share, such as rotary angles.
    assert checkpointed.activations < unbroken
    assert checkpointed.activations + 2 * checkpointed.recomputed == pytest.approx(unbroken, rel=0.1)


def test_copies_of_weights_are_those_that_train_in_layers(checkpoints, recipe):
    keys = {"model": str(checkpoints("internvl") / "sfe"), "bf16": True, "train_parts": ["projector"]}
    plan = plan_memory(recipe(**keys))
    [projector] = [size for size in plan.part_sizes if size.part == "projector"]
    # Its norm and its biases are not copied: autocast leaves norms in fp32, and a bias is not kept for the backward.
    model, _ = load_pretrained(checkpoints("internvl") / "sfe", weights=False)
    weights = sum(one.numel() for one in model.model.multi_modal_projector.parameters() if one.dim() == 2)
    assert projector.trainable > weights
    assert plan.usage.weight_copies >= 2 * weights
    assert plan_memory(recipe(**{**keys, "bf16": False})).usage.weight_copies == 0


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_work_is_that_of_a_real_step(gradient_checkpointing, checkpoints, recipe):
    keys = {"stage": "edpo", "model": str(checkpoints("internvl") / "sfe"), "optim": "sgd"}
    keys["gradient_checkpointing"] = gradient_checkpointing
    # By torch's counter, which goes through a step on real tensors, and knows no attention on the CPU.
    attention = {
        aten._scaled_dot_product_flash_attention_for_cpu: lambda *qkv, **_: sdpa_flop_count(*qkv[:3]),
        aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda *of, **_: sdpa_backward_flop_count(*of[:4]),
    }
    with FlopCounterMode(display=False, custom_mapping=attention) as real:
        train_one_step(recipe(**keys))
    assert plan_memory(recipe(**keys)).run.flops == real.get_total_flops()


def test_an_optimizer_of_unknown_state_is_refused(checkpoints, recipe):
    with pytest.raises(RecipeError, match=r"optim lomo: the size of its state is not known.*\n.*adamw_torch"):
        plan_memory(recipe(model=str(checkpoints("internvl") / "sfe"), optim="lomo"))
