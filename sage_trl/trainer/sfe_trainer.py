"""Stage 1: Self-Guided Fact Enhancement on TRL's `SFTTrainer` (paper sections 3.2 and 3.4, eq. 8)."""

from __future__ import annotations

from typing import Any

from trl import SFTTrainer

from sage_trl.trainer.collators import SFECollator
from sage_trl.trainer.fact_trainer import FactTrainerMixin, collator_options, keep_images_encoded
from sage_trl.trainer.reliable import ReliableTraining
from sage_trl.trainer.running_means import LOSS, Metrics
from sage_trl.trainer.sfe_config import SFEConfig
from sage_trl.trainer.text_attention import prepare_tree_attention


class SFETrainer(ReliableTraining, FactTrainerMixin, SFTTrainer):
    """`SFTTrainer` on test/reference pairs with fact sentences.

    Only the collator, the trainable parts, the fusion's learning rate and the metrics, which are means over tokens,
    differ from TRL; the loss is TRL's cross-entropy on the best answer a_1.

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
        prepare_tree_attention(args, collator, model)
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
        self.prepare_sharding()

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """TRL's loss, after a check of the batch's keys; its metrics are means over the tokens of all batches."""
        self.check_batch_keys(self.accelerator.unwrap_model(model), inputs)
        of_head: list[Any] = []

        def keeping(**model_inputs: Any) -> Any:
            outputs = model(**model_inputs)
            if "fused_lm_head" in model_inputs:
                of_head.append(outputs)
            return outputs

        result = super().compute_loss(keeping, inputs, return_outputs, num_items_in_batch)
        [outputs] = of_head
        metrics = token_metrics(outputs)
        for name in metrics:
            self._metrics["train" if self.model.training else "eval"].pop(name)  # the mean of this batch's
        if not self.model.training:
            tokens = outputs.label_mask.sum()
            metrics[LOSS] = (result[0] if return_outputs else result) * tokens, tokens
        self.add_to_means(metrics)
        return result


def token_metrics(outputs: Any) -> Metrics:
    """TRL's metrics over the tokens of answers, from the fused head's output."""
    tokens = outputs.label_mask.sum()
    return {
        "entropy": (outputs.entropy.float().sum(), tokens),
        "mean_token_accuracy": (outputs.is_top1.sum(), tokens),
    }
