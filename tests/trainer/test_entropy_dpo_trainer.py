"""E-DPO against the stock `DPOTrainer` on the same batch, and against numbers derived by hand."""

import copy

import pytest
import torch
from datasets import Dataset
from torch.nn import functional
from trl import DPOConfig, DPOTrainer

from sage_trl.trainer.collators import EntropyDPOCollator
from sage_trl.trainer.entropy_dpo_config import EntropyDPOConfig
from sage_trl.trainer.entropy_dpo_trainer import EntropyDPOTrainer
from sage_trl.trainer.fact_trainer import keep_images_encoded
from tests.conftest import assistant, row

COMMON = {
    "per_device_train_batch_size": 4,
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "max_length": None,
    "report_to": "none",
    "logging_steps": 1,
    "learning_rate": 1e-2,
    "beta": 0.3,
    "disable_tqdm": True,
    "save_strategy": "no",
}
DELTAS, KINDS = (0.02, 0.3, 0.11), ("min", "max", "max")


def pair_rows():
    return [
        row(
            index,
            reference=index != 1,
            # Short, because the fused head sums log-probabilities in fp32 and the numbers by hand are in float64.
            chosen=assistant("Yes, a scratch."),
            rejected=assistant("No" + " way" * index + "."),
            delta_entropy=delta,
            pair_kind=kind,
        )
        for index, (delta, kind) in enumerate(zip(DELTAS, KINDS, strict=True))
    ]


def make_trainer(tiny, tmp_path, trainer_class=EntropyDPOTrainer, config_class=EntropyDPOConfig, **options):
    model, processor = tiny
    reference = copy.deepcopy(model)
    with torch.no_grad():
        # Policy and reference must differ, or the reference could be left out unnoticed.
        generator = torch.Generator().manual_seed(5)
        for parameter in model.lm_head.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return trainer_class(
        model=model,
        ref_model=reference,
        args=config_class(output_dir=str(tmp_path), **{**COMMON, **options}),
        train_dataset=Dataset.from_list(pair_rows()),
        processing_class=processor,
    )


@pytest.fixture
def batch(tiny):
    return EntropyDPOCollator(tiny[1])(pair_rows())


def loss_and_gradient(trainer, batch):
    trainer.model.zero_grad()
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, dict(batch))
    loss.backward()
    gradients = [p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None]
    return loss.item(), torch.cat(gradients)


def logps_by_hand(model, batch):
    """Summed log-probabilities of the completions from the plain logits, in float64."""
    inputs = {k: v for k, v in batch.items() if k not in ("completion_mask", "delta_entropy", "pair_kind")}
    logits = model(**inputs).logits[:, :-1].double()
    chosen = logits.log_softmax(-1).gather(-1, batch["input_ids"][:, 1:, None]).squeeze(-1)
    return (chosen * batch["completion_mask"][:, 1:]).sum(dim=1).chunk(2)


def loss_by_hand(trainer, batch, *, eta, beta):
    chosen, rejected = logps_by_hand(trainer.model, batch)
    with torch.no_grad():
        ref_chosen, ref_rejected = logps_by_hand(trainer.ref_model, batch)
    margin = beta * ((chosen - ref_chosen) - (rejected - ref_rejected))
    return -functional.logsigmoid(margin - eta * torch.tensor(DELTAS, dtype=torch.float64)).mean()


def assert_same_gradient(one, other):
    assert functional.cosine_similarity(one.double(), other.double(), dim=0).item() > 0.999999
    assert one.norm().item() == pytest.approx(other.norm().item(), rel=1e-5)


def test_without_bias_loss_and_gradients_are_those_of_the_stock_trainer(tiny, tmp_path, batch):
    ours = make_trainer(copy.deepcopy(tiny), tmp_path, eta=0.0)
    stock = make_trainer(copy.deepcopy(tiny), tmp_path, DPOTrainer, DPOConfig)
    # The stock trainer hands every key it does not know to the model, and trains every part.
    known = {key: value for key, value in batch.items() if key not in ("delta_entropy", "pair_kind")}
    for name, parameter in stock.model.named_parameters():
        parameter.requires_grad_(ours.model.get_parameter(name).requires_grad)
    loss, gradient = loss_and_gradient(ours, batch)
    stock_loss, stock_gradient = loss_and_gradient(stock, known)
    assert loss == pytest.approx(stock_loss, rel=1e-6)
    assert_same_gradient(gradient, stock_gradient)
    shared = set(stock._metrics["train"])
    assert shared <= set(ours._metrics["train"])
    for name in shared:
        assert ours._metrics["train"][name] == pytest.approx(stock._metrics["train"][name], rel=1e-5), name


def test_with_bias_loss_and_gradients_are_the_hand_derived_ones(tiny, tmp_path, batch):
    trainer = make_trainer(tiny, tmp_path, eta=2.0)
    loss, gradient = loss_and_gradient(trainer, batch)
    trainer.model.zero_grad()
    expected = loss_by_hand(trainer, batch, eta=2.0, beta=0.3)
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-6)
    assert_same_gradient(
        gradient, torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None])
    )


def test_the_paper_s_objective_with_its_kl_is_the_hand_derived_one(tiny, tmp_path, batch):
    trainer = make_trainer(tiny, tmp_path, eta=2.0, objective="paper", kl_coef=0.7)
    loss, gradient = loss_and_gradient(trainer, batch)
    trainer.model.zero_grad()
    chosen, rejected = logps_by_hand(trainer.model, batch)
    bias = 2.0 * torch.tensor(DELTAS, dtype=torch.float64)
    inputs = {k: v for k, v in batch.items() if k not in ("completion_mask", "delta_entropy", "pair_kind")}
    per_token = []
    for model in (trainer.model, trainer.ref_model):
        log_probs = model(**inputs).logits[:, :-1].double().log_softmax(-1)
        per_token.append(log_probs.gather(-1, batch["input_ids"][:, 1:, None]).squeeze(-1))
    ratio = per_token[1].detach() - per_token[0]
    kl = (ratio.exp() - 1 - ratio)[batch["completion_mask"][:, 1:].bool()].mean()
    expected = -functional.logsigmoid(chosen - rejected - bias).mean() + 0.7 * kl
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-6)
    assert_same_gradient(
        gradient, torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None])
    )
    assert trainer._metrics["train"]["kl"] == pytest.approx([kl.item()], rel=1e-5)


def test_metrics_of_the_bias_and_of_both_kinds_of_pairs(tiny, tmp_path, batch):
    trainer = make_trainer(tiny, tmp_path, eta=2.0)
    loss_and_gradient(trainer, batch)
    logged = {name: values[0] for name, values in trainer._metrics["train"].items()}
    chosen, rejected = logps_by_hand(trainer.model, batch)
    ref_chosen, ref_rejected = logps_by_hand(trainer.ref_model, batch)
    margins = (0.3 * ((chosen - ref_chosen) - (rejected - ref_rejected))).tolist()
    assert logged["delta_entropy/mean"] == pytest.approx(sum(DELTAS) / 3)
    assert logged["delta_entropy/bias"] == pytest.approx(2 * sum(DELTAS) / 3)
    assert logged["rewards/margins_min_pairs"] == pytest.approx(margins[0], rel=1e-4)
    assert logged["rewards/margins_max_pairs"] == pytest.approx((margins[1] + margins[2]) / 2, rel=1e-4)


def test_training_moves_projector_and_language_model_only(tiny, tmp_path):
    trainer = make_trainer(tiny, tmp_path, max_steps=2)
    before = {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}
    trainer.train()
    moved = {name for name, parameter in trainer.model.named_parameters() if not torch.equal(before[name], parameter)}
    assert any(name.startswith("model.multi_modal_projector.") for name in moved)
    assert any(name.startswith("model.language_model.layers.") for name in moved)
    assert "lm_head.weight" in moved
    frozen = ("model.vision_tower.", "model.fusion.", "model.language_model.embed_tokens.")
    assert not [name for name in moved if name.startswith(frozen)]
    assert not any(parameter.requires_grad for parameter in trainer.ref_model.parameters())


def test_an_unknown_batch_key_is_refused(tiny, tmp_path, batch):
    trainer = make_trainer(tiny, tmp_path)
    with pytest.raises(ValueError, match="refrence_mask"):
        trainer.compute_loss(trainer.model, {**batch, "refrence_mask": batch["reference_mask"]})


def test_predict_returns_the_logits(tiny, tmp_path):
    trainer = make_trainer(tiny, tmp_path)
    predicted = trainer.predict(keep_images_encoded(Dataset.from_list(pair_rows())))
    batch = EntropyDPOCollator(trainer.processing_class)(pair_rows())
    # The `Trainer` cuts what it gathers to the number of rows, which leaves the chosen answers, as with TRL.
    length = batch["input_ids"].shape[1]
    assert predicted.predictions.shape == (len(DELTAS), length, trainer.model.config.text_config.vocab_size)
    assert predicted.metrics["test_loss"] > 0


def test_a_missing_reference_model_or_a_foreign_model_is_refused(tiny, tmp_path):
    args = EntropyDPOConfig(output_dir=str(tmp_path), **COMMON)
    with pytest.raises(ValueError, match="ref_model"):
        EntropyDPOTrainer(tiny[0], args=args)
    with pytest.raises(ValueError, match="Linear is no fact-enhanced model"):
        EntropyDPOTrainer(torch.nn.Linear(1, 1), tiny[0], args)


@pytest.mark.parametrize(
    "option",
    [
        *(
            {"loss_type": ["aot"]},
            {"loss_type": ["ipo"], "objective": "paper"},
            {"ld_alpha": 0.5},
            {"use_weighting": True},
            {"eta": -1.0},
            {"beta": 0.0},
        ),
        *({"label_smoothing": 0.1}, {"label_smoothing_factor": 0.1}),
        *({"loss_weights": [1.0]}, {"max_length": 64}),
    ],
)
def test_options_without_meaning_beside_an_offset_are_refused(tmp_path, option):
    with pytest.raises(ValueError, match=next(iter(option))):
        EntropyDPOConfig(output_dir=str(tmp_path), **{**COMMON, **option})
