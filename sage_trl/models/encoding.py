"""From rows with decoded images to the batch a fact-enhanced model takes (DESIGN: "Batches for the model")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from sage_trl.errors import DataError
from sage_trl.models.fact_enhanced import FACT_TOKEN
from sage_trl.models.prompt import with_images_and_facts


def render_prompt(processor: Any, row: Mapping[str, Any], *, use_facts: bool, reference_in_prompt: bool) -> str:
    """The prompt text of a row, ready for the answer's first token."""
    messages = with_images_and_facts(
        row["prompt"],
        num_facts=len(row["facts"]) if use_facts else 0,
        with_reference=reference_in_prompt and row["reference_image"] is not None,
    )
    text: str = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return text


def encode_prompts(
    processor: Any, rows: Sequence[Mapping[str, Any]], *, use_facts: bool = True, reference_in_prompt: bool = False
) -> dict[str, Tensor]:
    """Encode prompts, padded on the left.

    Args:
        processor: a Sage processor.
        rows: each with `prompt` (chat messages), `images` [the decoded test image], `reference_image` (decoded, or
            None) and `facts` (sentences).
        use_facts: write `<fact>` placeholders and add the fact and reference inputs.
        reference_in_prompt: show the reference as a first image in the prompt.

    Returns:
        The processor's batch and, with facts, `fact_input_ids`, `fact_attention_mask`, `test_num_tiles`,
        `reference_num_tiles`, `reference_mask` and, if any row has a reference, `reference_pixel_values`.

    Raises:
        DataError: a text holds a placeholder of the prompt.
    """
    for row in rows:
        _refuse_placeholders(processor, row)
    texts = [
        render_prompt(processor, row, use_facts=use_facts, reference_in_prompt=reference_in_prompt) for row in rows
    ]
    images = [
        [row["reference_image"], *row["images"]]
        if reference_in_prompt and row["reference_image"] is not None
        else list(row["images"])
        for row in rows
    ]
    batch = _process(processor, images, texts)
    if use_facts and any(row["facts"] for row in rows):
        batch |= encode_facts(processor.tokenizer, [list(row["facts"]) for row in rows])
        batch |= encode_references(processor, [row["reference_image"] for row in rows])
        if reference_in_prompt:
            batch["test_num_tiles"] = count_tiles(processor, [row["images"][-1] for row in rows])
    return batch


def _refuse_placeholders(processor: Any, row: Mapping[str, Any]) -> None:
    texts = [*row["facts"], *(message["content"] for message in row["prompt"])]
    for placeholder in (FACT_TOKEN, processor.image_token):
        found = next((text for text in texts if placeholder in text), None)
        if found is not None:
            name = f"question {row.get('group_id')}/{row.get('question_id')}"
            problem = f"{name}: {found!r} holds {placeholder}, which stands for a fact or an image"
            raise DataError(f"{problem}\n  remedy: remove it from the question or the facts")


def encode_facts(tokenizer: Any, facts: Sequence[Sequence[str]]) -> dict[str, Tensor]:
    """`fact_input_ids` and `fact_attention_mask`, both `[B, L_F, N]`; rows with fewer facts get padding facts."""
    most = max(len(sentences) for sentences in facts)
    flat = [sentence for sentences in facts for sentence in sentences]
    encoded = tokenizer(flat, padding=True, padding_side="right", add_special_tokens=False, return_tensors="pt")
    length = encoded["input_ids"].shape[1]
    ids = torch.full((len(facts), most, length), tokenizer.pad_token_id)
    mask = torch.zeros((len(facts), most, length), dtype=torch.long)
    start = 0
    for row, sentences in enumerate(facts):
        stop = start + len(sentences)
        ids[row, : len(sentences)] = encoded["input_ids"][start:stop]
        mask[row, : len(sentences)] = encoded["attention_mask"][start:stop]
        start = stop
    return {"fact_input_ids": ids, "fact_attention_mask": mask}


def encode_references(processor: Any, references: Sequence[Image | None]) -> dict[str, Tensor]:
    """Pixels of the references that are there, with `reference_num_tiles` and `reference_mask`, both `[B]`."""
    present = [image for image in references if image is not None]
    mask = torch.tensor([image is not None for image in references])
    tiles = torch.zeros(len(references), dtype=torch.long)
    if not present:
        return {"reference_num_tiles": tiles, "reference_mask": mask}
    batch = _process(processor, [[image] for image in present], [processor.image_token] * len(present))
    tiles[mask] = _tiles_per_row(processor, batch["input_ids"])
    return {
        "reference_pixel_values": batch["pixel_values"],
        "reference_num_tiles": tiles,
        "reference_mask": mask,
    }


def count_tiles(processor: Any, images: Sequence[Image]) -> Tensor:
    """Tiles the processor cuts each image into, `[len(images)]`."""
    batch = _process(processor, [[image] for image in images], [processor.image_token] * len(images))
    return _tiles_per_row(processor, batch["input_ids"])


def _tiles_per_row(processor: Any, input_ids: Tensor) -> Tensor:
    image_token_id: int = processor.image_token_id
    image_seq_length: int = processor.image_seq_length
    return (input_ids == image_token_id).sum(dim=1) // image_seq_length


def _process(processor: Any, images: list[list[Image]], texts: list[str]) -> dict[str, Tensor]:
    # The chat template has written every special token already.
    batch = processor(
        images=images, text=texts, padding=True, padding_side="left", add_special_tokens=False, return_tensors="pt"
    )
    return dict(batch)
