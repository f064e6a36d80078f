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
from sage_trl.trainer.collators import PAIR_KINDS, EntropyDPOCollator
from sage_trl.trainer.entropy_dpo_config import EntropyDPOConfig
from sage_trl.trainer.fact_trainer import FactTrainerMixin, collator_options, keep_images_encoded
from sage_trl.trainer.frozen_reference import FrozenReferenceMixin, NoReference
from sage_trl.trainer.losses import LENGTH_NORMALISED, entropy_dpo_loss, token_kl
from sage_trl.trainer.reliable import ReliableTraining

PAIR_COLUMNS = ("delta_entropy", "pair_kind")
# Name -> (totals, counts): the metric is the sum of the totals over the sum of the counts.
Metrics = dict[str, tuple[Tensor, Tensor]]


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
    loss_keys = ("completion_mask", "shift_labels", "leaf_ids", "pair_leaves", "answer_keys", *PAIR_COLUMNS)

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
        self.prepare_tree_attention(self.model, self.ref_model)
        if is_adapted(self.model):
            copy_policy_to_reference(self.model)
            # PEFT would save the frozen reference beside the policy.
            self.model.save_pretrained = partial(self.model.save_pretrained, selected_adapters=[POLICY_ADAPTER])
        self.reference_cache = None if args.reference_cache is None else self.open_reference_cache()

    def scored_inputs(self, inputs: dict[str, Any], layout: AnswerLayout) -> dict[str, Any]:
        """What the fused head needs to score the answers of a batch."""
        model_inputs = {key: value for key, value in inputs.items() if key not in self.loss_keys}
        return {**model_inputs, "use_cache": False, "shift_labels": layout.shift_labels, "fused_lm_head": True}

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        self.check_batch_keys(self.accelerator.unwrap_model(model), inputs)
        layout = answer_layout(inputs)
        scored = self.scored_inputs(inputs, layout)
        outputs = model(**scored)
        ref_log_probs = self.reference_log_probs(model, scored, layout, inputs.get("answer_keys"))
        logps = PairLogps(
            *layout.pairs(layout.sums(outputs.log_probs)),
            *layout.pairs(layout.sums(ref_log_probs)),
        )
        lengths = layout.pairs(layout.sums(outputs.label_mask.float()))
        metrics = token_metrics(outputs, layout, lengths) | pair_metrics(
            inputs, logps, beta=self.beta, eta=self.args.eta
        )
        losses = self._losses(logps, lengths, inputs["delta_entropy"])
        loss = self._mean_over_processes(losses, torch.ones_like(losses))
        if self.args.objective == "paper":
            kl = torch.cat(layout.pairs(layout.sums(token_kl(outputs.log_probs, ref_log_probs))))
            metrics["kl"] = kl, torch.cat(lengths)
            loss = loss + self.args.kl_coef * self._mean_over_processes(*metrics["kl"])
        self._log_batch(metrics, inputs["attention_mask"].sum())
        if return_outputs:
            # The fused head builds no logits, which `predict` returns.
            with torch.no_grad():
                outputs = model(**{key: scored[key] for key in scored.keys() - {"shift_labels", "fused_lm_head"}})
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

    def _mean_over_processes(self, totals: Tensor, counts: Tensor) -> Tensor:
        """Mean over all processes, scaled for DDP, which averages gradients over the processes."""
        count: Tensor = self.accelerator.reduce(counts.sum().float(), reduction="sum")
        processes: int = self.accelerator.num_processes
        return totals.sum() / count.clamp(min=1) * processes

    def _log_batch(self, metrics: Metrics, num_tokens: Tensor) -> None:
        mode = "train" if self.model.training else "eval"
        totals = [totals.detach().sum().float() for totals, _ in metrics.values()]
        counts = [counts.sum().float() for _, counts in metrics.values()]
        reduced = self.accelerator.reduce(torch.stack([*totals, *counts, num_tokens.float()]), reduction="sum").tolist()
        for index, name in enumerate(metrics):
            count = reduced[len(metrics) + index]
            if count:
                self._metrics[mode][name].append(reduced[index] / count)
        if mode == "train":
            self._total_train_tokens += int(reduced[-1])
        self._metrics[mode]["num_tokens"] = [self._total_train_tokens]


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
