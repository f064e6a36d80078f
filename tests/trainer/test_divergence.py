"""A run that diverges stops before the step, tells the rows, and leaves no checkpoint of what it became."""

from __future__ import annotations

import json
import math

import pytest
import torch
from datasets import Dataset
from transformers import TrainerCallback

from sage_trl.errors import DivergedError
from sage_trl.trainer.sfe_config import SFEConfig
from sage_trl.trainer.sfe_trainer import SFETrainer
from tests.conftest import assistant, row


def make_trainer(tiny, output_dir, **options):
    """A trainer on four rows, one a step, that saves after each, and evaluates on the same where it is to evaluate."""
    model, processor = tiny
    args = SFEConfig(
        output_dir=str(output_dir),
        **{
            **{"per_device_train_batch_size": 1, "max_steps": 4, "learning_rate": 1e-3, "seed": 1},
            **{"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none"},
            **{"logging_steps": 1, "save_strategy": "steps", "save_steps": 1, "disable_tqdm": True},
            **options,
        },
    )
    rows = Dataset.from_list([row(index, completion=assistant("Yes.")) for index in range(4)])
    return SFETrainer(model, args, train_dataset=rows, eval_dataset=rows, processing_class=processor)


class SpoiledRow(TrainerCallback):
    """Makes the weights give a loss, or a gradient, that is no number from a step on."""

    def __init__(self, step, spoil):
        self.step, self.spoil = step, spoil

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        if state.global_step + 1 == self.step:
            self.spoil(model)


def nan_in_the_forward(model):
    model.get_input_embeddings().register_forward_hook(lambda _module, _inputs, output: output * math.nan)


def nan_in_the_backward(model):
    """The loss stays finite: a hook on one weight's gradient alone."""
    weight = next(one for one in model.parameters() if one.requires_grad)
    weight.register_hook(lambda gradient: gradient * math.inf)


def inf_in_a_weight(model):
    """As an update that overflows: the step before was finite."""
    with torch.no_grad():
        next(one for one in model.parameters() if one.requires_grad).view(-1)[0] = math.inf


@pytest.mark.parametrize(
    ("spoil", "said"),
    [(nan_in_the_forward, "the loss of step 3 is nan"), (nan_in_the_backward, "the gradient of step 3 is (nan|inf)")],
)
@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_step_is_not_taken_and_its_rows_are_on_file(tiny, tmp_path, spoil, said, accumulation):
    trainer = make_trainer(tiny, tmp_path, gradient_accumulation_steps=accumulation)
    taken = []
    trainer.add_callback(SpoiledRow(3, spoil))
    trainer.add_callback(Weights(taken))
    with pytest.raises(DivergedError, match=said) as stopped:
        trainer.train()
    assert torch.equal(taken[-1], weights(trainer.model)) and len(taken) == 2
    assert {path.name for path in tmp_path.glob("checkpoint-*")} == {"checkpoint-1", "checkpoint-2"}
    told = json.loads((tmp_path / "diverged-step-3.json").read_text())
    assert str(tmp_path / "diverged-step-3.json") in str(stopped.value)
    [process] = told["processes"]
    order = [index for epoch in (0, 1) for index in trainer_order(trainer, epoch)]
    expected = [f"g{index}/q1" for index in order[2 * accumulation : 3 * accumulation]]
    assert [batch["rows"] for batch in process["batches"]] == [[name] for name in expected]


def trainer_order(trainer, epoch):
    sampler = trainer._get_train_sampler()
    sampler.set_epoch(epoch)
    return list(sampler)


def weights(model):
    return torch.cat([one.detach().flatten() for one in model.parameters() if one.requires_grad])


class Weights(TrainerCallback):
    """The weights after every step."""

    def __init__(self, taken):
        self.taken = taken

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.taken.append(weights(model))


class SpoiledAfterStep(TrainerCallback):
    """Spoils the weights between a step and its checkpoint."""

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step == 2:
            inf_in_a_weight(model)


def test_weights_that_are_not_finite_are_not_saved(tiny, tmp_path):
    trainer = make_trainer(tiny, tmp_path)
    trainer.add_callback(SpoiledAfterStep())
    with pytest.raises(DivergedError, match=r"after step 2 .* is not finite, and is not saved"):
        trainer.train()
    assert {path.name for path in tmp_path.glob("checkpoint-*")} == {"checkpoint-1"}
    assert not (tmp_path / ".partial").exists()


def test_evaluation_batches_name_no_rows_and_are_not_guarded(tiny, tmp_path):
    trainer = make_trainer(tiny, tmp_path)
    assert "row_ids" in next(iter(trainer.get_train_dataloader()))
    assert "row_ids" not in trainer.data_collator([row(0, completion=assistant("Yes."))])
