"""SAGE on TRL: fact-enhanced, entropy-aware alignment of vision-language models for industrial anomaly reasoning.

The public names load on first use, so that a tool which needs no model does not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sage_trl.data.rows import load_ad_pl as load_ad_pl
    from sage_trl.models.checkpoints import load_pretrained as load_pretrained
    from sage_trl.models.fusion_attention import FusionAttention as FusionAttention
    from sage_trl.models.fusion_attention import select_distinct_patches as select_distinct_patches
    from sage_trl.preferences.entropy import answer_entropies as answer_entropies
    from sage_trl.preferences.entropy import mle_score as mle_score
    from sage_trl.preferences.selection import select_preference_pairs as select_preference_pairs
    from sage_trl.trainer.entropy_dpo_config import EntropyDPOConfig as EntropyDPOConfig
    from sage_trl.trainer.entropy_dpo_trainer import EntropyDPOTrainer as EntropyDPOTrainer
    from sage_trl.trainer.losses import entropy_dpo_loss as entropy_dpo_loss
    from sage_trl.trainer.sfe_config import SFEConfig as SFEConfig
    from sage_trl.trainer.sfe_trainer import SFETrainer as SFETrainer

_PUBLIC = {
    "EntropyDPOConfig": "sage_trl.trainer.entropy_dpo_config",
    "EntropyDPOTrainer": "sage_trl.trainer.entropy_dpo_trainer",
    "FusionAttention": "sage_trl.models.fusion_attention",
    "SFEConfig": "sage_trl.trainer.sfe_config",
    "SFETrainer": "sage_trl.trainer.sfe_trainer",
    "answer_entropies": "sage_trl.preferences.entropy",
    "entropy_dpo_loss": "sage_trl.trainer.losses",
    "load_ad_pl": "sage_trl.data.rows",
    "load_pretrained": "sage_trl.models.checkpoints",
    "mle_score": "sage_trl.preferences.entropy",
    "select_distinct_patches": "sage_trl.models.fusion_attention",
    "select_preference_pairs": "sage_trl.preferences.selection",
}
__all__ = sorted(_PUBLIC)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_PUBLIC]
