"""The settings of the fusion, which every Sage configuration holds beside those of its base."""

from __future__ import annotations

from dataclasses import dataclass

from sage_trl.models.fusion_attention import PatchFeature, PatchSimilarity


@dataclass(kw_only=True)
class FusionSettings:
    """Mixed into a backbone's configuration (DESIGN: "Saved with a model or adapter").

    Args:
        fact_token_id: id of the `<fact>` placeholder; it may lie beyond the embedding matrix.
        num_selected_patches: K of eq. 1.
        fusion_num_heads: heads of eq. 2.
        patch_similarity: `nearest` or `farthest` (eq. 1).
        fusion_keys, fusion_values: `patch` or `difference` (eq. 2).
    """

    fact_token_id: int | None = None
    num_selected_patches: int = 16
    fusion_num_heads: int = 8
    patch_similarity: PatchSimilarity = "nearest"
    fusion_keys: PatchFeature = "difference"
    fusion_values: PatchFeature = "difference"
