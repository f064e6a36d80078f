"""The mixin for a backbone's outer class: a head on the fact-enhanced inner model, and generation with facts."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from sage_trl.models.fact_enhanced import (
    FACT_INPUTS,
    REFERENCE_PREFIX,
    FactEnhancedModelMixin,
    FusionInitializationMixin,
)


class FactEnhancedGenerationMixin(FusionInitializationMixin):
    """The outer class: a head on the inner model, and generation with facts.

    The fact inputs go to the first step of generation only: later steps read their effect from the cache.

    Attributes:
        inner_class: the fact-enhanced inner model.
        all_fact_inputs: names of the inputs that facts and references add to the base's.
    """

    inner_class: ClassVar[type[FactEnhancedModelMixin]]
    all_fact_inputs: ClassVar[tuple[str, ...]]
    config: Any
    forward: Any

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # `generate` and the trainers check their inputs against this signature.
        names = [*FACT_INPUTS, *cls.inner_class.fact_inputs]
        names += [f"{REFERENCE_PREFIX}{name}" for name in cls.inner_class.image_inputs]
        cls.all_fact_inputs = tuple(names)
        # FSDP2 derives a class of its own from a model's, which has the signature already.
        missing = [name for name in names if name not in inspect.signature(cls.forward).parameters]
        if missing:
            cls.forward = _forward_naming(cls, missing)

    def __init__(self, config: Any) -> None:
        # Skips the base's own constructor, which would build a second, plain inner model.
        PreTrainedModel.__init__(self, config)  # type: ignore[arg-type]
        self.model: Any = self.inner_class(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()  # type: ignore[attr-defined]

    def prepare_inputs_for_generation(self, input_ids: Tensor, **kwargs: Any) -> dict[str, Any]:
        """See `GenerationMixin.prepare_inputs_for_generation`; without a cache every step is a first one."""
        inputs: dict[str, Any] = super().prepare_inputs_for_generation(input_ids, **kwargs)  # type: ignore[misc]
        if not kwargs.get("is_first_iteration", False) and kwargs.get("use_cache", True):
            for name in self.all_fact_inputs:
                inputs.pop(name, None)
        return inputs

    def _expand_inputs_for_generation(
        self, expand_size: int = 1, is_encoder_decoder: bool = False, input_ids: Tensor | None = None, **inputs: Any
    ) -> Any:
        """As transformers, which repeats every tensor by its first axis; an image may have several entries there."""
        references = {name: inputs.pop(name) for name in list(inputs) if name.startswith(REFERENCE_PREFIX)}
        expanded = super()._expand_inputs_for_generation(  # type: ignore[misc]
            expand_size=expand_size, is_encoder_decoder=is_encoder_decoder, input_ids=input_ids, **inputs
        )
        pixels = f"{REFERENCE_PREFIX}pixel_values"
        if references.get(pixels) is not None:
            named = {name.removeprefix(REFERENCE_PREFIX): value for name, value in references.items()}
            images = references.pop(pixels).split(self.model.pixels_per_image(named))
            expanded[1][pixels] = torch.cat([image for image in images for _ in range(expand_size)])
        for name, value in references.items():
            expanded[1][name] = value.repeat_interleave(expand_size, dim=0)
        return expanded

    def enable_input_require_grads(self) -> None:
        """Let gradients start at the text embeddings, for gradient checkpointing over frozen weights.

        transformers hooks the patch embeddings too, whereupon the frozen tower is back-propagated for nothing.
        """
        embeddings = self.model.get_input_embeddings()
        hook = embeddings.register_forward_hook(lambda _module, _inputs, output: output.requires_grad_(True))
        self._require_grads_hooks = [hook]
        self._require_grads_hook = hook


def _forward_naming(cls: Any, names: Sequence[str]) -> Any:
    """The forward that `cls` inherits, with further `names` in its signature."""
    signature = inspect.signature(cls.forward)
    inherited = list(signature.parameters.values())
    keyword = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in names]

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return super(cls, self).forward(*args, **kwargs)  # type: ignore[misc]

    forward.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*inherited[:-1], *keyword, inherited[-1]]
    )
    return forward
