"""The settings of the fusion, which every Sage configuration holds beside those of its base."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sage_trl.errors import DataError
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
        learned_queries: so many learned embeddings in the place of the encoded facts, a control; 0 for the facts.
    """

    fact_token_id: int | None = None
    num_selected_patches: int = 16
    fusion_num_heads: int = 8
    patch_similarity: PatchSimilarity = "nearest"
    fusion_keys: PatchFeature = "difference"
    fusion_values: PatchFeature = "difference"
    learned_queries: int = 0


# What a user may choose for a new fusion.
FUSION_SETTINGS = tuple(field.name for field in dataclasses.fields(FusionSettings) if field.name != "fact_token_id")


def check_fusion_settings(settings: Mapping[str, Any]) -> None:
    """Check the names of settings and the values of those that are choices.

    Raises:
        DataError: names the setting, its value and what is allowed.
    """
    types = typing.get_type_hints(FusionSettings)
    for name, value in settings.items():
        if name not in FUSION_SETTINGS:
            raise DataError(f"fusion setting {name!r} is unknown\n  remedy: use one of {', '.join(FUSION_SETTINGS)}")
        choices = typing.get_args(types[name])
        if choices and value not in choices:
            raise DataError(f"fusion setting {name} is {value!r}\n  remedy: use one of {', '.join(choices)}")
