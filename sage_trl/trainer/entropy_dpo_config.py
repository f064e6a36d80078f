"""Configuration of stage 2, entropy-aware DPO."""

from __future__ import annotations

from dataclasses import dataclass, field

from trl import DPOConfig

from sage_trl.trainer.fact_arguments import FactArguments
from sage_trl.trainer.losses import Objective


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

    def __post_init__(self) -> None:
        """Refuse TRL options that have no meaning beside an offset per pair, or are not built yet."""
        super().__post_init__()
        refused = {
            "loss_type": self.loss_type != ["sigmoid"],
            "f_divergence_type": self.f_divergence_type != "reverse_kl",
            "ld_alpha": self.ld_alpha is not None,
            "use_weighting": self.use_weighting,
            "precompute_ref_log_probs": self.precompute_ref_log_probs,
            "sync_ref_model": self.sync_ref_model,
        }
        named = [f"{name}: {getattr(self, name)!r}" for name, is_refused in refused.items() if is_refused]
        if named:
            raise ValueError(
                f"{', '.join(named)}: E-DPO is -log sigmoid of the reward margin minus eta * dH against a frozen "
                "reference (eq. 6-7); leave these options at TRL's defaults"
            )
        if self.eta < 0 or self.kl_coef < 0:
            raise ValueError(f"eta ({self.eta}) and kl_coef ({self.kl_coef}) must not be negative")
