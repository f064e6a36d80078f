"""Facts by the backbone itself (paper section 3.2): what it knows of the kind of part that a test image shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from sage_trl.facts.sentences import choose_sentences, split_sentences
from sage_trl.facts.writer import Part
from sage_trl.models.checkpoints import load_pretrained
from sage_trl.models.fingerprint import model_fingerprint
from sage_trl.models.generation import ModelReplyGenerator

# The second question is the paper's; of the others it gives the subject only.
PROMPTS = (
    "What object does this picture show, and what should a good one look like?",
    "What kind of anomalies does this type of object tend to exhibit?",
    "What causes anomalies of this type of object, and what are their consequences when it is used?",
)
INSTRUCTION = "Write {count} short, complete sentences, each of which says one thing. Write nothing else."
VERSION = "backbone-1"


class BackboneWriter:
    """A vision-language model that is shown the image and asked `PROMPTS`, without the category and greedily.

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
        share = math.ceil(count / len(PROMPTS)) + 1  # one to spare, for those that repeat
        instruction = INSTRUCTION.format(count=share)
        self.prompts = [[{"role": "user", "content": f"{prompt}\n{instruction}"}] for prompt in PROMPTS]
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
        replies = [split_sentences(reply) for reply in self._reply(rows)] if rows else []
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
    has_accelerator = torch.accelerator.is_available()
    model, processor = load_pretrained(
        name_or_path, dtype="auto" if has_accelerator else torch.float32, revision=revision
    )
    if has_accelerator:
        model = model.to(torch.accelerator.current_accelerator())
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
