"""Stage 2: entropy-aware DPO on TRL's `DPOTrainer` (paper section 3.3, eq. 6-7)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from trl import DPOTrainer

from sage_trl.models.adapters import copy_policy_to_reference, is_adapted
from sage_trl.models.parts import POLICY_ADAPTER
from sage_trl.trainer.answers import AnswerLayout, answer_layout
from sage_trl.trainer.collators import FILLER, PAIR_KINDS, EntropyDPOCollator
from sage_trl.trainer.entropy_dpo_config import EntropyDPOConfig
from sage_trl.trainer.fact_trainer import FactTrainerMixin, collator_options, keep_images_encoded
from sage_trl.trainer.frozen_reference import FrozenReferenceMixin, NoReference
from sage_trl.trainer.losses import LENGTH_NORMALISED, entropy_dpo_loss, token_kl
from sage_trl.trainer.reliable import ReliableTraining
from sage_trl.trainer.running_means import LOSS, Metrics
from sage_trl.trainer.text_attention import prepare_tree_attention
from sage_trl.trainer.tree_batches import IGNORED

PAIR_COLUMNS = ("delta_entropy", "pair_kind")


@dataclass(frozen=True)
class PairLogps:
    """Summed log-probabilities `[pairs]` of chosen and rejected under the policy and the frozen reference."""

    chosen: Tensor
    rejected: Tensor
    ref_chosen: Tensor
    ref_rejected: Tensor


class EntropyDPOTrainer(ReliableTraining, FrozenReferenceMixin, FactTrainerMixin, DPOTrainer):
    """`DPOTrainer` with an entropy bias per pair.

    What changes: the loss is `entropy_dpo_loss` on the pairs that `load_ad_pl(kind="preference")` selected from
    cached scores, and every mean is taken over the pairs of all processes, which may hold different numbers of them.
    With `eta=0` loss and gradients are those of `DPOTrainer`.

    Logs TRL's metrics and `delta_entropy/mean`, `delta_entropy/bias` (eta * dH, to be read beside
    `rewards/margins`), `rewards/margins_min_pairs`, `rewards/margins_max_pairs` and, for `objective: paper`, `kl`.

    Args:
        model: the model after stage 1.
        ref_model: a copy of it, pi_ref; it is frozen. None for a model with an adapter: a frozen copy of the adapter is
            pi_ref, on the same base weights.
        args: `EntropyDPOConfig`.
        train_dataset, eval_dataset: rows of `load_ad_pl(kind="preference")`.
        processing_class: the model's processor.
        kwargs: handed to `DPOTrainer`.
    """

    _tag_names = ("trl", "dpo", "sage", "entropy-dpo")
    answer_columns = ("chosen", "rejected", "delta_entropy", "pair_kind", "answer_keys")
    loss_keys = ("completion_mask", "shift_labels", "leaf_ids", "pair_leaves", "answer_keys", FILLER, *PAIR_COLUMNS)
    # It is a mean over the pairs of all accumulation steps, which may hold different numbers of them.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: Any,
        ref_model: Any = None,
        args: EntropyDPOConfig | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        data_collator: Any = None,
        **kwargs: Any,
    ) -> None:
        has_reference = is_adapted(model) or (args is not None and args.reference_cache is not None)
        if args is None or (ref_model is None and not has_reference) or (ref_model is not None and is_adapted(model)):
            raise ValueError(
                "EntropyDPOTrainer needs `args`, an EntropyDPOConfig, and `ref_model`, a second instance, unless there "
                "is a `reference_cache` or the model has an adapter, of which a frozen copy is the reference"
            )
        self.freeze(model)
        self.stage = "edpo" if args.eta else "dpo"
        if ref_model is not None:
            ref_model.requires_grad_(False)
        collator = data_collator or EntropyDPOCollator(
            processing_class, **collator_options(args), with_answer_keys=args.reference_cache is not None
        )
        # Before DeepSpeed makes an engine of the reference.
        prepare_tree_attention(args, collator, *(one for one in (model, ref_model) if one is not None))
        super().__init__(
            model,
            ref_model=NoReference(model.config) if ref_model is None and not is_adapted(model) else ref_model,
            args=args,
            train_dataset=keep_images_encoded(train_dataset),
            eval_dataset=keep_images_encoded(eval_dataset),
            processing_class=processing_class,
            data_collator=collator,
            **kwargs,
        )
        self.ref_model = None if ref_model is None else self.ref_model
        self.unfreeze_parts()
        self.prepare_sharding()
        if is_adapted(self.model):
            copy_policy_to_reference(self.model)
            # PEFT would save the frozen reference beside the policy.
            self.model.save_pretrained = partial(self.model.save_pretrained, selected_adapters=[POLICY_ADAPTER])
        self.reference_cache = None if args.reference_cache is None else self.open_reference_cache()

    def scored_inputs(self, inputs: dict[str, Any], layout: AnswerLayout) -> dict[str, Any]:
        """What the fused head needs to score the answers of a batch."""
        model_inputs = {key: value for key, value in inputs.items() if key not in self.loss_keys}
        return {**model_inputs, "use_cache": False, "shift_labels": layout.shift_labels, "fused_lm_head": True}

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Any]], device: Any) -> Tensor | None:
        """`[2]`: the pairs of a step, and the tokens of their answers, of all processes and accumulation steps."""
        if not batch_samples:
            return None
        counts = torch.stack([torch.stack(count_items(batch)) for batch in batch_samples]).sum(dim=0)
        total: Tensor = self.accelerator.reduce(counts.to(device), reduction="sum")
        return total

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The batch's part of the mean over `num_items_in_batch` pairs, by default those of the batch itself."""
        # TRL's own does not hand it on.
        self._items_of_step = num_items_in_batch
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        self.check_batch_keys(self.accelerator.unwrap_model(model), inputs)
        items = self._items_of_step
        if items is None:
            items = self._get_num_items_in_batch([inputs], self.accelerator.device)
        num_pairs, num_tokens = items.clamp(min=1)
        layout = answer_layout(inputs)
        scored = self.scored_inputs(inputs, layout)
        outputs = model(**scored)
        ref_log_probs = self.reference_log_probs(model, scored, layout, inputs.get("answer_keys"))
        logps = PairLogps(
            *layout.pairs(layout.sums(outputs.log_probs)),
            *layout.pairs(layout.sums(ref_log_probs)),
        )
        lengths = layout.pairs(layout.sums(outputs.label_mask.float()))
        losses = self._losses(logps, lengths, inputs["delta_entropy"])
        metrics = {LOSS: (losses, torch.ones_like(losses))}
        metrics |= token_metrics(outputs, layout, lengths)
        metrics |= pair_metrics(inputs, logps, beta=self.beta, eta=self.args.eta)
        counts = float(FILLER not in inputs)
        loss = counts * losses.sum() / num_pairs
        if self.args.objective == "paper":
            kl = torch.cat(layout.pairs(layout.sums(token_kl(outputs.log_probs, ref_log_probs))))
            metrics["kl"] = kl, torch.cat(lengths)
            loss = loss + self.args.kl_coef * counts * kl.sum() / num_tokens
        # DDP, FSDP and DeepSpeed take the mean of the processes' gradients, where this is a sum over them.
        loss = loss * self.accelerator.num_processes
        self._count_batch(metrics, inputs, counts)
        if return_outputs:
            # The fused head builds no logits, which `predict` returns.
            with torch.no_grad():
                of_head = {"shift_labels", "scored_positions", "fused_lm_head"}
                outputs = model(**{key: scored[key] for key in scored.keys() - of_head})
        return (loss, outputs) if return_outputs else loss

    def _losses(self, logps: PairLogps, lengths: tuple[Tensor, Tensor], delta_entropy: Tensor) -> Tensor:
        [loss_type] = self.loss_types
        chosen_length, rejected_length = lengths if loss_type in LENGTH_NORMALISED else (1.0, 1.0)
        return entropy_dpo_loss(
            logps.chosen / chosen_length,
            logps.rejected / rejected_length,
            logps.ref_chosen / chosen_length,
            logps.ref_rejected / rejected_length,
            delta_entropy,
            beta=self.beta,
            eta=self.args.eta,
            objective=self.args.objective,
            loss_type=loss_type,
            label_smoothing=self.args.label_smoothing,
        )

    def _count_batch(self, metrics: Metrics, inputs: dict[str, Any], counts: float) -> None:
        self.add_to_means({name: (total * counts, number * counts) for name, (total, number) in metrics.items()})
        if self.model.training:
            tokens = self.accelerator.reduce(inputs["attention_mask"].sum(), reduction="sum")
            self._total_train_tokens += int(tokens)
        self._metrics["train" if self.model.training else "eval"]["num_tokens"] = [self._total_train_tokens]

    def evaluation_loss(self) -> float | None:
        """The mean over pairs, with the KL of `objective: paper` over tokens."""
        loss = super().evaluation_loss()
        if loss is None or self.args.objective != "paper":
            return loss
        return loss + float(self.args.kl_coef * self._metrics["eval"]["kl"][-1])


def count_items(inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """The pairs of a batch and the tokens of their answers, none of a filler."""
    layout = answer_layout(inputs)
    lengths = torch.cat(layout.pairs(layout.sums((layout.shift_labels != IGNORED).float())))
    counts = float(FILLER not in inputs)
    return counts * lengths.new_tensor(len(lengths) // 2), counts * lengths.sum()


def token_metrics(outputs: Any, layout: AnswerLayout, lengths: tuple[Tensor, Tensor]) -> Metrics:
    """TRL's metrics over the tokens of answers, from the fused head's output; an answer counts once for each pair."""
    entropy, top1, logits = (
        layout.pairs(layout.sums(values.float())) for values in (outputs.entropy, outputs.is_top1, outputs.mean_logits)
    )
    return {
        "entropy": (torch.cat(entropy), torch.cat(lengths)),
        "mean_token_accuracy": (top1[0], lengths[0]),
        "logits/chosen": (logits[0], lengths[0]),
        "logits/rejected": (logits[1], lengths[1]),
    }


def pair_metrics(inputs: dict[str, Any], logps: PairLogps, *, beta: float, eta: float) -> Metrics:
    """TRL's metrics over pairs, and those of the entropy bias."""
    chosen, rejected = beta * (logps.chosen - logps.ref_chosen), beta * (logps.rejected - logps.ref_rejected)
    margins = chosen - rejected
    every = torch.ones_like(margins)
    is_min, is_max = (inputs["pair_kind"] == PAIR_KINDS.index(kind) for kind in ("min", "max"))
    delta_entropy = inputs["delta_entropy"]
    return {
        "rewards/chosen": (chosen, every),
        "rewards/rejected": (rejected, every),
        "rewards/accuracies": ((margins > 0).float(), every),
        "rewards/margins": (margins, every),
        "rewards/margins_min_pairs": (margins * is_min, is_min),
        "rewards/margins_max_pairs": (margins * is_max, is_max),
        "logps/chosen": (logps.chosen, every),
        "logps/rejected": (logps.rejected, every),
        "delta_entropy/mean": (delta_entropy, every),
        "delta_entropy/bias": (eta * delta_entropy, every),
    }
