"""Configuration of stage 1, Self-Guided Fact Enhancement."""

from __future__ import annotations

from dataclasses import dataclass

from trl import SFTConfig

from sage_trl.trainer.fact_arguments import COLLATOR_OPTIONS, FactArguments, refuse_options


@dataclass
class SFEConfig(FactArguments, SFTConfig):
    """`SFTConfig` and `FactArguments` (paper sections 3.2 and 3.4)."""

    def __post_init__(self) -> None:
        """Refuse TRL options that the collator of test/reference pairs does not read."""
        super().__post_init__()
        self.check_fact_arguments()
        completion = {
            "packing": (False,),
            "eval_packing": (None, False),
            "completion_only_loss": (None, True),
            "assistant_only_loss": (False,),
        }
        reason = "SFE learns the answer of one question a row, whole and unpacked (eq. 8)"
        refuse_options(self, {**COLLATOR_OPTIONS, **completion}, reason)
        if self.label_smoothing_factor and self.shared_prefix:
            problem = f"label_smoothing_factor is {self.label_smoothing_factor}"
            cause = "it shifts labels itself, and those of prefix trees are shifted, several to a position"
            raise ValueError(f"{problem}; {cause}: set shared_prefix: false, or leave it out")
