"""The reference is read once: equal steps, nothing mixed, nothing lost to a kill."""

import copy
import json
import logging
import shutil

import pytest
import torch
from datasets import Dataset
from transformers import TrainerCallback

from sage_trl.errors import DataError, LockedError
from sage_trl.models.adapters import add_lora
from sage_trl.trainer.answers import answer_layout
from sage_trl.trainer.collators import EntropyDPOCollator
from sage_trl.trainer.entropy_dpo_config import EntropyDPOConfig
from sage_trl.trainer.entropy_dpo_trainer import EntropyDPOTrainer
from sage_trl.trainer.reference_cache import ReferenceCache, reference_sha256
from tests.conftest import assistant, picture
from tests.trainer.test_shared_prefix import (
    COMMON,
    assert_equal_steps,
    group,
    load,
    loss_and_gradients,
    mixed_groups,
)

IDENTITY = {"weights": "a"}


def make_trainer(model, reference, processor, directory, rows, **options):
    args = EntropyDPOConfig(str(directory / "run"), reference_dropout=0.0, **{**COMMON, **options})
    return EntropyDPOTrainer(model, reference, args, train_dataset=Dataset.from_list(rows), processing_class=processor)


def reads_of(reference):
    """Counts the forwards of a model."""
    count = [0]
    reference.register_forward_pre_hook(lambda *_: count.__setitem__(0, count[0] + 1))
    return count


def stored(directory):
    return [json.loads(line) for path in directory.glob("*/process-*.jsonl") for line in path.read_text().splitlines()]


@pytest.mark.parametrize("shared_prefix", [True, False])
def test_a_second_step_reads_nothing_and_is_the_same(shared_prefix, tmp_path):
    policy, reference, processor = load("internvl", tmp_path / "model")
    cache = {"reference_cache": str(tmp_path / "cache"), "shared_prefix": shared_prefix}
    steps, counts = [], []
    for _ in range(2):
        own = copy.deepcopy(reference)
        trainer = make_trainer(copy.deepcopy(policy), own, processor, tmp_path, mixed_groups(), **cache)
        counts.append(reads_of(own))
        steps.append(loss_and_gradients(trainer, trainer.data_collator(mixed_groups())))
        trainer.reference_cache.close()
    assert [count[0] for count in counts] == [1, 0]
    assert_equal_steps(*steps)
    answers = {
        (row["group_id"], row["question_id"], row[name][0]["content"])
        for row in mixed_groups()
        for name in ("chosen", "rejected")
    }
    assert len(stored(tmp_path / "cache")) == len(answers)


def test_other_pairs_of_the_same_answers_are_there_already(tmp_path):
    policy, reference, processor = load("internvl", tmp_path / "model")
    rows = group(0, 2)
    options = {"reference_cache": str(tmp_path / "cache")}
    trainer = make_trainer(policy, reference, processor, tmp_path, rows, **options)
    count = reads_of(reference)
    loss_and_gradients(trainer, trainer.data_collator(rows))
    turned = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in rows]
    loss_and_gradients(trainer, trainer.data_collator(turned))
    assert count[0] == 1


@pytest.mark.parametrize("changed", ["image", "reference", "facts", "prompt", "answer"])
def test_what_decides_an_answer_decides_its_key(changed, tmp_path):
    _, _, processor = load("internvl", tmp_path)
    collator = EntropyDPOCollator(processor, shared_prefix=True, with_answer_keys=True)
    [row] = group(0, 1, pairs=1)
    new = {
        "image": {"images": [picture(9)]},
        "reference": {"reference_image": None},
        "facts": {"facts": ["Other words."]},
        "prompt": {"prompt": [{"role": "user", "content": "Is it whole?"}]},
        "answer": {"chosen": assistant("Yes, maybe.")},
    }
    before, after = collator([row])["answer_keys"], collator([{**row, **new[changed]}])["answer_keys"]
    assert not torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1]) is (changed == "answer")


def test_the_keys_of_trees_and_rows_are_in_the_order_of_the_answers(tmp_path):
    _, _, processor = load("internvl", tmp_path)
    trees = EntropyDPOCollator(processor, shared_prefix=True, with_answer_keys=True)(mixed_groups())
    plain = EntropyDPOCollator(processor, with_answer_keys=True)(mixed_groups())
    by_pair = [batch["answer_keys"][answer_layout(batch).pair_leaves] for batch in (trees, plain)]
    assert torch.equal(*by_pair)


def test_the_policy_is_its_own_reference_before_the_first_step(tmp_path):
    policy, _, processor = load("internvl", tmp_path / "model")
    rows = [row for number in range(4) for row in group(number, 1)]
    options = {"max_steps": 3, "learning_rate": 1e-2, "logging_steps": 1, "lr_scheduler_type": "constant"}
    histories = []
    for cache in (None, str(tmp_path / "cache")):
        model = copy.deepcopy(policy)
        reference = copy.deepcopy(policy) if cache is None else None
        trainer = make_trainer(model, reference, processor, tmp_path, rows, reference_cache=cache, **options)
        trainer.train()
        histories.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert histories[1] == pytest.approx(histories[0], rel=1e-5)
    with pytest.raises(DataError, match="the policy has moved on"):
        trainer.compute_loss(trainer.model, trainer.data_collator(group(7, 1)))


def test_the_rows_that_an_epoch_drops_are_read_for_the_next(tmp_path):
    policy, _, processor = load("internvl", tmp_path / "model")
    rows = [row for number in range(3) for row in group(number, 1, pairs=1)]
    options = {"dataloader_drop_last": True, "per_device_train_batch_size": 2, "num_train_epochs": 4}
    cache = tmp_path / "cache"
    trainer = make_trainer(policy, None, processor, tmp_path, rows, reference_cache=str(cache), **options)
    trainer.train()
    assert trainer.state.global_step == 4 and trainer.args.dataloader_drop_last
    assert len(stored(cache)) == 2 * len(rows)


def test_a_frozen_adapter_is_read_once_too(tmp_path):
    policy, _, processor = load("internvl", tmp_path / "model")
    adapted = add_lora(policy, ["projector", "language_model"], r=2)
    cache = tmp_path / "cache"
    trainer = make_trainer(adapted, None, processor, tmp_path, mixed_groups(), reference_cache=str(cache))
    batch = trainer.data_collator(mixed_groups())
    # PEFT calls the base's `forward` itself, past its hooks.
    count = reads_of(adapted.get_base_model().model)
    first = loss_and_gradients(trainer, batch)
    assert count[0] == 2 and len(stored(cache)) == len(batch["answer_keys"])
    second = loss_and_gradients(trainer, batch)
    assert count[0] == 3 and len(stored(cache)) == len(batch["answer_keys"])
    assert second[0] == pytest.approx(first[0], rel=1e-6)
    assert second[2]["rewards/margins"] == pytest.approx(0, abs=1e-5)


def test_under_autocast_policy_and_reference_are_read_alike(tmp_path):
    policy, _, processor = load("internvl", tmp_path / "model")
    rows = [row for number in range(3) for row in group(number, 2)]
    options = {"bf16": True, "reference_cache": str(tmp_path / "cache"), "max_steps": 1, "logging_steps": 1}
    logged = []
    for reference in (None, copy.deepcopy(policy)):
        trainer = make_trainer(copy.deepcopy(policy), reference, processor, tmp_path, rows, **options)
        count = None if reference is None else reads_of(reference)
        trainer.train()
        trainer.reference_cache.close()
        logged.append(trainer.state.log_history[0])
    # The policy read itself, to the bit; the second model would have read the same, and found it there.
    assert count[0] == 0
    assert logged[0]["rewards/margins"] == logged[1]["rewards/margins"] == 0
    assert logged[0]["loss"] == logged[1]["loss"]


@pytest.mark.parametrize("bf16", [True, False])
def test_a_policy_reads_before_it_trains_and_never_after(bf16, tmp_path):
    policy, _, processor = load("internvl", tmp_path / "model")
    original = copy.deepcopy(policy)
    rows, cache = group(0, 2), tmp_path / "cache"
    evaluated = {name: Dataset.from_list(group(number, 1)) for number, name in enumerate(("seen", "new"), start=1)}
    args = EntropyDPOConfig(
        str(tmp_path / "run"),
        **{**COMMON, "bf16": bf16, "reference_cache": str(cache), "max_steps": 1},
        eval_strategy="steps",
        eval_steps=1,
    )
    trainer = EntropyDPOTrainer(
        policy, None, args, Dataset.from_list(rows), eval_dataset=evaluated, processing_class=processor
    )
    before = trainer.evaluate(evaluated["new"])
    assert before["eval_rewards/margins"] == pytest.approx(0, abs=1e-5)
    read_early = stored(cache)
    trainer.train()
    assert {"eval_seen_loss", "eval_new_loss"} <= {name for entry in trainer.state.log_history for name in entry}
    known = stored(cache)
    assert known[: len(read_early)] == read_early
    trainer.reference_cache.close()
    shutil.rmtree(cache)
    again = EntropyDPOTrainer(
        original, None, args, Dataset.from_list(rows), eval_dataset=evaluated, processing_class=processor
    )
    again.train()
    assert {row["key"]: row for row in stored(cache)} == {row["key"]: row for row in known}
    known = stored(cache)
    trainer.train_dataset = Dataset.from_list(group(7, 1))
    with pytest.raises(DataError, match="the policy has moved on"):
        trainer.train()
    assert stored(cache) == known


def test_a_rounded_policy_is_not_stored(tmp_path):
    policy, _, processor = load("internvl", tmp_path / "model")
    options = {"reference_cache": str(tmp_path / "cache"), "bf16_full_eval": True}
    trainer = make_trainer(policy, None, processor, tmp_path, group(0, 1), **options)
    trainer.evaluate(Dataset.from_list(group(0, 1)))
    assert not stored(tmp_path / "cache")


def test_what_the_configuration_decides_is_part_of_the_reference(tmp_path):
    policy, reference, processor = load("internvl", tmp_path / "model")
    options = {"reference_cache": str(tmp_path / "cache")}
    directories = []
    for patches in (2, 2, 1):
        own = copy.deepcopy(reference)
        own.config.num_selected_patches = patches
        trainer = make_trainer(copy.deepcopy(policy), own, processor, tmp_path, group(0, 1), **options)
        directories.append(trainer.reference_cache.directory)
        trainer.reference_cache.close()
    assert directories[0] == directories[1] != directories[2]


def test_another_reference_is_said_and_never_mixed(tmp_path, caplog):
    keys, values = torch.arange(8).view(2, 4), [torch.tensor([-0.1, -1.5]), torch.tensor([-3.25])]
    first = ReferenceCache(tmp_path, IDENTITY, 0)
    first.read()
    first.store(keys, values)
    with caplog.at_level(logging.WARNING, logger="sage_trl"):
        other = ReferenceCache(tmp_path, {"weights": "b"}, 0)
    assert "computed anew" in caplog.text
    other.read()
    assert other.find(keys) is None
    first.close()
    again = ReferenceCache(tmp_path, IDENTITY, 0)
    again.read()
    assert all(torch.equal(one, value) for one, value in zip(again.find(keys), values, strict=True))
    assert again.find(torch.cat([keys, keys + 1])) is None


def test_a_line_cut_short_by_a_kill_costs_itself_alone(tmp_path):
    for process in (0, 1):
        cache = ReferenceCache(tmp_path, IDENTITY, process)
        cache.store(torch.full((1, 4), process), [torch.tensor([-1.0])])
        cache.close()
        path = cache.directory / f"process-{process}.jsonl"
        path.write_text(path.read_text() + '{"key": "00')
    alone = ReferenceCache(tmp_path, IDENTITY, 0)
    alone.read()
    assert len(alone) == 2


def test_processes_write_side_by_side_and_read_each_other(tmp_path):
    before = ReferenceCache(tmp_path, IDENTITY, 2, 3)
    before.store(torch.full((1, 4), 2), [torch.tensor([-2.0])])
    before.close()
    left = before.directory / "process-2.jsonl"
    left.write_text(left.read_text() + '{"key": "00')
    caches = [ReferenceCache(tmp_path, IDENTITY, process, 2) for process in (1, 0)]
    for number, cache in enumerate(caches):
        cache.store(torch.full((1, 4), number), [torch.tensor([-1.0])])
    every = torch.arange(3)[:, None].expand(3, 4)
    assert all(cache.find(every) is None for cache in caches)
    for cache in caches:
        cache.read()
        assert len(cache.find(every)) == 3


def test_two_runs_cannot_write_at_once_and_foreign_lines_are_named(tmp_path):
    cache = ReferenceCache(tmp_path, IDENTITY, 0)
    with pytest.raises(LockedError):
        ReferenceCache(tmp_path, IDENTITY, 0)
    cache.close()
    path = cache.directory / "process-0.jsonl"
    path.write_text('{"key": "00", "log_probs": [null]}\n')
    again = ReferenceCache(tmp_path, IDENTITY, 0)
    with pytest.raises(DataError, match=r"process-0.jsonl:1: log_probs"):
        again.read()


def test_the_reference_s_hash_knows_its_weights_and_not_the_policy(tmp_path):
    policy, reference, _ = load("internvl", tmp_path)
    assert reference_sha256(policy) != reference_sha256(reference)
    adapted = add_lora(reference, ["language_model"], r=2)
    before = reference_sha256(adapted)
    with torch.no_grad():
        next(p for p in adapted.parameters() if p.requires_grad).add_(1)
    assert reference_sha256(adapted) == before


def test_a_cache_that_is_lost_or_cut_short_costs_reading_and_changes_no_loss(tmp_path):
    policy, _, processor = load("internvl", tmp_path / "model")
    rows = [row for number in range(4) for row in group(number, 1)]
    options = {"max_steps": 3, "learning_rate": 1e-2, "logging_steps": 1, "lr_scheduler_type": "constant"}
    cache = tmp_path / "cache"

    def losses(*spoilers):
        trainer = make_trainer(
            copy.deepcopy(policy), None, processor, tmp_path, rows, reference_cache=str(cache), **options
        )
        for spoiler in spoilers:
            trainer.add_callback(spoiler)
        trainer.train()
        trainer.reference_cache.close()
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    class LostInMidRun(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 1:
                shutil.rmtree(cache)

    expected = losses()
    everything = stored(cache)
    assert losses(LostInMidRun()) == expected and not cache.exists()
    assert losses() == expected and len(stored(cache)) == len(everything)
    [path] = cache.glob("*/process-0.jsonl")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert losses() == expected
    assert {row["key"] for row in stored(cache)} == {row["key"] for row in everything}
