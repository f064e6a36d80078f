"""Means over pairs and tokens, whatever batches they come in, and rows that count nowhere."""

import pytest
import torch
from datasets import Dataset
from trl import SFTTrainer

from sage_trl.trainer.entropy_dpo_config import EntropyDPOConfig
from sage_trl.trainer.entropy_dpo_trainer import EntropyDPOTrainer
from sage_trl.trainer.sfe_config import SFEConfig
from sage_trl.trainer.sfe_trainer import SFETrainer
from tests.trainer.test_shared_prefix import COMMON, group, load

UNEQUAL = [*group(0, 3), *group(1, 1, pairs=1, reference=False)]


def make_trainer(stage, directory, **options):
    policy, reference, processor = load("internvl", directory / "model")
    settings = {"reference_dropout": 0.0, **COMMON, **options}
    rows = Dataset.from_list([{**row, "completion": row["chosen"]} for row in UNEQUAL])
    data = {"train_dataset": rows, "eval_dataset": rows, "processing_class": processor}
    if stage == "sfe":
        return SFETrainer(policy, SFEConfig(str(directory), **settings), **data)
    return EntropyDPOTrainer(policy, reference, EntropyDPOConfig(str(directory), eta=2.0, **settings), **data)


def rows_of(trainer, *indices):
    return trainer.data_collator([trainer.train_dataset[index] for index in indices])


@pytest.mark.parametrize("objective", ["dpo", "paper"])
def test_accumulated_pairs_count_alike_in_unequal_batches(objective, tmp_path):
    trainer = make_trainer("edpo", tmp_path, objective=objective)
    trainer.model.train()
    whole = trainer.compute_loss(trainer.model, rows_of(trainer, *range(7)))
    metrics = dict(trainer._metrics["train"])
    trainer.log({})
    parts = [rows_of(trainer, *range(5)), rows_of(trainer, 5, 6)]
    items = trainer._get_num_items_in_batch(parts, torch.device("cpu"))
    assert items[0] == 7
    losses = [trainer.compute_loss(trainer.model, part, num_items_in_batch=items) for part in parts]
    assert sum(losses).item() == pytest.approx(whole.item(), rel=1e-5)
    assert (losses[0] / 5).item() != pytest.approx((losses[1] / 2).item(), rel=1e-3)
    for name, value in trainer._metrics["train"].items():
        if name != "num_tokens":
            assert value == pytest.approx(metrics[name], rel=1e-4, abs=1e-6), name


@pytest.mark.parametrize("stage", ["sfe", "edpo"])
def test_the_evaluation_loss_does_not_depend_on_the_batches(stage, tmp_path):
    options = {"objective": "paper"} if stage == "edpo" else {}
    found, means = [], []
    for size in (7, 5, 2):
        trainer = make_trainer(stage, tmp_path / str(size), per_device_eval_batch_size=size, **options)
        found.append(trainer.evaluate()["eval_loss"])
        logged = trainer.state.log_history[-1]
        means.append([logged["eval_entropy"], logged["eval_mean_token_accuracy"]])
    trainer.model.eval()
    with torch.no_grad():
        expected = trainer.compute_loss(trainer.model, rows_of(trainer, *range(7))).item()
    assert found == pytest.approx([expected] * 3, rel=1e-5)
    assert all(one == pytest.approx(means[0], rel=1e-5) for one in means[1:])


def test_the_metrics_of_stage_1_are_those_of_trl_over_the_tokens_of_all_batches(tmp_path):
    trainer = make_trainer("sfe", tmp_path)
    trainer.model.train()
    metrics, names = trainer._metrics["train"], ("entropy", "mean_token_accuracy")

    def by_trl(*indices):
        SFTTrainer.compute_loss(trainer, trainer.model, rows_of(trainer, *indices))
        return {name: metrics.pop(name)[0] for name in names}

    whole = by_trl(*range(7))
    trainer.compute_loss(trainer.model, rows_of(trainer, *range(7)))
    assert {name: metrics[name] for name in names} == {name: [pytest.approx(whole[name])] for name in names}
    trainer.log({})
    for part in (range(5), (5, 6)):
        trainer.compute_loss(trainer.model, rows_of(trainer, *part))
    assert {name: metrics[name] for name in names} == {name: [pytest.approx(whole[name])] for name in names}
    batches = [by_trl(*part)["entropy"] for part in (range(5), (5, 6))]
    assert sum(batches) / 2 != pytest.approx(whole["entropy"], rel=1e-5)


@pytest.mark.parametrize("stage", ["sfe", "edpo"])
def test_a_filler_counts_nowhere(stage, tmp_path):
    trainer = make_trainer(stage, tmp_path)
    trainer.model.train()
    real = rows_of(trainer, *range(5))
    filler = trainer.data_collator([{**trainer.train_dataset[6], "is_filler": True}])
    items = trainer._get_num_items_in_batch([real, filler], torch.device("cpu"))
    alone = trainer._get_num_items_in_batch([real], torch.device("cpu"))
    assert torch.equal(items, alone)
    loss = trainer.compute_loss(trainer.model, dict(filler), num_items_in_batch=items)
    loss.backward()
    assert loss.item() == 0
    # It takes part in the backward pass all the same, or the others would wait for it.
    gradients = [p.grad for p in trainer.model.parameters() if p.requires_grad]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)
    assert not {"rewards/margins", "entropy", "mean_token_accuracy"} & set(trainer._metrics["train"])
