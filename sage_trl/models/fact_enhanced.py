"""The mixins that add self-guided fact enhancement (paper section 3.2) to a Hugging Face vision-language model.

`FactEnhancedModelMixin` goes before the backbone's inner model (the one without language head) and holds the forward
with the facts: TRL's fused head calls the inner model directly, so nothing of ours may live further out.
`FactEnhancedGenerationMixin` goes before the outer class and hands the fact inputs through generation.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers.conversion_mapping import get_checkpoint_conversion_mapping, register_checkpoint_conversion_mapping
from transformers.modeling_outputs import BaseModelOutputWithPooling

from sage_trl.models.fusion_attention import ComparisonPatches, FusionAttention, comparison_patches

FACT_TOKEN = "<fact>"
FACT_INPUTS = (
    "fact_input_ids",
    "fact_attention_mask",
    "reference_pixel_values",
    "reference_num_tiles",
    "reference_mask",
    "test_num_tiles",
)


def register_base_key_renaming(sage_class: type, base_class: type, base_model_type: str) -> None:
    """Give a subclass the key renaming of its base, so that a hub checkpoint loads whole.

    transformers skips the renaming for custom classes: the renamed tensors would silently stay random.
    """
    renaming = get_checkpoint_conversion_mapping(base_class.__name__)
    if renaming is None:
        renaming = get_checkpoint_conversion_mapping(base_model_type)
    if renaming is not None:
        register_checkpoint_conversion_mapping(sage_class.__name__, renaming, overwrite=True)


class FactEnhancedModelMixin:
    """Fact embeddings, patch selection and fusion for an inner model; the backbone supplies the hooks below.

    Hooks of the backbone:
        split_patches(features, num_tiles): the comparable patches of each row, `[P_i, C]` each.
        scatter_images(input_ids, inputs_embeds, features): embeddings with the image tokens filled in.
    """

    fusion: FusionAttention
    config: Any

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        fact_input_ids: Tensor | None = None,
        fact_attention_mask: Tensor | None = None,
        reference_pixel_values: Tensor | None = None,
        reference_num_tiles: Tensor | None = None,
        reference_mask: Tensor | None = None,
        test_num_tiles: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """The backbone's forward with each `<fact>` placeholder replaced by its comparison-enhanced token t^s.

        Args:
            input_ids: `[B, T]`, with one `<fact>` placeholder per real fact of the row.
            fact_input_ids: `[B, L_F, N]` token ids of the fact sentences; without it the backbone runs unchanged.
            fact_attention_mask: `[B, L_F, N]`; a fact without a real token is padding.
            reference_pixel_values: tiles of all references of the batch, in row order.
            reference_num_tiles: `[B]` tiles of each row's reference, 0 where it has none.
            reference_mask: `[B]`, false hides the reference of a row.
            test_num_tiles: `[B]` tiles of each row's test image, its last image; by default all tiles of the row.

        Raises:
            ValueError: facts without `input_ids` or without an image, or placeholders that do not match the facts.
        """
        super_forward = super().forward  # type: ignore[misc]
        if fact_input_ids is None:
            return super_forward(
                input_ids=input_ids,
                pixel_values=pixel_values,
                attention_mask=attention_mask,
                inputs_embeds=inputs_embeds,
                mm_encoder_outputs=mm_encoder_outputs,
                **kwargs,
            )
        if input_ids is None or fact_attention_mask is None:
            raise ValueError("facts need `input_ids` (not `inputs_embeds`) and `fact_attention_mask`")
        images = self._image_features(pixel_values, mm_encoder_outputs)
        is_fact = input_ids == self.config.fact_token_id
        embeddings = self.get_input_embeddings()  # type: ignore[attr-defined]
        # The placeholder's id may lie beyond the embedding matrix: any valid id does, the row is overwritten below.
        embeds = embeddings(input_ids.masked_fill(is_fact, 0))
        embeds = self.scatter_images(input_ids, embeds, images)  # type: ignore[attr-defined]

        facts, is_real_fact = self.embed_facts(fact_input_ids, fact_attention_mask)
        patches, image_rms = self._comparison_patches(
            input_ids, images, test_num_tiles, reference_pixel_values, reference_num_tiles, reference_mask
        )
        fused = self.fusion(facts, patches, image_rms)[is_real_fact]
        if int(is_fact.sum()) != fused.shape[0]:
            raise ValueError(
                f"the prompts hold {int(is_fact.sum())} {FACT_TOKEN} placeholders for {fused.shape[0]} facts; "
                "build them with the Sage processor, one placeholder per fact that has a token"
            )
        embeds = embeds.masked_scatter(is_fact.unsqueeze(-1), fused.to(embeds.dtype))
        return super_forward(inputs_embeds=embeds, attention_mask=attention_mask, **kwargs)

    @torch.no_grad()
    def embed_facts(self, fact_input_ids: Tensor, fact_attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled fact embeddings t^g: the mean of the real tokens' input embeddings, without gradient.

        Args:
            fact_input_ids, fact_attention_mask: `[B, L_F, N]`.

        Returns:
            `[B, L_F, C]` embeddings (zero for padding facts) and `[B, L_F]`, true for real facts.
        """
        embedded = self.get_input_embeddings()(fact_input_ids)  # type: ignore[attr-defined]
        weights = fact_attention_mask.unsqueeze(-1).to(embedded.dtype)
        count = weights.sum(dim=2)
        return (embedded * weights).sum(dim=2) / count.clamp(min=1), count.squeeze(-1) > 0

    def _image_features(
        self, pixel_values: Tensor | None, mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None
    ) -> Tensor:
        encoded = (mm_encoder_outputs or {}).get("image")
        if encoded is None:
            if pixel_values is None:
                raise ValueError("facts need the test image: pass `pixel_values` or `mm_encoder_outputs`")
            encoded = self.get_image_features(pixel_values, return_dict=True)  # type: ignore[attr-defined]
        features: Tensor = encoded.pooler_output
        return features

    def _comparison_patches(
        self,
        input_ids: Tensor,
        images: Tensor,
        test_num_tiles: Tensor | None,
        reference_pixel_values: Tensor | None,
        reference_num_tiles: Tensor | None,
        reference_mask: Tensor | None,
    ) -> tuple[ComparisonPatches, Tensor]:
        test_rows = self.split_test_patches(input_ids, images, test_num_tiles)  # type: ignore[attr-defined]
        test, test_mask = pad_rows(test_rows)
        reference = visible = None
        if reference_pixel_values is not None and reference_num_tiles is not None:
            features = self.get_image_features(reference_pixel_values, return_dict=True)  # type: ignore[attr-defined]
            rows = self.split_patches(features.pooler_output, reference_num_tiles.tolist())  # type: ignore[attr-defined]
            reference, visible = pad_rows(rows)
            if reference_mask is not None:
                visible = visible & reference_mask.bool()[:, None]
        patches = comparison_patches(
            test,
            test_mask,
            reference,
            visible,
            k=self.config.num_selected_patches,
            patch_similarity=self.config.patch_similarity,
            fusion_keys=self.config.fusion_keys,
            fusion_values=self.config.fusion_values,
        )
        mean_square = torch.stack([row.detach().float().square().mean() for row in test_rows])
        return patches, mean_square.sqrt()[:, None, None].to(test.dtype)


def pad_rows(rows: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Rows `[P_i, C]` -> `[B, max P, C]` padded with zeros, and `[B, max P]` true for real patches."""
    lengths = torch.tensor([len(row) for row in rows], device=rows[0].device)
    mask = torch.arange(int(lengths.max()), device=rows[0].device) < lengths[:, None]
    return pad_sequence(rows, batch_first=True), mask


class FactEnhancedGenerationMixin:
    """Hands the fact inputs to the first step of generation only: later steps read their effect from the cache."""

    def prepare_inputs_for_generation(self, input_ids: Tensor, **kwargs: Any) -> dict[str, Any]:
        """See `GenerationMixin.prepare_inputs_for_generation`; without a cache every step is a first one."""
        inputs: dict[str, Any] = super().prepare_inputs_for_generation(input_ids, **kwargs)  # type: ignore[misc]
        if not kwargs.get("is_first_iteration", False) and kwargs.get("use_cache", True):
            for name in FACT_INPUTS:
                inputs.pop(name, None)
        return inputs
