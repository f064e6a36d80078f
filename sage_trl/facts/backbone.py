"""Facts by the backbone itself (paper section 3.2): what it knows of the kind of part that a test image shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sage_trl.facts.prompts import fact_prompts
from sage_trl.facts.sentences import choose_sentences, split_sentences
from sage_trl.facts.writer import Part
from sage_trl.models.checkpoints import load_pretrained
from sage_trl.models.devices import inference_device, inference_dtype
from sage_trl.models.fingerprint import model_fingerprint
from sage_trl.models.generation import ModelReplyGenerator

VERSION = "backbone-1"


class BackboneWriter:
    """A vision-language model that is shown the image and asked `fact_prompts`, without the category and greedily.

    Args:
        model: a loaded model; a fusion that it may have takes no part.
        processor: its processor.
        name: what `facts.jsonl` calls it.
        count: sentences per image.
        batch_size: images at a time, each with every prompt.
        max_new_tokens: longest reply to one prompt.
    """

    def __init__(
        self, model: Any, processor: Any, *, name: str, count: int, batch_size: int, max_new_tokens: int
    ) -> None:
        self._reply = ModelReplyGenerator(model, processor, max_new_tokens, facts="none")
        self.prompts = [[{"role": "user", "content": prompt}] for prompt in fact_prompts(count)]
        self.model = name
        self.prompt_version = f"{VERSION} count-{count} tokens-{max_new_tokens}"
        self.count = count
        self.batch_size = batch_size

    def write(self, parts: Sequence[Part]) -> list[list[str]]:
        """See `FactWriter`; the category is not told."""
        rows = [
            {"images": [part.image], "reference_image": None, "facts": [], "prompt": prompt}
            for part in parts
            for prompt in self.prompts
        ]
        replies = [split_sentences(reply.text) for reply in self._reply(rows)] if rows else []
        step = len(self.prompts)
        return [choose_sentences(replies[start : start + step], self.count) for start in range(0, len(replies), step)]


def open_backbone(
    name_or_path: str, *, count: int, batch_size: int, max_new_tokens: int, revision: str | None = None
) -> BackboneWriter:
    """Load a model and let it write; on an accelerator in its own type, elsewhere in fp32.

    Its name in `facts.jsonl` is the hub id or the directory's name, with the start of its fingerprint.

    Raises:
        DataError: the model cannot be loaded.
    """
    device = inference_device()
    model, processor = load_pretrained(name_or_path, dtype=inference_dtype(device), revision=revision)
    model = model.to(device)
    fingerprint = model_fingerprint(name_or_path, getattr(model.config, "_commit_hash", None))
    name = Path(name_or_path).resolve().name if Path(name_or_path).is_dir() else name_or_path
    return BackboneWriter(
        model,
        processor,
        name=f"{name}@{fingerprint[:12]}",
        count=count,
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
    )
