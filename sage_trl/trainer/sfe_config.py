"""Configuration of stage 1, Self-Guided Fact Enhancement."""

from __future__ import annotations

from dataclasses import dataclass

from trl import SFTConfig

from sage_trl.trainer.fact_arguments import FactArguments


@dataclass
class SFEConfig(FactArguments, SFTConfig):
    """`SFTConfig` and `FactArguments` (paper sections 3.2 and 3.4)."""
