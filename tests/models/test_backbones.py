"""Every backbone: whole loading, mixed batches, generation, training, and what eq. 1 may compare."""

import copy

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForImageTextToText

from sage_trl.models.backbones import BACKBONES
from sage_trl.models.checkpoints import load_pretrained, save_pretrained
from sage_trl.models.encoding import encode_images, encode_prompts
from sage_trl.models.parts import part_of, set_trainable_parts
from sage_trl.trainer.collators import SFECollator
from sage_trl.trainer.entropy_dpo_config import EntropyDPOConfig
from sage_trl.trainer.entropy_dpo_trainer import EntropyDPOTrainer
from sage_trl.trainer.sfe_config import SFEConfig
from sage_trl.trainer.sfe_trainer import SFETrainer
from tests.conftest import assistant, picture, row
from tests.models.stock_checkpoints import BUILDERS, save_stock

ANYRES = ["llava_next", "llava_onevision"]
QWEN = ["qwen2_vl", "qwen2_5_vl"]
FUSION = {"num_selected_patches": 2, "fusion_num_heads": 4}
TRAINING = {
    "per_device_train_batch_size": 2,
    "use_cpu": True,
    "bf16": False,
    "report_to": "none",
    "logging_steps": 1,
    "disable_tqdm": True,
    "save_strategy": "no",
}


def test_every_backbone_has_a_stock_checkpoint_here():
    assert {backbone.base_model_type for backbone in BACKBONES} == set(BUILDERS)


@pytest.fixture(scope="module", params=BUILDERS)
def stock(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp(request.param)
    return directory, save_stock(request.param, directory)


def load(name, directory):
    save_stock(name, directory)
    return load_pretrained(directory, fusion=FUSION)


@pytest.fixture
def loaded(stock):
    return load_pretrained(stock[0], fusion=FUSION)


def mixed_rows():
    """Different sizes and tile counts, one row without a reference, different numbers of facts."""
    return [
        row(0, images=[picture(0, 64, 32)], num_facts=1),
        row(1, reference=False),
        row(2, num_facts=3, reference_image=picture(3, 96, 96)),
        row(3, num_facts=0, images=[picture(4, 96, 96)]),
    ]


def test_a_stock_checkpoint_loads_whole_and_only_the_fusion_is_new(stock, loaded):
    _, plain = stock
    model, processor = loaded
    ours = dict(model.named_parameters())
    for name, parameter in plain.named_parameters():
        assert torch.equal(ours.pop(name), parameter), name
    assert ours
    assert all(name.startswith("model.fusion.") for name in ours)
    batch = encode_prompts(processor, mixed_rows(), facts="none")
    assert torch.equal(model(**batch).logits, plain(**batch).logits)


def test_saved_models_come_back_with_equal_logits_and_through_the_auto_class(loaded, tmp_path):
    model, processor = loaded
    save_pretrained(model, processor, tmp_path)
    again, again_processor = load_pretrained(tmp_path)
    batch = encode_prompts(again_processor, mixed_rows())
    expected = model(**encode_prompts(processor, mixed_rows())).logits
    assert torch.equal(again(**batch).logits, expected)
    automatic = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert type(automatic) is type(model)
    assert torch.equal(automatic(**batch).logits, expected)


def test_rows_in_a_mixed_batch_answer_as_they_do_alone(loaded):
    model, processor = loaded
    together = model(**encode_prompts(processor, mixed_rows()), logits_to_keep=1).logits
    for index, one in enumerate(mixed_rows()):
        alone = model(**encode_prompts(processor, [one]), logits_to_keep=1).logits
        assert torch.allclose(alone[0], together[index], atol=1e-5)


@pytest.mark.parametrize("facts", ["fusion", "hard", "none"])
def test_cached_and_uncached_generation_agree_token_for_token(loaded, facts):
    model, processor = loaded
    batch = encode_prompts(processor, mixed_rows(), facts=facts)
    # A random model may write an image token, which without a cache would be taken for an image of the prompt.
    options = {"max_new_tokens": 6, "do_sample": False, "suppress_tokens": [model.config.image_token_id]}
    answers = [model.generate(**batch, **options, use_cache=cache) for cache in (True, False)]
    assert answers[0].tolist() == answers[1].tolist()


def test_several_replies_to_a_row_see_its_own_reference(loaded):
    model, processor = loaded
    batch = encode_prompts(processor, mixed_rows())
    options = {"max_new_tokens": 3, "suppress_tokens": [model.config.image_token_id]}
    greedy = model.generate(**batch, do_sample=False, **options)
    sampled = model.generate(**batch, do_sample=True, top_k=1, num_return_sequences=2, **options)
    assert sampled.tolist() == greedy.repeat_interleave(2, dim=0).tolist()


@pytest.mark.parametrize("changed", ["images", "reference_image", "facts"])
def test_image_reference_and_facts_all_reach_the_answer(loaded, changed):
    model, processor = loaded
    new = {"images": [picture(7)], "reference_image": picture(8), "facts": ["Other words altogether."] * 2}
    before = model(**encode_prompts(processor, [row(0)])).logits[:, -1]
    after = model(**encode_prompts(processor, [row(0, **{changed: new[changed]})])).logits[:, -1]
    assert not torch.allclose(before, after, atol=1e-5)


def test_with_a_reference_in_the_prompt_the_test_image_is_the_last(loaded):
    model, processor = loaded
    rows = [row(0, images=[picture(0, 64, 32)]), row(1, reference=False)]
    batch = encode_prompts(processor, rows, reference_in_prompt=True)
    inner = model.model
    features = inner._encode_images(batch).pooler_output
    extra = {name: batch[name] for name in ("test_num_tiles", *inner.test_image_inputs) if name in batch}
    patches = inner.split_test_images(batch["input_ids"], features, **extra)
    # A second encoding of the test images alone; LLaVA-OneVision cuts only an image that is alone into tiles.
    is_whole = "batch_num_images" in batch
    for index, one in enumerate(rows):
        if index == 0 and is_whole:
            # 64 x 32 in the middle of four lines of 16 pixels: the second and the third line.
            _, packed, _ = features
            assert torch.equal(patches[0], packed[4:12])
            continue
        images = encode_images(processor, one["images"])
        companions = {"num_tiles": images["num_tiles"]} if "num_tiles" in images else {}
        alone = inner.split_images(inner._encode_images(images).pooler_output, **companions)[0]
        assert torch.allclose(patches[index], alone, atol=1e-5)


@pytest.mark.parametrize("name", ANYRES)
@pytest.mark.parametrize(("width", "height"), [(64, 32), (50, 64), (96, 96)])
def test_neither_thumbnail_nor_newlines_are_compared(name, width, height, tmp_path):
    model, processor = load(name, tmp_path)
    inner = model.model
    images = encode_images(processor, [picture(0, width, height)])
    packed = inner._encode_images(images).pooler_output[0]
    compared = inner.comparable_patches(packed)
    with torch.no_grad():
        inner.image_newline.fill_(1e6)
    marked = inner._encode_images(images).pooler_output[0]
    is_newline = (marked == 1e6).all(dim=-1)
    assert is_newline.sum() > 0
    thumbnail = 16
    assert torch.equal(compared, packed[thumbnail:][~is_newline[thumbnail:]])


@pytest.mark.parametrize("name", QWEN)
def test_rotary_positions_count_images_in_three_axes_and_facts_as_text(name, tmp_path):
    model, processor = load(name, tmp_path)
    batch = encode_prompts(processor, [row(0, images=[picture(0, 64, 32)], num_facts=2)])
    seen = {}
    hook = model.model.language_model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.update(kwargs), with_kwargs=True
    )
    model(**batch)
    hook.remove()
    # By hand: text advances all axes by one; an image of h x w merged patches spans rows and columns from where it
    # starts, and the text after it goes on at start + max(h, w).
    _, height, width = (batch["image_grid_thw"][0] // torch.tensor([1, 2, 2])).tolist()
    expected, position, patch = [], 0, 0
    for token in batch["input_ids"][0].tolist():
        if token == model.config.image_token_id:
            expected.append([position, position + patch // width, position + patch % width])
            patch += 1
            if patch == height * width:
                position += max(height, width)
        else:
            expected.append([position] * 3)
            position += 1
    assert seen["position_ids"][-3:, 0].T.tolist() == expected
    assert (batch["input_ids"] == model.config.fact_token_id).sum() == 2


def test_an_answer_that_a_template_begins_otherwise_than_it_asks_for_one(loaded):
    _, processor = loaded
    template = processor.chat_template
    processor.chat_template = template.replace("{{ message['role'] }}\n", "{{ message['role'] + ' ' }}\n")
    batch = SFECollator(processor)([row(0, completion=assistant("Yes."))])
    learnt = processor.tokenizer.decode(batch["labels"][0][batch["labels"][0] != -100])
    assert learnt.startswith("Yes.") or template == processor.chat_template


@pytest.mark.parametrize("name", ANYRES[:1])
def test_a_template_without_special_tokens_still_gets_a_start_and_an_end(name, tmp_path):
    _, processor = load(name, tmp_path)
    batch = SFECollator(processor)([row(0, completion=assistant("Yes."))])
    tokenizer = processor.tokenizer
    assert batch["input_ids"][0, 0] == tokenizer.bos_token_id
    assert batch["input_ids"][0, -1] == tokenizer.eos_token_id == batch["labels"][0, -1]


@pytest.mark.parametrize("name", BUILDERS)
def test_a_head_tied_to_the_embeddings_stays_tied_and_belongs_to_them(name, tmp_path):
    plain = save_stock(name, tmp_path, tied=True)
    model, processor = load_pretrained(tmp_path, fusion=FUSION)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert torch.equal(model.lm_head.weight, plain.lm_head.weight)
    sizes = {size.part: size for size in set_trainable_parts(model, ["language_model"])}
    assert not model.lm_head.weight.requires_grad
    assert sizes["input_embeddings"].parameters == model.lm_head.weight.numel()
    save_pretrained(model, processor, tmp_path / "saved")
    again, _ = load_pretrained(tmp_path / "saved")
    assert again.lm_head.weight is again.get_input_embeddings().weight


def training_rows():
    return [
        {**one, "completion": assistant(answer)}
        for one, answer in zip(mixed_rows()[:2], ("Yes, there is a scratch.", "No, nothing is wrong."), strict=True)
    ]


def moved_parts(model, before):
    return {part_of(model, name) for name, value in model.named_parameters() if not torch.equal(before[name], value)}


def snapshot(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def test_stage_one_learns_a_tiny_set_by_heart_and_freezes_the_rest(loaded, tmp_path):
    model, processor = loaded
    before = snapshot(model)
    args = SFEConfig(str(tmp_path), max_steps=30, learning_rate=1e-2, lr_scheduler_type="constant", **TRAINING)
    trainer = SFETrainer(model, args, train_dataset=Dataset.from_list(training_rows()), processing_class=processor)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 30
    assert losses[-1] < losses[0] / 10
    assert moved_parts(model, before) == {"projector", "fusion", "language_model"}
    model.eval()
    save_pretrained(model, processor, tmp_path / "saved")
    again, _ = load_pretrained(tmp_path / "saved")
    batch = encode_prompts(processor, mixed_rows())
    assert torch.allclose(again(**batch).logits, model(**batch).logits, atol=1e-5)


def test_stage_two_trains_projector_and_language_model(loaded, tmp_path):
    model, processor = loaded
    reference = copy.deepcopy(model)
    before = snapshot(model)
    rows = [
        {**one, "chosen": one["completion"], "rejected": assistant("No."), "delta_entropy": 0.1, "pair_kind": "min"}
        for one in training_rows()
    ]
    trainer = EntropyDPOTrainer(
        model,
        reference,
        EntropyDPOConfig(str(tmp_path), max_steps=2, learning_rate=1e-2, **TRAINING),
        train_dataset=Dataset.from_list([{k: v for k, v in one.items() if k != "completion"} for one in rows]),
        processing_class=processor,
    )
    trainer.train()
    assert moved_parts(model, before) == {"projector", "language_model"}
    first = next(entry for entry in trainer.state.log_history if "rewards/margins" in entry)
    assert first["rewards/margins"] == pytest.approx(0, abs=1e-5)
