"""Greedy batched generation with a fact-enhanced model, or with any model that takes the same batches."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from sage_trl.models.encoding import encode_prompts
from sage_trl.models.prompt import FactUse


class ModelReplyGenerator:
    """Replies of one model: deterministic, one per row, rows with and without a reference mixed freely.

    Args:
        model: a loaded model, on the device where it shall run; put into evaluation mode.
        processor: its processor, as `load_pretrained` returns it.
        max_new_tokens: longest reply in tokens; a longer one is cut.
        facts: what becomes of the rows' facts.
        reference_in_prompt: show the reference as an image of the prompt, with wording that makes it the baseline.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        max_new_tokens: int,
        facts: FactUse = "fusion",
        reference_in_prompt: bool = False,
    ) -> None:
        self._model = model.eval()
        self._processor = processor
        self._facts = facts
        self._reference_in_prompt = reference_in_prompt
        self._config = _greedy_config(model, max_new_tokens)

    @torch.inference_mode()
    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> list[str]:
        """Reply to rows with decoded images; see `encode_prompts` for their fields."""
        batch = encode_prompts(self._processor, rows, facts=self._facts, reference_in_prompt=self._reference_in_prompt)
        batch = {name: self._to_model(value) for name, value in batch.items()}
        prompt_length = batch["input_ids"].shape[1]
        output = self._model.generate(**batch, generation_config=self._config)
        replies = self._processor.tokenizer.batch_decode(output[:, prompt_length:], skip_special_tokens=True)
        return [reply.strip() for reply in replies]

    def _to_model(self, value: torch.Tensor) -> torch.Tensor:
        dtype = self._model.dtype if value.is_floating_point() else value.dtype
        return value.to(device=self._model.device, dtype=dtype)


def _greedy_config(model: Any, max_new_tokens: int) -> Any:
    """The model's own generation settings (stop tokens, padding), made greedy."""
    config = copy.deepcopy(model.generation_config)
    config.max_new_tokens = max_new_tokens
    config.max_length = None
    config.do_sample = False
    config.num_beams = 1
    # Hub models bring sampling values along, about which greedy generation would warn at every call.
    config.temperature = config.top_p = config.top_k = None
    return config
