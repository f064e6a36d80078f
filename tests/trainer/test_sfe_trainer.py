"""Stage 1: what trains, what the loss covers, and the fusion's own learning rate."""

import pytest
import torch
from datasets import Dataset
from torch.nn import functional

from sage_trl.errors import DataError, DivergedError
from sage_trl.models.prompt import question_messages
from sage_trl.storage import read_json
from sage_trl.trainer.fact_trainer import keep_images_encoded
from sage_trl.trainer.sfe_config import SFEConfig
from sage_trl.trainer.sfe_trainer import SFETrainer
from tests.conftest import assistant, row


def rows():
    return [
        row(index, reference=index != 1, completion=assistant("Yes, there is a scratch" + " here" * index + "."))
        for index in range(4)
    ]


def make_trainer(tiny, tmp_path, **options):
    settings = {
        "per_device_train_batch_size": 4,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
        "logging_steps": 1,
        "learning_rate": 1e-2,
        "max_steps": 2,
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    args = SFEConfig(output_dir=str(tmp_path), **{**settings, **options})
    return SFETrainer(tiny[0], args, train_dataset=Dataset.from_list(rows()), processing_class=tiny[1])


def test_rows_given_to_evaluate_are_decoded_by_the_collator_alone(tiny, tmp_path):
    trainer = make_trainer(tiny, tmp_path)
    given = Dataset.from_list(rows())
    assert given.features["reference_image"].decode
    for loader in (trainer.get_eval_dataloader(given), trainer.get_test_dataloader(given)):
        assert not loader.dataset.features["reference_image"].decode
    assert trainer.evaluate(given)["eval_loss"] > 0


def test_projector_fusion_and_language_model_move_and_the_vision_encoder_does_not(tiny, tmp_path):
    trainer = make_trainer(tiny, tmp_path)
    before = {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}
    trainer.train()
    moved = {name for name, parameter in trainer.model.named_parameters() if not torch.equal(before[name], parameter)}
    for part in ("model.multi_modal_projector.", "model.fusion.", "model.language_model.layers.", "lm_head."):
        assert any(name.startswith(part) for name in moved), part
    frozen = ("model.vision_tower.", "model.language_model.embed_tokens.")
    assert not [name for name in moved if name.startswith(frozen)]


def test_the_loss_is_the_mean_over_answer_tokens(tiny, tmp_path):
    trainer = make_trainer(tiny, tmp_path, shared_prefix=False)
    batch = trainer.data_collator(rows())
    loss = trainer.compute_loss(trainer.model, dict(batch)).item()
    labels = batch["labels"]
    logits = trainer.model(**{key: value for key, value in batch.items() if key != "labels"}).logits
    expected = functional.cross_entropy(logits[:, :-1].double().flatten(0, 1), labels[:, 1:].flatten())
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    text = trainer.processing_class.tokenizer.decode(labels[2][labels[2] != -100])
    assert text == "Yes, there is a scratch here here.<|im_end|>\n"


def test_the_fusion_may_have_a_learning_rate_of_its_own(tiny, tmp_path):
    trainer = make_trainer(tiny, tmp_path, fusion_learning_rate=0.5, learning_rate=1e-3)
    trainer.create_optimizer()
    rates = {}
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    for group in trainer.optimizer.param_groups:
        for parameter in group["params"]:
            rates[names[id(parameter)]] = group["lr"]
    assert {rate for name, rate in rates.items() if name.startswith("model.fusion.")} == {0.5}
    assert {rate for name, rate in rates.items() if not name.startswith("model.fusion.")} == {1e-3}
    assert set(rates) == {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}


def test_reference_dropout_hides_the_same_questions_every_time(tiny, tmp_path):
    trainer = make_trainer(tiny, tmp_path, reference_dropout=0.5)
    many = [row(0, group_id=f"g{index}") for index in range(400)]
    hidden = [trainer.data_collator.hides_reference(one) for one in many]
    assert hidden == [trainer.data_collator.hides_reference(one) for one in many]
    assert 0.4 < sum(hidden) / 400 < 0.6
    trainer.data_collator.seed += 1
    assert hidden != [trainer.data_collator.hides_reference(one) for one in many]


def test_the_saved_model_says_how_it_wants_to_be_prompted(tiny, tmp_path):
    trainer = make_trainer(tiny, tmp_path)
    trainer.save_model()
    note = read_json(tmp_path / "sage_inference.json")
    assert note == {"facts": "fusion", "reference_in_prompt": False, "stage": "sfe"}


def test_unknown_parts_are_refused(tiny, tmp_path):
    with pytest.raises(ValueError, match="fusionn"):
        make_trainer(tiny, tmp_path, train_parts=["fusionn"])


def test_rows_without_facts_are_refused_where_facts_are_to_be_fused(tiny, tmp_path):
    trainer = make_trainer(tiny, tmp_path)
    bare = {**rows()[0], "facts": []}
    with pytest.raises(DataError, match="g0/q1 has no facts"):
        trainer.data_collator([bare])
    plain = make_trainer(tiny, tmp_path, facts="none")
    assert "fact_input_ids" not in plain.data_collator([bare])


@pytest.mark.parametrize("text", ["Is <fact> here?", "What does <IMG_CONTEXT> show?"])
def test_placeholders_in_a_question_are_refused(tiny, tmp_path, text):
    trainer = make_trainer(tiny, tmp_path)
    with pytest.raises(DataError, match=r"question g0/q1.*stands for a fact, an image or a video"):
        trainer.data_collator([{**rows()[0], "prompt": question_messages(text)}])


def test_validation_shows_every_reference(tiny, tmp_path):
    trainer = make_trainer(tiny, tmp_path, reference_dropout=1.0)
    validation = Dataset.from_list(rows())
    seen = [batch["reference_mask"].tolist() for batch in trainer.get_eval_dataloader(keep_images_encoded(validation))]
    assert [shown for masks in seen for shown in masks] == [True, False, True, True]  # the second row has none
    assert not trainer.data_collator(rows())["reference_mask"].any()


def test_a_loss_that_is_not_finite_ends_the_run(tiny, tmp_path):
    trainer = make_trainer(tiny, tmp_path, learning_rate=1e38, max_grad_norm=1e38, max_steps=20)
    with pytest.raises(DivergedError, match="the loss of step"):
        trainer.train()
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize(
    "option",
    [
        *({"max_length": 20}, {"packing": True}, {"completion_only_loss": False}, {"pad_to_multiple_of": 64}),
        *({"reference_dropout": 7.0}, {"train_parts": ["fussion"]}, {"train_parts": []}),
    ],
)
def test_options_that_would_do_nothing_are_refused(tmp_path, option):
    with pytest.raises(ValueError, match=next(iter(option))):
        SFEConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, **option)


def test_label_smoothing_is_for_rows_alone(tmp_path):
    options = {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False, "label_smoothing_factor": 0.1}
    with pytest.raises(ValueError, match=r"label_smoothing_factor is 0.1; it shifts labels.*set shared_prefix: false"):
        SFEConfig(**options)
    assert SFEConfig(**options, shared_prefix=False).label_smoothing_factor == 0.1
