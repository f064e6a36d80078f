"""Trees against stock TRL on the same pairs: loss, gradients and metrics, for every backbone."""

import copy
from dataclasses import replace

import pytest
import torch
from datasets import Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn import functional
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from sage_trl.models.adapters import add_lora
from sage_trl.models.checkpoints import load_pretrained
from sage_trl.models.prompt import question_messages
from sage_trl.trainer.collators import EntropyDPOCollator, SFECollator
from sage_trl.trainer.entropy_dpo_config import EntropyDPOConfig
from sage_trl.trainer.entropy_dpo_trainer import EntropyDPOTrainer
from sage_trl.trainer.sfe_config import SFEConfig
from sage_trl.trainer.sfe_trainer import SFETrainer
from tests.conftest import assistant, picture, row
from tests.models.stock_checkpoints import BUILDERS, save_stock

COMMON = {
    "per_device_train_batch_size": 4,
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "report_to": "none",
    "disable_tqdm": True,
    "save_strategy": "no",
}
QUESTIONS = (
    "Is there a scratch on this plate?",
    "Does the plate match the reference, or is there something wrong with it?",
    "Is there a stain on this plate?",
)
ANSWERS = ("Yes, there is a scratch on the left.", "Yes.", "No, nothing is wrong.", "No.")


def group(number, questions, *, pairs=2, **columns):
    """Preference rows of one group: `questions` questions with one or two pairs each, which share an answer."""
    rows = []
    for index in range(questions):
        question = QUESTIONS[index % len(QUESTIONS)] + " Really?" * (index // len(QUESTIONS))
        for winner, loser, kind in ((0, 3, "max"), (0, 1 + index % 2, "min"))[:pairs]:
            rows.append(
                row(
                    number,
                    **columns,
                    prompt=question_messages(question),
                    question_id=f"q{index}",
                    chosen=assistant(ANSWERS[winner]),
                    rejected=assistant(ANSWERS[loser] + " Far" * index),
                    delta_entropy=0.1 * (index + 1),
                    pair_kind=kind,
                )
            )
    return rows


def mixed_groups():
    """Four trees: unequal sizes and lengths, one without a reference, two that show the same image."""
    wide = {"images": [picture(1, 64, 32)]}
    return [
        *group(0, 3),
        *group(1, 1, reference=False, **wide),
        *group(2, 2, pairs=1, num_facts=1),
        *group(3, 1, num_facts=1, reference_image=picture(100), **wide),
    ]


def load(name, directory, **options):
    """A policy, and a reference that differs from it: else it could be left out unnoticed."""
    save_stock(name, directory)
    settings = {"num_selected_patches": 2, "fusion_num_heads": 4}
    policy, processor = load_pretrained(directory, fusion=settings, **options)
    reference = copy.deepcopy(policy)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        policy.lm_head.weight.add_(0.05 * torch.randn(policy.lm_head.weight.shape, generator=generator))
    return policy, reference, processor


def loss_and_gradients(trainer, batch):
    model, args = trainer.model, trainer.args
    model.train()
    if args.gradient_checkpointing:
        # `Trainer.train` does so, and these steps are not taken through it.
        model.activation_checkpointing_enable(args.gradient_checkpointing_kwargs)
    calls = []
    # transformers checkpoints what a layer's hooks surround; those of a module inside it are called again.
    attention = model.get_decoder().layers[0].self_attn
    hook = attention.register_forward_pre_hook(lambda *_: calls.append(1))
    loss = trainer.compute_loss(model, dict(batch))
    forward_calls = len(calls)
    loss.backward()
    hook.remove()
    # A checkpointed layer runs once more in the backward.
    assert len(calls) == forward_calls + args.gradient_checkpointing
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    metrics = {name: values[-1] for name, values in trainer._metrics["train"].items()}
    return loss.item(), gradients, metrics


def assert_equal_steps(ours, stock):
    loss, gradients, metrics = ours
    stock_loss, stock_gradients, stock_metrics = stock
    assert loss == pytest.approx(stock_loss, rel=1e-5)
    assert gradients.keys() == stock_gradients.keys()
    one, other = (torch.cat([g[name].flatten() for name in gradients]).double() for g in (gradients, stock_gradients))
    assert functional.cosine_similarity(one, other, dim=0).item() > 0.99999
    assert one.norm().item() == pytest.approx(other.norm().item(), rel=1e-5)
    for name, value in stock_metrics.items():
        if name != "num_tokens":
            assert metrics[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name


def stock_dpo_step(policy, reference, processor, rows, trained, directory, *, move=None, **options):
    """The stock trainer on the same pairs, row by row, with the same parameters trained; `move` moves the policy."""
    batch = EntropyDPOCollator(processor)(rows)
    known = {key: value for key, value in batch.items() if key not in ("delta_entropy", "pair_kind")}
    args = DPOConfig(str(directory), max_length=None, **{**COMMON, **options})
    trainer = DPOTrainer(
        copy.deepcopy(policy),
        copy.deepcopy(reference),
        args,
        train_dataset=Dataset.from_list(rows),
        processing_class=processor,
    )
    for name, parameter in trainer.model.named_parameters():
        parameter.requires_grad_(trained[name])
    if move:
        move(trainer.model)
    return loss_and_gradients(trainer, known)


def tree_dpo_step(policy, reference, processor, rows, directory, *, move=None, **options):
    args = EntropyDPOConfig(str(directory), eta=0.0, reference_dropout=0.0, **{**COMMON, **options})
    model = copy.deepcopy(policy)
    trainer = EntropyDPOTrainer(
        model, copy.deepcopy(reference), args, train_dataset=Dataset.from_list(rows), processing_class=processor
    )
    batch = trainer.data_collator(rows)
    assert "tree_spans" in batch
    trained = {name: parameter.requires_grad for name, parameter in trainer.model.named_parameters()}
    if move:
        move(trainer.model)
    return loss_and_gradients(trainer, batch), trained, batch


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize(
    ("attention", "form", "checkpointing"), [("sdpa", "split", True), ("sdpa", "dense", False), ("eager", "auto", True)]
)
def test_e_dpo_on_trees_is_the_stock_trainer_s_step(name, attention, form, checkpointing, tmp_path):
    policy, reference, processor = load(name, tmp_path, attn_implementation=attention)
    rows, options = mixed_groups(), {"beta": 0.3}
    ours, trained, batch = tree_dpo_step(
        policy,
        reference,
        processor,
        rows,
        tmp_path,
        tree_attention=form,
        gradient_checkpointing=checkpointing,
        **options,
    )
    stock = stock_dpo_step(policy, reference, processor, rows, trained, tmp_path, **options)
    assert_equal_steps(ours, stock)
    # One tree per pair of images, an answer of two pairs once, fewer tokens than row by row.
    assert len(batch["input_ids"]) == 4
    assert len(set(batch["leaf_ids"].flatten().tolist()) - {-1}) == 3 * 3 + 3 + 2 * 2 + 3
    # Two trees show the same wide image, two the same reference.
    assert batch["image_index"].tolist() == [0, 1, 2, 1]
    assert batch["reference_image_index"].tolist() == [0, 1, 0]
    assert ours[2]["num_tokens"] < stock[2]["num_tokens"] / 2
    # The head scores what has a label, and nothing of images and questions.
    assert batch["scored_positions"].shape == batch["shift_labels"].shape
    assert batch["shift_labels"].shape[1] == max((batch["shift_labels"] != -100).sum(dim=1))


@pytest.mark.parametrize("loss_type", ["hinge", "ipo", "robust", "sigmoid_norm"])
def test_every_loss_on_the_margin_is_the_stock_trainer_s(loss_type, tmp_path):
    policy, reference, processor = load("internvl", tmp_path)
    smoothing = {"label_smoothing": 0.2} if loss_type == "robust" else {}
    options = {"beta": 0.3, "loss_type": [loss_type], **smoothing}
    ours, trained, _ = tree_dpo_step(policy, reference, processor, mixed_groups(), tmp_path, **options)
    assert_equal_steps(ours, stock_dpo_step(policy, reference, processor, mixed_groups(), trained, tmp_path, **options))


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize(("facts", "checkpointing"), [("fusion", True), ("hard", False), ("none", True)])
def test_sfe_on_trees_is_the_stock_trainer_s_step(name, facts, checkpointing, tmp_path):
    policy, _, processor = load(name, tmp_path)
    rows = [{**one, "completion": one["rejected"]} for one in mixed_groups()]
    # The same answer in two rows counts twice.
    rows.append(rows[0])
    dataset = Dataset.from_list(rows)
    options = {**COMMON, "gradient_checkpointing": checkpointing}
    args = SFEConfig(str(tmp_path), facts=facts, reference_dropout=0.0, **options)
    trainer = SFETrainer(copy.deepcopy(policy), args, train_dataset=dataset, processing_class=processor)
    batch = trainer.data_collator(rows)
    assert "tree_spans" in batch
    ours = loss_and_gradients(trainer, batch)
    stock = SFTTrainer(
        copy.deepcopy(policy),
        SFTConfig(str(tmp_path), max_length=None, **COMMON),
        train_dataset=dataset,
        processing_class=processor,
    )
    for key, parameter in stock.model.named_parameters():
        parameter.requires_grad_(trainer.model.get_parameter(key).requires_grad)
    plain = SFECollator(processor, facts=facts)(rows)
    assert_equal_steps(ours, loss_and_gradients(stock, plain))
    # The `Trainer` normalises by the labels it counts.
    assert (batch["labels"] != -100).sum() == (plain["labels"] != -100).sum()


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("facts", ["fusion", "none"])
@pytest.mark.parametrize("shared_prefix", [True, False])
def test_the_vision_tower_sees_each_image_once(name, facts, shared_prefix, tmp_path):
    policy, _, processor = load(name, tmp_path)
    rows = [{**one, "completion": one["chosen"]} for one in mixed_groups()]
    options = {"facts": facts, "shared_prefix": shared_prefix, "reference_dropout": 0.0, **COMMON}
    trainer = SFETrainer(
        policy, SFEConfig(str(tmp_path), **options), train_dataset=Dataset.from_list(rows), processing_class=processor
    )
    seen = []
    encode = policy.model.get_image_features
    policy.model.get_image_features = lambda **inputs: seen.append(len(inputs["pixel_values"])) or encode(**inputs)
    batch = trainer.data_collator(rows)
    once, gradients, metrics = loss_and_gradients(trainer, batch)
    del policy.model.get_image_features
    policy.zero_grad()
    is_same = ("image_index", "image_num_tiles", "reference_image_index")
    every = {name: value for name, value in batch.items() if name not in is_same}
    assert_equal_steps((once, gradients, metrics), loss_and_gradients(trainer, every))
    # Three images and, where facts are fused, the two references behind the three rows or trees that have one.
    pixels = [every["pixel_values"], every["reference_pixel_values"]] if facts == "fusion" else [every["pixel_values"]]
    assert len(seen) == len(pixels)
    for count, of_all in zip(seen, pixels, strict=True):
        assert count < len(of_all)


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("shared_prefix", [True, False])
def test_a_stand_in_for_references_is_seen_and_changes_nothing(name, shared_prefix, tmp_path):
    policy, _, processor = load(name, tmp_path)
    rows = [{**one, "completion": one["chosen"]} for one in group(1, 2, reference=False)]
    options = {"shared_prefix": shared_prefix, "train_parts": ["vision_encoder", "projector", "fusion"], **COMMON}
    trainer = SFETrainer(
        policy, SFEConfig(str(tmp_path), **options), train_dataset=Dataset.from_list(rows), processing_class=processor
    )
    seen, steps = [], []
    encode = policy.model.get_image_features
    policy.model.get_image_features = lambda **inputs: seen.append(len(inputs["pixel_values"])) or encode(**inputs)
    for always in (False, True):
        collator = replace(trainer.data_collator, always_reference=always)
        policy.zero_grad()
        steps.append(loss_and_gradients(trainer, collator(rows)))
    assert len(seen) == 3
    assert_equal_steps(*steps)


def test_a_reference_in_the_prompt_and_earlier_turns(tmp_path):
    policy, _, processor = load("llava_next", tmp_path)
    turns = [(QUESTIONS[0], ANSWERS[0]), (QUESTIONS[1], ANSWERS[2])]
    rows = [
        row(0, prompt=question_messages(QUESTIONS[index], turns[:index]), completion=assistant(ANSWERS[index]))
        for index in range(3)
    ]
    options = {"facts": "none", "reference_in_prompt": True}
    losses = []
    for shared in (True, False):
        args = SFEConfig(str(tmp_path), shared_prefix=shared, reference_dropout=0.0, **options, **COMMON)
        trainer = SFETrainer(
            copy.deepcopy(policy), args, train_dataset=Dataset.from_list(rows), processing_class=processor
        )
        losses.append(loss_and_gradients(trainer, trainer.data_collator(rows)))
    assert_equal_steps(*losses)


@pytest.mark.parametrize("checkpointing", [True, False])
def test_adapters_on_trees_take_the_stock_trainer_s_step(checkpointing, tmp_path):
    policy, _, processor = load("qwen2_vl", tmp_path)
    adapted = add_lora(policy, ["projector", "language_model"], r=4)

    def move_policy(model):
        """So that the frozen adapter is another reference, and every matrix of the policy's gets a gradient."""
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if ".lora_" in name and ".default." in name:
                    parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))

    rows, options = mixed_groups(), {"beta": 0.3, "move": move_policy}
    ours, trained, _ = tree_dpo_step(
        adapted, None, processor, rows, tmp_path, gradient_checkpointing=checkpointing, **options
    )
    assert abs(ours[2]["rewards/margins"]) > 1e-3
    assert all(gradient.any() for name, gradient in ours[1].items() if ".lora_" in name)
    assert_equal_steps(ours, stock_dpo_step(adapted, None, processor, rows, trained, tmp_path, **options))


def test_a_fresh_adapter_s_margins_are_zero(tmp_path):
    policy, _, processor = load("qwen2_vl", tmp_path)
    adapted = add_lora(policy, ["projector", "language_model"], r=4)
    ours, _, _ = tree_dpo_step(adapted, None, processor, mixed_groups(), tmp_path)
    assert ours[2]["rewards/margins"] == pytest.approx(0, abs=1e-5)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.lists(st.tuples(st.integers(1, 7), st.integers(1, 2), st.booleans()), min_size=1, max_size=3),
    form=st.sampled_from(["dense", "split"]),
)
def test_any_groups_give_the_loss_of_rows(shape, form, tmp_path_factory):
    directory = tmp_path_factory.mktemp("any")
    policy, reference, processor = load("internvl", directory)
    rows = [
        one
        for number, (questions, pairs, reference_shown) in enumerate(shape)
        for one in group(number, questions, pairs=pairs, reference=reference_shown)
    ]
    steps = []
    for shared in (True, False):
        args = EntropyDPOConfig(
            str(directory), shared_prefix=shared, tree_attention=form, reference_dropout=0.0, eta=2.0, **COMMON
        )
        trainer = EntropyDPOTrainer(
            copy.deepcopy(policy), reference, args, train_dataset=Dataset.from_list(rows), processing_class=processor
        )
        steps.append(loss_and_gradients(trainer, trainer.data_collator(rows)))
    assert_equal_steps(*steps)


def test_training_sees_whole_groups_and_the_plain_layout_shuffles_rows(tmp_path):
    policy, _, processor = load("internvl", tmp_path)
    rows = [{**one, "completion": one["rejected"]} for number in range(4) for one in group(number, 2)]
    dataset = Dataset.from_list(rows)
    for shared, expected in ((True, 1), (False, None)):
        args = SFEConfig(str(tmp_path), shared_prefix=shared, reference_dropout=0.0, **COMMON)
        trainer = SFETrainer(copy.deepcopy(policy), args, train_dataset=dataset, processing_class=processor)
        batch = next(iter(trainer.get_train_dataloader()))
        assert ("tree_spans" in batch) is shared
        if expected is not None:
            assert len(batch["input_ids"]) == expected


def test_an_attention_that_takes_no_tree_is_refused(tmp_path):
    policy, _, processor = load("internvl", tmp_path)
    batch = SFECollator(processor, shared_prefix=True)([{**group(0, 1)[0], "completion": assistant("Yes.")}])
    policy.config.text_config._attn_implementation_internal = "flash_attention_2"
    with pytest.raises(ValueError, match="flash_attention_2"):
        policy(**{key: value for key, value in batch.items() if "labels" not in key})
