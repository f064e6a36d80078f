"""From rows with decoded images to the batch a fact-enhanced model takes (DESIGN: "Batches for the model")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL.Image import Image
from PIL.Image import new as new_image
from torch import Tensor

from sage_trl.errors import DataError
from sage_trl.models.fact_enhanced import REFERENCE_PREFIX
from sage_trl.models.prompt import FACT_TOKEN, FactUse, with_images_and_facts

# What a processor makes of a prompt beside the images themselves.
PROMPT_INPUTS = ("input_ids", "attention_mask", "mm_token_type_ids", "batch_num_images")


def render_prompt(processor: Any, row: Mapping[str, Any], *, facts: FactUse, reference_in_prompt: bool) -> str:
    """The prompt text of a row, ready for the answer's first token."""
    messages = with_images_and_facts(
        row["prompt"],
        row["facts"],
        facts,
        with_reference=reference_in_prompt and row["reference_image"] is not None,
    )
    text: str = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return text


def encode_prompts(
    processor: Any, rows: Sequence[Mapping[str, Any]], *, facts: FactUse = "fusion", reference_in_prompt: bool = False
) -> dict[str, Tensor]:
    """Encode prompts, padded on the left.

    Args:
        processor: a Sage processor.
        rows: each with `prompt` (chat messages), `images` [the decoded test image], `reference_image` (decoded, or
            None) and `facts` (sentences).
        facts: `fusion` writes `<fact>` placeholders and adds the fact and reference inputs; `hard` writes the
            sentences.
        reference_in_prompt: show the reference as a first image in the prompt.

    Returns:
        The processor's batch and, with facts, `fact_input_ids`, `fact_attention_mask`, what `encode_references` makes
        and, for a backbone with tiles and several images in a prompt, `test_num_tiles` `[B]`.

    Raises:
        DataError: a text holds a placeholder of the prompt.
    """
    for row in rows:
        refuse_placeholders(processor, row)
    texts = [render_prompt(processor, row, facts=facts, reference_in_prompt=reference_in_prompt) for row in rows]
    images = [
        [row["reference_image"], *row["images"]]
        if reference_in_prompt and row["reference_image"] is not None
        else list(row["images"])
        for row in rows
    ]
    batch = _process(processor, images, texts)
    if facts == "fusion" and any(row["facts"] for row in rows):
        batch |= encode_facts(processor.tokenizer, [list(row["facts"]) for row in rows])
        batch |= encode_references(processor, [row["reference_image"] for row in rows])
        if reference_in_prompt and counts_tiles(processor):
            batch["test_num_tiles"] = encode_images(processor, [row["images"][-1] for row in rows])["num_tiles"]
    return batch


def encode_prompt_ids(
    processor: Any,
    rows: Sequence[Mapping[str, Any]],
    first: Sequence[int],
    *,
    facts: FactUse,
    reference_in_prompt: bool,
) -> list[list[int]]:
    """Token ids of prompts that show the same images and facts, without reading the images again.

    Args:
        processor: a Sage processor.
        rows: as in `encode_prompts`.
        first: token ids of the first row's prompt, as the processor made them.
        facts, reference_in_prompt: as in `encode_prompts`.
    """
    short = encode_prompt_texts(processor, rows, facts=facts, reference_in_prompt=reference_in_prompt)
    image_token = processor.image_token_id
    if short[0].count(image_token) != 1:
        # How many tokens each of several images has is known to the processor alone.
        batches = [encode_prompts(processor, [row], facts=facts, reference_in_prompt=True) for row in rows]
        return [batch["input_ids"][0].tolist() for batch in batches]
    at = short[0].index(image_token)
    behind = len(short[0]) - at - 1
    image = list(first[at : len(first) - behind])
    return [ids[: ids.index(image_token)] + image + ids[ids.index(image_token) + 1 :] for ids in short]


def encode_prompt_texts(
    processor: Any, rows: Sequence[Mapping[str, Any]], *, facts: FactUse, reference_in_prompt: bool
) -> list[list[int]]:
    """Token ids of prompts in which each image is the one placeholder of its text; arguments as in `encode_prompts`."""
    for row in rows:
        refuse_placeholders(processor, row)
    texts = [render_prompt(processor, row, facts=facts, reference_in_prompt=reference_in_prompt) for row in rows]
    return [processor.tokenizer(text, add_special_tokens=_needs_start(processor, text))["input_ids"] for text in texts]


def count_image_tokens(processor: Any, size: tuple[int, int]) -> int:
    """Tokens that stand in a prompt for its only image of that width and height, markers around it included."""
    text = processor.image_token
    short = processor.tokenizer(text, add_special_tokens=_needs_start(processor, text))["input_ids"]
    whole = _process(processor, [[new_image("RGB", size)]], [text])["input_ids"]
    return int(whole.shape[1]) - len(short) + 1


def refuse_placeholders(processor: Any, row: Mapping[str, Any]) -> None:
    """Refuse a row whose prompt or facts hold what stands for a fact, an image or a video with this processor.

    Raises:
        DataError: names the row and the text.
    """
    texts = [*row["facts"], *(message["content"] for message in row["prompt"])]
    for placeholder in _placeholders(processor):
        found = next((text for text in texts if placeholder in text), None)
        if found is not None:
            name = f"question {row.get('group_id')}/{row.get('question_id')}"
            problem = f"{name}: {found!r} holds {placeholder}, which stands for a fact, an image or a video"
            raise DataError(f"{problem}\n  remedy: remove it from the question or the facts")


def without_placeholders(processor: Any, text: str) -> str:
    """The text without what `refuse_placeholders` would refuse."""
    for placeholder in _placeholders(processor):
        text = text.replace(placeholder, "")
    return text


def _placeholders(processor: Any) -> list[str]:
    named = [getattr(processor, name, None) for name in ("image_token", "video_token")]
    return [FACT_TOKEN, *filter(None, named)]


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
    """`reference_mask` `[B]` and, if there is any reference, its image inputs with `reference_` before their names.

    The image inputs hold the references that are there, in order.
    """
    present = [image for image in references if image is not None]
    inputs = {"mask": torch.tensor([image is not None for image in references])}
    if present:
        inputs |= encode_images(processor, present)
    return {f"{REFERENCE_PREFIX}{name}": value for name, value in inputs.items()}


def encode_images(processor: Any, images: Sequence[Image]) -> dict[str, Tensor]:
    """What the processor makes of images that stand alone, text aside; with `num_tiles` where it counts tiles."""
    batch = _process(processor, [[image] for image in images], [processor.image_token] * len(images))
    inputs = {name: value for name, value in batch.items() if name not in PROMPT_INPUTS}
    if counts_tiles(processor):
        inputs["num_tiles"] = processor.count_tiles(batch["input_ids"])
    return inputs


def move_to_model(batch: Mapping[str, Tensor], model: Any) -> dict[str, Tensor]:
    """A batch on the model's device, its floating-point tensors in the model's type."""
    return {
        name: value.to(device=model.device, dtype=model.dtype if value.is_floating_point() else value.dtype)
        for name, value in batch.items()
    }


def counts_tiles(processor: Any) -> bool:
    """Whether the backbone's image features come by tile, not by image."""
    return hasattr(processor, "count_tiles")


def _process(processor: Any, images: list[list[Image]], texts: list[str]) -> dict[str, Tensor]:
    batch = processor(
        images=images,
        text=texts,
        padding=True,
        padding_side="left",
        add_special_tokens=_needs_start(processor, texts[0]),
        return_tensors="pt",
    )
    return dict(batch)


def _needs_start(processor: Any, text: str) -> bool:
    # Most chat templates write the first special token themselves.
    start = processor.tokenizer.bos_token
    return start is not None and not text.startswith(start)
