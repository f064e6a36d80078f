"""Batches by tokens: sizes known before images are read, whole groups, every row once, never above the budget."""

from dataclasses import dataclass, field

import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from sage_trl.errors import DataError
from sage_trl.models.checkpoints import load_pretrained
from sage_trl.trainer import balanced_loading
from sage_trl.trainer.balance import load
from sage_trl.trainer.collators import EntropyDPOCollator, SFECollator
from sage_trl.trainer.fact_trainer import keep_images_encoded
from sage_trl.trainer.sfe_config import SFEConfig
from sage_trl.trainer.sfe_trainer import SFETrainer
from sage_trl.trainer.step_plans import TokenSteps
from sage_trl.trainer.tree_sizes import TreeSize, tree_sizes
from tests.models.stock_checkpoints import BUILDERS, save_stock
from tests.trainer.test_shared_prefix import COMMON, mixed_groups


def mixed_dataset(groups=1):
    rows = []
    for copy in range(groups):
        rows += [
            {**row, "completion": row["chosen"], "group_id": f"{copy} {row['group_id']}"} for row in mixed_groups()
        ]
    return Dataset.from_list(rows)


@pytest.mark.parametrize(
    ("name", "facts"), [*((name, "fusion") for name in BUILDERS), ("internvl", "hard"), ("internvl", "none")]
)
@pytest.mark.parametrize("collator_class", [SFECollator, EntropyDPOCollator])
def test_sizes_are_those_of_the_encoded_trees(name, facts, collator_class, tmp_path):
    save_stock(name, tmp_path)
    _, processor = load_pretrained(tmp_path)
    collator = collator_class(processor, facts=facts, shared_prefix=True)
    dataset = keep_images_encoded(mixed_dataset())
    sizes = tree_sizes(dataset, collator)
    assert sorted(row for size in sizes for row in size.rows) == list(range(len(dataset)))
    for size in sizes:
        batch = collator([dataset[row] for row in size.rows])
        assert batch["attention_mask"].sum().item() == size.tokens
        assert len(batch["input_ids"]) == 1
        for some in (size.rows[:1], size.rows[1:], size.rows[::2]):
            if some:
                batch = collator([dataset[row] for row in some])
                assert batch["attention_mask"].sum().item() == size.tokens_of(some)


def plain_size(name, rows, tokens):
    """A group whose rows share all but one token each."""
    own = len(rows)
    paths = tuple(frozenset({0, 1 + index}) for index in range(own))
    return TreeSize(name, tuple(rows), (tokens - own, *[1] * own), paths)


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(5, 50)), min_size=1, max_size=30),
    st.integers(50, 200),
    st.integers(1, 4),
)
def test_every_row_comes_once_in_whole_groups_within_the_budget(groups, budget, processes):
    sizes, first = [], 0
    for number, (rows, tokens) in enumerate(groups):
        sizes.append(plain_size(str(number), range(first, first + rows), tokens))
        first += rows
    plan = TokenSteps(sizes, budget, processes, seed=3)
    orders = []
    for epoch in range(2):
        steps = list(plan.steps(epoch))
        assert len(steps) == len(plan)
        assert sorted(row for step in steps for share in step for piece in share for row in piece.rows) == list(
            range(first)
        )
        for step in steps:
            assert len(step) == processes
            assert all(load(share) <= budget for share in step)
        # Groups are split where processes would have less to do, in the one step that lacks batches.
        names = [[piece.size.group_id for share in step for piece in share] for step in steps]
        assert sum(len(of_step) != len(set(of_step)) for of_step in names) <= 1
        orders.append(steps)
    assert sum(not share for share in (share for step in orders[0] for share in step)) < processes
    if len(plan) > 5:
        assert orders[0] != orders[1]


def test_as_many_trees_as_fit_are_packed():
    sizes = [plain_size(str(number), [number], 10) for number in range(7)]
    assert sorted(len(share) for [share] in TokenSteps(sizes, 35, 1, seed=0).steps(0)) == [1, 3, 3]


def test_a_group_above_the_budget_is_named():
    sizes = [plain_size("small", [0], 5), plain_size("large", [1], 100)]
    with pytest.raises(DataError, match="max_tokens_per_batch is 99, but group large alone has 100"):
        TokenSteps(sizes, 99, 1, seed=0)


def test_the_trees_of_rows_that_are_given_twice_are_read_once(tmp_path, monkeypatch):
    save_stock("internvl", tmp_path)
    model, processor = load_pretrained(tmp_path)
    dataset, reads = mixed_dataset(), []
    monkeypatch.setattr(balanced_loading, "tree_sizes", lambda *given: reads.append(1) or tree_sizes(*given))
    trainer = SFETrainer(model, SFEConfig(str(tmp_path), **COMMON), train_dataset=dataset, processing_class=processor)
    first, again = (trainer._sizes(keep_images_encoded(dataset)) for _ in range(2))
    assert first is again and len(reads) == 1
    assert trainer._sizes(keep_images_encoded(mixed_dataset(2))) is not first and len(reads) == 2


def test_training_takes_batches_within_the_budget(tmp_path):
    save_stock("internvl", tmp_path)
    model, processor = load_pretrained(tmp_path, fusion={"num_selected_patches": 2, "fusion_num_heads": 4})
    dataset = mixed_dataset(3)
    largest = max(size.tokens for size in tree_sizes(keep_images_encoded(dataset), SFECollator(processor)))
    budget = 2 * largest
    args = SFEConfig(
        str(tmp_path / "run"), max_tokens_per_batch=budget, num_train_epochs=2, reference_dropout=0.0, **COMMON
    )
    trainer = SFETrainer(model, args, train_dataset=dataset, processing_class=processor)
    shapes, collate = [], trainer.data_collator
    trainer.data_collator = Recording(**vars(collate), shapes=shapes)
    result = trainer.train()
    assert all(trees * length <= budget for trees, length, _ in shapes)
    assert max(trees for trees, _, _ in shapes) > 1
    # Both epochs saw every question.
    assert sum(answers for _, _, answers in shapes) == 2 * len(dataset)
    assert result.global_step == len(shapes)
    assert torch.isfinite(torch.tensor(result.training_loss))


@dataclass
class Recording(SFECollator):
    shapes: list = field(default_factory=list)

    def __call__(self, rows):
        batch = super().__call__(rows)
        self.shapes.append((*batch["input_ids"].shape, len(rows)))
        return batch


@pytest.mark.parametrize("changes", [{"max_tokens_per_batch": 0}, {"max_tokens_per_batch": 9, "shared_prefix": False}])
def test_a_budget_needs_trees_and_a_positive_number(changes, tmp_path):
    with pytest.raises(ValueError, match="max_tokens_per_batch"):
        SFEConfig(str(tmp_path), **changes, **COMMON)
