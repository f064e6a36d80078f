"""The mixin that adds self-guided fact enhancement (paper section 3.2) to a Hugging Face vision-language model.

It goes before the backbone's inner model (the one without language head) and holds the forward with the facts: TRL's
fused head calls the inner model directly, so nothing of ours may live further out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from sage_trl.models.fusion_attention import FusionAttention, FusionInputs, FusionLinear, comparison_patches
from sage_trl.models.prompt import FACT_TOKEN
from sage_trl.trees.tree_attention import SPLIT_ATTENTION, dense_mask, prepare_split

REFERENCE_PREFIX = "reference_"
# What tells which images of a batch are the same one.
SAME_IMAGE_INPUTS = ("image_index", "image_num_tiles")
FACT_INPUTS = (
    *("fact_input_ids", "fact_attention_mask", "reference_mask", "tree_spans", "scored_positions"),
    *SAME_IMAGE_INPUTS,
    f"{REFERENCE_PREFIX}image_index",
)


class FusionInitializationMixin:
    """Initialises the fusion's layers beside the backbone's own."""

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, FusionLinear | FusionAttention):
            module.reset_parameters()
        else:
            super()._init_weights(module)  # type: ignore[misc]


class FactEnhancedModelMixin(FusionInitializationMixin):
    """Fact embeddings, patch selection and fusion for an inner model; every base parameter keeps its name.

    A backbone whose `get_image_features` gives one tensor per image needs `image_inputs` alone. The hooks:

    Attributes:
        image_inputs: arguments of the base's `get_image_features`, `pixel_values` first. The references come as the
            same names with `reference_` before them, in the order of the rows that have one.
        fact_inputs: further arguments that only the forward with facts reads.
        test_image_inputs: those of `image_inputs` that `split_test_images` reads as well.
        forwards_input_ids: whether the base's forward takes `input_ids` beside `inputs_embeds`, to count positions.
    """

    image_inputs: ClassVar[tuple[str, ...]]
    fact_inputs: ClassVar[tuple[str, ...]] = ()
    test_image_inputs: ClassVar[tuple[str, ...]] = ()
    forwards_input_ids: ClassVar[bool] = False
    fusion: FusionAttention
    config: Any

    def __init__(self, config: Any) -> None:
        super().__init__(config)  # type: ignore[call-arg]
        self.fusion = FusionAttention(config.text_config.hidden_size, config.fusion_num_heads, config.learned_queries)
        self.post_init()  # type: ignore[attr-defined]

    def comparable_patches(self, image: Tensor) -> Tensor:
        """The patches of one image that eq. 1 compares: `[N, C]` image tokens -> `[P, C]`."""
        return image

    def split_images(self, features: Sequence[Tensor], **_companions: Tensor) -> list[Tensor]:
        """Comparable patches `[P_i, C]` of every image in order.

        Args:
            features: the base's image features, one tensor `[N_i, C]` per image.
            companions: what came with the images beside the pixels.
        """
        return [self.comparable_patches(image) for image in features]

    def pixels_per_image(self, images: Mapping[str, Tensor]) -> list[int]:
        """Entries of `pixel_values` that each image has."""
        return [1] * len(images["pixel_values"])

    def repeat_images(self, features: Sequence[Tensor], image_index: Tensor, _num_tiles: Tensor | None) -> Any:
        """Features of all images of a batch from those of the distinct ones.

        Args:
            features: as in `split_images`, of the distinct images.
            image_index: `[images]` which of them each image is.
        """
        return [features[index] for index in image_index.tolist()]

    def split_test_images(self, input_ids: Tensor, features: Sequence[Tensor], **_inputs: Tensor) -> list[Tensor]:
        """Comparable patches `[P_i, C]` of each row's test image, the last image of its prompt.

        Args:
            input_ids: `[B, T]`.
            features: as in `split_images`, of all images of the prompts.
            inputs: what `fact_inputs` and `test_image_inputs` name.
        """
        return [self.comparable_patches(features[place]) for place in self.test_image_places(input_ids, features)]

    def test_image_places(self, input_ids: Tensor, features: Sequence[Tensor]) -> list[int]:
        """Which of all images of the prompts is each row's last, where features are one tensor per image."""
        places, place = [], -1
        for tokens in (input_ids == self.config.image_token_id).sum(dim=1).tolist():
            if not tokens:
                raise ValueError("facts need a test image in every row of the batch")
            seen = 0
            while seen < tokens:
                place += 1
                seen += len(features[place])
            places.append(place)
        return places

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        mm_encoder_outputs: Mapping[str, Any] | None = None,
        fact_input_ids: Tensor | None = None,
        fact_attention_mask: Tensor | None = None,
        reference_mask: Tensor | None = None,
        tree_spans: Tensor | None = None,
        scored_positions: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """The backbone's forward with each `<fact>` placeholder replaced by its comparison-enhanced token t^s.

        Args:
            input_ids: `[B, T]`, with one `<fact>` placeholder per real fact of the row.
            fact_input_ids: `[B, L_F, N]` token ids of the fact sentences; without it the backbone runs unchanged.
            fact_attention_mask: `[B, L_F, N]`; a fact without a real token is padding.
            reference_mask: `[B]`, true for rows with a reference; without it all rows have one if any has.
            tree_spans: `[B, S, 3]` where each row is a packed prefix tree; see `trees.spans.read_spans`. Then
                `position_ids` `[B, T]` count along each branch.
            scored_positions: `[B, K]` the positions whose last hidden states are returned, instead of all: without
                Triton the fused head scores every position it gets.
            kwargs: the backbone's inputs, `reference_` companions of `image_inputs`, and `fact_inputs`. With
                `image_index` `[images]`, or `reference_image_index`, the vision tower sees each distinct image once;
                see `same_images.same_images`.

        Raises:
            ValueError: facts without `input_ids` or without an image, or placeholders that do not match the facts.
        """
        super_forward = super().forward  # type: ignore[misc]
        references, extra = self._take_fact_inputs(kwargs)
        if tree_spans is not None:
            kwargs["position_ids"] = self.tree_position_ids(
                **{"input_ids": input_ids, "attention_mask": attention_mask, **kwargs}
            )
            attention_mask = self._prepare_tree(tree_spans, attention_mask, kwargs)
        if kwargs.get("image_index") is not None and mm_encoder_outputs is None:
            mm_encoder_outputs = {"image": self._encode_images(kwargs)}
            del kwargs["pixel_values"]
        for name in SAME_IMAGE_INPUTS:
            kwargs.pop(name, None)
        if fact_input_ids is None:
            output = super_forward(
                input_ids=input_ids,
                attention_mask=attention_mask,
                inputs_embeds=inputs_embeds,
                mm_encoder_outputs=mm_encoder_outputs,
                **kwargs,
            )
            return _at_positions(output, scored_positions)
        if input_ids is None or fact_attention_mask is None:
            raise ValueError("facts need `input_ids` (not `inputs_embeds`) and `fact_attention_mask`")
        features = self._image_features(mm_encoder_outputs, kwargs)
        kwargs.pop("pixel_values", None)
        is_fact = input_ids == self.config.fact_token_id
        embeds = self._embed_prompt(input_ids, is_fact, features)

        inputs = self._fusion_inputs(
            input_ids, features, extra, (fact_input_ids, fact_attention_mask), (references, reference_mask)
        )
        fused = self.fusion(inputs.facts, inputs.patches, inputs.image_rms)[inputs.is_real_fact]
        if int(is_fact.sum()) != fused.shape[0]:
            raise ValueError(
                f"the prompts hold {int(is_fact.sum())} {FACT_TOKEN} placeholders for {fused.shape[0]} facts; "
                "build them with the Sage processor, one placeholder per fact that has a token"
            )
        embeds = embeds.masked_scatter(is_fact.unsqueeze(-1), fused.to(embeds.dtype))
        if self.forwards_input_ids:
            kwargs["input_ids"] = input_ids
        output = super_forward(inputs_embeds=embeds, attention_mask=attention_mask, **kwargs)
        return _at_positions(output, scored_positions)

    def fusion_inputs(
        self,
        input_ids: Tensor,
        fact_input_ids: Tensor,
        fact_attention_mask: Tensor,
        reference_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> FusionInputs:
        """What the forward would fuse, found without a pass of the language model; arguments as in `forward`."""
        references, extra = self._take_fact_inputs(kwargs)
        features = self._image_features(None, kwargs)
        facts = (fact_input_ids, fact_attention_mask)
        return self._fusion_inputs(input_ids, features, extra, facts, (references, reference_mask))

    def tree_position_ids(self, **inputs: Any) -> Tensor:
        """Positions of packed trees as the backbone wants them, from `position_ids` `[B, T]` along each branch."""
        positions: Tensor = inputs["position_ids"]
        return positions

    def _prepare_tree(self, tree_spans: Tensor, attention_mask: Tensor | None, kwargs: dict[str, Any]) -> Tensor:
        """The mask that limits attention to ancestors; for the split form a stand-in that transformers lets through."""
        if attention_mask is None:
            raise ValueError("trees need `attention_mask`, which says where a row is padding")
        implementation = self.config.get_text_config()._attn_implementation
        dtype = self.get_input_embeddings().weight.dtype  # type: ignore[attr-defined]
        if implementation == SPLIT_ATTENTION:
            kwargs["tree"] = prepare_split(tree_spans, attention_mask.shape[1], dtype)
            return attention_mask.new_ones(1, 1, 1, 1)
        mask = dense_mask(tree_spans, attention_mask.shape[1])
        if implementation == "sdpa":
            return mask
        if implementation == "eager":
            return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)
        raise ValueError(f"attention {implementation!r} takes no tree; set it to sdpa, eager or {SPLIT_ATTENTION}")

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

    def _embed_prompt(self, input_ids: Tensor, is_fact: Tensor, features: Sequence[Tensor]) -> Tensor:
        # The placeholder's id may lie beyond the embedding matrix: any valid id does, the row is overwritten later.
        embeds: Tensor = self.get_input_embeddings()(input_ids.masked_fill(is_fact, 0))  # type: ignore[attr-defined]
        tokens = torch.cat(tuple(features)).to(embeds.device, embeds.dtype)
        mask = self.get_placeholder_mask(input_ids, inputs_embeds=embeds, image_features=tokens)  # type: ignore[attr-defined]
        # Backbones that read videos too give a second mask for them.
        image_mask = mask[0] if isinstance(mask, tuple) else mask
        return embeds.masked_scatter(image_mask, tokens)

    def _image_features(self, encoded: Mapping[str, Any] | None, inputs: Mapping[str, Any]) -> Sequence[Tensor]:
        images = (encoded or {}).get("image")
        if images is None:
            if inputs.get("pixel_values") is None:
                raise ValueError("facts need the test image: pass `pixel_values` or `mm_encoder_outputs`")
            images = self._encode_images(inputs)
        features: Sequence[Tensor] = images.pooler_output
        return features

    def _encode_images(self, inputs: Mapping[str, Any]) -> Any:
        images = {name: inputs[name] for name in self.image_inputs if inputs.get(name) is not None}
        index = inputs.get("image_index")
        if index is None:
            return self.get_image_features(**images, return_dict=True)  # type: ignore[attr-defined]
        num_tiles = inputs.get("image_num_tiles", inputs.get("num_tiles"))
        counts = self.pixels_per_image(images if num_tiles is None else {**images, "num_tiles": num_tiles})
        pixels = images["pixel_values"].split(counts)
        listed = index.tolist()
        first = [listed.index(image) for image in range(max(listed) + 1)]
        distinct = {name: values[first] for name, values in images.items() if name != "pixel_values"}
        distinct["pixel_values"] = torch.cat([pixels[image] for image in first])
        encoded = self.get_image_features(**distinct, return_dict=True)  # type: ignore[attr-defined]
        encoded.pooler_output = self.repeat_images(encoded.pooler_output, index, num_tiles)
        return encoded

    def _reference_patches(
        self, references: Mapping[str, Tensor], reference_mask: Tensor | None, batch_size: int
    ) -> tuple[Tensor | None, Tensor | None]:
        """Reference patches `[B, R, C]` and `[B, R]` true for real ones; None where there are none.

        An image that comes though no row has a reference is encoded, and masked.
        """
        if references.get("pixel_values") is None:
            return None, None
        used = (*self.image_inputs, "image_index")
        companions = {name: value for name, value in references.items() if name not in used}
        present = self.split_images(self._encode_images(references).pooler_output, **companions)
        has_reference = [True] * batch_size if reference_mask is None else reference_mask.bool().tolist()
        if len(present) == 1 and not any(has_reference):
            # It stands in for the references that no row has; masked, and yet part of the graph.
            patches, real = pad_rows(present * batch_size)
            return patches, torch.zeros_like(real)
        if sum(has_reference) != len(present):
            raise ValueError(f"reference_mask has {sum(has_reference)} rows with a reference, and {len(present)} came")
        images = iter(present)
        return pad_rows([next(images) if has else present[0][:0] for has in has_reference])

    def _take_fact_inputs(self, kwargs: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Take the references' inputs, without the prefix of their names, and what `split_test_images` reads."""
        names = [name for name in kwargs if name.startswith(REFERENCE_PREFIX)]
        references = {name.removeprefix(REFERENCE_PREFIX): kwargs.pop(name) for name in names}
        extra = {name: kwargs.pop(name) for name in self.fact_inputs if name in kwargs}
        return references, extra | {name: kwargs[name] for name in self.test_image_inputs if name in kwargs}

    def _fusion_inputs(
        self,
        input_ids: Tensor,
        features: Sequence[Tensor],
        extra: Mapping[str, Tensor],
        facts: tuple[Tensor, Tensor],
        references: tuple[Mapping[str, Tensor], Tensor | None],
    ) -> FusionInputs:
        """The fusion's inputs from image features, (fact ids, their mask) and (references' inputs, reference_mask)."""
        embedded, is_real_fact = self.embed_facts(*facts)
        test_rows = self.split_test_images(input_ids, features, **extra)
        reference, visible = self._reference_patches(*references, len(input_ids))
        test, test_mask = pad_rows(test_rows)
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
        image_rms = mean_square.sqrt()[:, None, None].to(test.dtype)
        return FusionInputs(embedded, patches, image_rms, is_real_fact, test_mask.sum(dim=1))


def pad_rows(rows: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Rows `[P_i, C]` -> `[B, max P, C]` padded with zeros, and `[B, max P]` true for real patches."""
    lengths = torch.tensor([len(row) for row in rows], device=rows[0].device)
    mask = torch.arange(int(lengths.max()), device=rows[0].device) < lengths[:, None]
    return pad_sequence(rows, batch_first=True), mask


def _at_positions(output: Any, positions: Tensor | None) -> Any:
    if positions is not None:
        hidden = output.last_hidden_state
        output.last_hidden_state = hidden.gather(1, positions[..., None].expand(-1, -1, hidden.shape[-1]))
    return output
