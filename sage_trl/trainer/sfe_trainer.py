"""Stage 1: Self-Guided Fact Enhancement on TRL's `SFTTrainer` (paper sections 3.2 and 3.4, eq. 8)."""

from __future__ import annotations

from typing import Any

from trl import SFTTrainer

from sage_trl.trainer.collators import SFECollator
from sage_trl.trainer.fact_trainer import FactTrainerMixin, collator_options, keep_images_encoded
from sage_trl.trainer.reliable import ReliableTraining
from sage_trl.trainer.running_means import LOSS
from sage_trl.trainer.sfe_config import SFEConfig
from sage_trl.trainer.tree_batches import IGNORED


class SFETrainer(ReliableTraining, FactTrainerMixin, SFTTrainer):
    """`SFTTrainer` on test/reference pairs with fact sentences.

    Only the collator, the trainable parts and the fusion's learning rate differ from TRL; the loss is TRL's
    cross-entropy on the best answer a_1.

    Args:
        model: a fact-enhanced model, in a PEFT wrapper made by `add_lora` or not.
        args: `SFEConfig`.
        train_dataset, eval_dataset: rows of `load_ad_pl(kind="completion")`.
        processing_class: the model's processor.
        kwargs: handed to `SFTTrainer`.
    """

    _tag_names = ("trl", "sft", "sage", "sfe")
    answer_columns = ("completion",)
    loss_keys = ("labels", "shift_labels")

    def __init__(
        self,
        model: Any,
        args: SFEConfig,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        data_collator: Any = None,
        **kwargs: Any,
    ) -> None:
        self.freeze(model)
        self.stage = "sfe" if args.facts == "fusion" else "sft"
        collator = data_collator or SFECollator(processing_class, **collator_options(args))
        super().__init__(
            model,
            args=args,
            train_dataset=keep_images_encoded(train_dataset),
            eval_dataset=keep_images_encoded(eval_dataset),
            processing_class=processing_class,
            data_collator=collator,
            **kwargs,
        )
        self.unfreeze_parts()
        self.prepare_tree_attention(self.model)
        self.prepare_sharding()

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """TRL's loss, after a check of the batch's keys."""
        self.check_batch_keys(self.accelerator.unwrap_model(model), inputs)
        result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if not self.model.training:
            labels = inputs["shift_labels"] if "shift_labels" in inputs else inputs["labels"][:, 1:]
            tokens = (labels != IGNORED).sum()
            self.add_to_means({LOSS: ((result[0] if return_outputs else result) * tokens, tokens)})
        return result
