"""Stage 2: entropy-aware DPO on TRL's `DPOTrainer` (paper section 3.3, eq. 6-7)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from trl import DPOTrainer

from sage_trl.models.adapters import is_adapted, reference_adapter
from sage_trl.models.parts import POLICY_ADAPTER
from sage_trl.trainer.collators import PAIR_KINDS, EntropyDPOCollator
from sage_trl.trainer.entropy_dpo_config import EntropyDPOConfig
from sage_trl.trainer.fact_trainer import FactTrainerMixin, keep_images_encoded
from sage_trl.trainer.losses import entropy_dpo_loss, token_kl

# Name -> (values, mask) of equal shape: the metric is the mean of the values where the mask is true.
Metrics = dict[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class PairLogps:
    """Summed log-probabilities `[pairs]` of chosen and rejected under the policy and the frozen reference."""

    chosen: Tensor
    rejected: Tensor
    ref_chosen: Tensor
    ref_rejected: Tensor


class EntropyDPOTrainer(FactTrainerMixin, DPOTrainer):
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
    answer_columns = ("chosen", "rejected", "delta_entropy", "pair_kind")
    loss_keys = ("completion_mask", "delta_entropy", "pair_kind")

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
        if args is None or (ref_model is None) != is_adapted(model):
            raise ValueError(
                "EntropyDPOTrainer needs `args`, an EntropyDPOConfig, and `ref_model`, a second instance, unless the "
                "model has an adapter, of which a frozen copy is the reference"
            )
        self.freeze(model)
        self.stage = "edpo" if args.eta else "dpo"
        if ref_model is not None:
            ref_model.requires_grad_(False)
        collator = data_collator or EntropyDPOCollator(
            processing_class, args.use_facts, args.reference_in_prompt, args.reference_dropout, args.seed
        )
        super().__init__(
            model,
            ref_model=ref_model,
            args=args,
            train_dataset=keep_images_encoded(train_dataset),
            eval_dataset=keep_images_encoded(eval_dataset),
            processing_class=processing_class,
            data_collator=collator,
            **kwargs,
        )
        self.unfreeze_parts()
        if is_adapted(self.model):
            # PEFT would save the frozen reference beside the policy.
            self.model.save_pretrained = partial(self.model.save_pretrained, selected_adapters=[POLICY_ADAPTER])

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        self.check_batch_keys(self.accelerator.unwrap_model(model), inputs)
        model_inputs = {key: value for key, value in inputs.items() if key not in self.loss_keys}
        model_inputs |= {
            "labels": inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100),
            "use_cache": False,
            "fused_lm_head": True,
        }
        outputs = model(**model_inputs)
        ref_log_probs = self._reference_log_probs(model, model_inputs)
        logps = PairLogps(*outputs.log_probs.sum(dim=1).chunk(2), *ref_log_probs.sum(dim=1).chunk(2))
        losses = entropy_dpo_loss(
            logps.chosen,
            logps.rejected,
            logps.ref_chosen,
            logps.ref_rejected,
            inputs["delta_entropy"],
            beta=self.beta,
            eta=self.args.eta,
            objective=self.args.objective,
        )
        metrics = token_metrics(outputs) | pair_metrics(inputs, logps, beta=self.beta, eta=self.args.eta)
        loss = self._mean_over_processes(losses, torch.ones_like(losses))
        if self.args.objective == "paper":
            metrics["kl"] = token_kl(outputs.log_probs, ref_log_probs), outputs.label_mask
            loss = loss + self.args.kl_coef * self._mean_over_processes(*metrics["kl"])
        self._log_batch(metrics, inputs["attention_mask"].sum())
        if return_outputs:
            # The fused head builds no logits, which `predict` returns.
            with torch.no_grad():
                outputs = model(
                    **{key: model_inputs[key] for key in model_inputs if key not in ("labels", "fused_lm_head")}
                )
        return (loss, outputs) if return_outputs else loss

    def _reference_log_probs(self, model: Any, model_inputs: dict[str, Any]) -> Tensor:
        """Log-probabilities `[2 * pairs, T - 1]` of the labels under pi_ref, zero where there is no label."""
        with torch.no_grad():
            if self.ref_model is not None:
                return self.ref_model(**model_inputs).log_probs  # type: ignore[no-any-return]
            was_training = model.training
            # Without dropout, and without checkpoints of activations that nobody reads.
            model.eval()
            with reference_adapter(self.accelerator.unwrap_model(model)):
                log_probs: Tensor = model(**model_inputs).log_probs
            model.train(was_training)
            return log_probs

    def _mean_over_processes(self, values: Tensor, mask: Tensor) -> Tensor:
        """Mean of the masked values of all processes, scaled for DDP, which averages gradients over the processes."""
        count: Tensor = self.accelerator.reduce(mask.sum().float(), reduction="sum")
        processes: int = self.accelerator.num_processes
        return (values * mask).sum() / count.clamp(min=1) * processes

    def _log_batch(self, metrics: Metrics, num_tokens: Tensor) -> None:
        mode = "train" if self.model.training else "eval"
        sums = [(values.detach() * mask).sum().float() for values, mask in metrics.values()]
        counts = [mask.sum().float() for _, mask in metrics.values()]
        total = self.accelerator.reduce(torch.stack([*sums, *counts, num_tokens.float()]), reduction="sum").tolist()
        for index, name in enumerate(metrics):
            count = total[len(metrics) + index]
            if count:
                self._metrics[mode][name].append(total[index] / count)
        if mode == "train":
            self._total_train_tokens += int(total[-1])
        self._metrics[mode]["num_tokens"] = [self._total_train_tokens]


def token_metrics(outputs: Any) -> Metrics:
    """TRL's metrics over completion tokens, from the fused head's output for `[chosen; rejected]`."""
    chosen, rejected = outputs.label_mask.clone(), outputs.label_mask.clone()
    pairs = len(chosen) // 2
    chosen[pairs:], rejected[:pairs] = False, False
    return {
        "entropy": (outputs.entropy, outputs.label_mask),
        "mean_token_accuracy": (outputs.is_top1, chosen),
        "logits/chosen": (outputs.mean_logits, chosen),
        "logits/rejected": (outputs.mean_logits, rejected),
    }


def pair_metrics(inputs: dict[str, Any], logps: PairLogps, *, beta: float, eta: float) -> Metrics:
    """TRL's metrics over pairs, and those of the entropy bias."""
    chosen, rejected = beta * (logps.chosen - logps.ref_chosen), beta * (logps.rejected - logps.ref_rejected)
    margins = chosen - rejected
    every = torch.ones_like(margins)
    kind = inputs["pair_kind"]
    delta_entropy = inputs["delta_entropy"]
    return {
        "rewards/chosen": (chosen, every),
        "rewards/rejected": (rejected, every),
        "rewards/accuracies": ((margins > 0).float(), every),
        "rewards/margins": (margins, every),
        "rewards/margins_min_pairs": (margins, kind == PAIR_KINDS.index("min")),
        "rewards/margins_max_pairs": (margins, kind == PAIR_KINDS.index("max")),
        "logps/chosen": (logps.chosen, every),
        "logps/rejected": (logps.rejected, every),
        "delta_entropy/mean": (delta_entropy, every),
        "delta_entropy/bias": (eta * delta_entropy, every),
    }
