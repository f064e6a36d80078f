"""Greedy batched generation with a fact-enhanced model, or with any model that takes the same batches."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from sage_trl.models.encoding import encode_prompts, move_to_model, without_placeholders
from sage_trl.models.prompt import FactUse
from sage_trl.models.replies import Reply
from sage_trl.models.shared_prompts import SharedPrompts, generation_inputs, share_prompts
from sage_trl.models.yes_probability import YesProbability, find_yes_no_tokens


class ModelReplyGenerator:
    """Replies of one model: deterministic, one per row, rows with and without a reference mixed freely.

    Rows that show the same images and facts share the pass over them.

    Args:
        model: a loaded model, on the device where it shall run; put into evaluation mode.
        processor: its processor, as `load_pretrained` returns it.
        max_new_tokens: longest reply in tokens; a longer one is cut.
        facts: what becomes of the rows' facts.
        reference_in_prompt: show the reference as an image of the prompt, with wording that makes it the baseline.
        share_prefixes: read what rows share once, which takes a model and a processor of ours or of their bases.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        max_new_tokens: int,
        facts: FactUse = "fusion",
        reference_in_prompt: bool = False,
        share_prefixes: bool = True,
    ) -> None:
        self._model = model.eval()
        self._processor = processor
        self._options: dict[str, Any] = {"facts": facts, "reference_in_prompt": reference_in_prompt}
        self._share_prefixes = share_prefixes
        self._config = _greedy_config(model, max_new_tokens)
        self._yes_no = find_yes_no_tokens(processor.tokenizer)

    @torch.inference_mode()
    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> list[Reply]:
        """Reply to rows with decoded images; see `encode_prompts` for their fields."""
        shared = share_prompts(self._processor, rows, self._options) if self._share_prefixes else None
        if shared is None:
            inputs = move_to_model(encode_prompts(self._processor, rows, **self._options), self._model)
        else:
            on_device = {
                name: value.to(self._model.device) for name, value in vars(shared).items() if name != "prefixes"
            }
            prefixes = move_to_model(shared.prefixes, self._model)
            inputs = generation_inputs(self._model, SharedPrompts(prefixes=prefixes, **on_device))
        prompt_length = inputs["input_ids"].shape[1]
        chances = None if self._yes_no is None else YesProbability(self._yes_no)
        output = self._model.generate(
            **inputs, generation_config=self._config, logits_processor=None if chances is None else [chances]
        )
        replies = self._processor.tokenizer.batch_decode(output[:, prompt_length:], skip_special_tokens=True)
        return [
            # In a conversation a reply comes back as an earlier turn.
            Reply(without_placeholders(self._processor, reply).strip(), chance)
            for reply, chance in zip(replies, chances.of_rows if chances else [None] * len(replies), strict=True)
        ]


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
