"""Configuration of stage 2, entropy-aware DPO."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from trl import DPOConfig

from sage_trl.trainer.fact_arguments import COLLATOR_OPTIONS, FactArguments, refuse_options
from sage_trl.trainer.losses import MARGIN_LOSSES, Objective


@dataclass
class EntropyDPOConfig(FactArguments, DPOConfig):
    """`DPOConfig`, `FactArguments` and what E-DPO adds (paper section 3.3)."""

    train_parts: list[str] = field(
        default_factory=lambda: ["projector", "language_model"],
        metadata={"help": "As in `FactArguments`; the fusion is frozen in stage 2."},
    )
    eta: float = field(default=1.0, metadata={"help": "Scale of the entropy bias eta * dH (eq. 6). 0 gives plain DPO."})
    objective: Objective = field(
        default="dpo",
        metadata={"help": "`dpo`: DPO with an offset per pair. `paper`: eq. 6 literally, plus `kl_coef` times the KL."},
    )
    kl_coef: float = field(
        default=0.1, metadata={"help": "Weight of the token KL to the reference, for objective `paper` only."}
    )

    reference_cache: str | None = field(
        default=None,
        metadata={
            "help": "Directory for the reference's log-probabilities, which are then computed once for all epochs and "
            "runs; a model without adapter needs no second copy of itself."
        },
    )

    def __post_init__(self) -> None:
        """Refuse TRL options that have no meaning beside an offset per pair, or are not built yet."""
        super().__post_init__()
        self.check_fact_arguments()
        is_robust = self.loss_type == ["robust"]
        fixed = {
            "loss_type": tuple([name] for name in MARGIN_LOSSES) if self.objective == "dpo" else (["sigmoid"],),
            "loss_weights": (None,),
            "label_smoothing": (self.label_smoothing,) if is_robust else (0.0,),
            "label_smoothing_factor": (0.0,),
            "f_divergence_type": ("reverse_kl",),
            "ld_alpha": (None,),
            "use_weighting": (False,),
            "precompute_ref_log_probs": (False,),
            "sync_ref_model": (False,),
        }
        reason = (
            "E-DPO is a loss on the reward margin of whole answers minus eta * dH against a frozen reference (eq. "
            f"6-7); loss_type is a list of one, of {', '.join(MARGIN_LOSSES)}, for objective `paper` sigmoid alone"
        )
        refuse_options(self, {**COLLATOR_OPTIONS, **fixed}, reason)
        if self.beta <= 0:
            raise ValueError(f"beta is {self.beta}; it must be positive")
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError(f"label_smoothing is {self.label_smoothing}; it is a share from 0 to below 0.5")
        cache = None if self.reference_cache is None else Path(self.reference_cache)
        if cache is not None and (cache.is_symlink() or cache.exists()) and not cache.is_dir():
            raise ValueError(f"reference_cache is {cache}, which is no directory; name one, old or new")
        if self.eta < 0 or self.kl_coef < 0:
            raise ValueError(f"eta ({self.eta}) and kl_coef ({self.kl_coef}) must not be negative")
