"""One module per supported base model: a configuration, a model and a processor each."""

from __future__ import annotations

from sage_trl.models.backbones import internvl, llava_next, llava_onevision, qwen2_5_vl, qwen2_vl
from sage_trl.models.backbones.registry import Backbone

BACKBONES: tuple[Backbone, ...] = (
    internvl.BACKBONE,
    llava_next.BACKBONE,
    llava_onevision.BACKBONE,
    qwen2_vl.BACKBONE,
    qwen2_5_vl.BACKBONE,
)
BY_BASE_MODEL_TYPE: dict[str, Backbone] = {backbone.base_model_type: backbone for backbone in BACKBONES}
BY_MODEL_TYPE: dict[str, Backbone] = {backbone.model_type: backbone for backbone in BACKBONES}
