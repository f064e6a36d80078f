"""Batches of trees for one process or several: whole groups where possible, balanced by tokens."""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import Any

from accelerate.data_loader import prepare_data_loader
from accelerate.utils import gather_object
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers.trainer_utils import seed_worker

from sage_trl.trainer.balance import Imbalance, imbalance, load
from sage_trl.trainer.collators import FactCollator
from sage_trl.trainer.group_sampler import GroupSampler
from sage_trl.trainer.step_plans import ProcessBatches, RowsAndFillers, RowSteps, StepPlan, TokenSteps
from sage_trl.trainer.tree_sizes import TreeSize, tree_sizes

# So many steps tell the balance, and take a second or two to plan.
STEPS_LOOKED_AT = 100


class BalancedLoading:
    """Comes before a TRL trainer in the bases.

    One process reads groups one after the other. Several divide the rows that one process with their rows together
    would read, so that a step is the same however many there are. Rows that are not packed as trees go the stock
    `Trainer`'s way.
    """

    args: Any
    accelerator: Any
    data_collator: Any
    train_dataset: Any

    def balance(self) -> Imbalance | None:
        """How evenly the tokens of the first steps are divided; None for one process, or without trees.

        Every process must call it.
        """
        plan = self._training_plan()
        if plan is None or plan.processes == 1:
            return None
        return imbalance(islice(plan.steps(0), STEPS_LOOKED_AT))

    def batches_per_epoch(self) -> int:
        """Batches that each process has in an epoch. Every process must call it."""
        plan = self._training_plan()
        if plan is not None:
            return len(plan)
        rows, rows_per_step = len(self.train_dataset), self.args.train_batch_size * self.accelerator.num_processes
        return int(rows // rows_per_step if self.args.dataloader_drop_last else -(-rows // rows_per_step))

    def fullest_batch(self) -> Any:
        """The rows of the largest batch that `max_tokens_per_batch` makes, which make one batch by themselves too."""
        plan = self._training_plan()
        assert plan is not None
        fullest = max((share for shares in plan.steps(0) for share in shares), key=load)
        return self.train_dataset.select(sorted(row for piece in fullest for row in piece.rows))

    def _get_dataloader(
        self,
        dataset: Any,
        description: str,
        batch_size: int,
        sampler_fn: Any = None,
        is_training: bool = False,
        dataloader_key: str | None = None,
    ) -> Any:
        """The `Trainer`'s; of balanced batches where trees are divided among processes or filled up to a budget."""
        plan = self._plan(dataset, batch_size, is_training=is_training)
        if plan is None:
            return super()._get_dataloader(  # type: ignore[misc]
                dataset, description, batch_size, sampler_fn, is_training, dataloader_key
            )
        args, process = self.args, self.accelerator.process_index
        rows = self._remove_unused_columns(dataset, description=description)  # type: ignore[attr-defined]
        loader: DataLoader[Any] = DataLoader(
            RowsAndFillers(rows),
            batch_sampler=ProcessBatches(plan, process, len(rows)),
            collate_fn=self.data_collator,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            # Each evaluation makes a loader; only the one of training lasts.
            persistent_workers=args.dataloader_persistent_workers and is_training,
            multiprocessing_context=args.dataloader_multiprocessing_context,
            prefetch_factor=args.dataloader_prefetch_factor,
            worker_init_fn=partial(seed_worker, num_workers=args.dataloader_num_workers, rank=process)
            if is_training
            else None,
        )
        # The sampler gives this process's batches alone: accelerate must not share them out once more.
        return prepare_data_loader(
            loader,
            self.accelerator.device,
            num_processes=1,
            process_index=0,
            put_on_device=self.accelerator.device_placement,
        )

    def _training_plan(self) -> StepPlan | None:
        return self._plan(self.train_dataset, self.args.train_batch_size, is_training=True)

    def _plan(self, dataset: Any, batch_size: int, *, is_training: bool) -> StepPlan | None:
        """None where the stock `Trainer` does as well."""
        budget = self.args.max_tokens_per_batch if is_training else None
        processes = self.accelerator.num_processes
        if not (self._has_trees() and isinstance(dataset, Dataset)) or (budget is None and processes == 1):
            return None
        sizes, seed = self._sizes(dataset), self._order_seed()
        if budget is not None:
            return TokenSteps(sizes, budget, processes, seed=seed)
        return RowSteps(
            sizes,
            batch_size * processes,
            processes,
            seed=seed if is_training else None,
            drop_last=self.args.dataloader_drop_last,
        )

    def _sizes(self, dataset: Dataset) -> list[TreeSize]:
        """The trees of all groups in the order of the dataset, each read by one of the processes."""
        known: dict[str, list[TreeSize]] = self.__dict__.setdefault("_known_sizes", {})
        # Rows that are given to `evaluate` are another object each time.
        if dataset._fingerprint not in known:
            process, processes = self.accelerator.process_index, self.accelerator.num_processes
            sizes = tree_sizes(dataset, self.data_collator, process, processes)
            if processes > 1:
                sizes = sorted(gather_object(sizes), key=lambda size: size.rows)
            known[dataset._fingerprint] = sizes
        return known[dataset._fingerprint]

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """Groups together where the batches are trees, else TRL's."""
        dataset = self.train_dataset if train_dataset is None else train_dataset
        if self._has_trees() and isinstance(dataset, Dataset):
            return GroupSampler(dataset["group_id"], self._order_seed())
        return super()._get_train_sampler(train_dataset)  # type: ignore[misc]

    def _has_trees(self) -> bool:
        return isinstance(self.data_collator, FactCollator) and self.data_collator.shared_prefix

    def _order_seed(self) -> int:
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return int(seed)
