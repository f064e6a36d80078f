"""One group of questions on a pair of pictures, and a model of a given shape, for the benchmarks."""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from transformers import InternVLVisionConfig, Qwen2Config

from sage_trl.models.adapters import add_lora
from sage_trl.models.backbones.internvl import SageInternVLConfig, SageInternVLForConditionalGeneration
from sage_trl.models.parts import set_trainable_parts
from sage_trl.models.prompt import FACT_TOKEN, question_messages
from sage_trl.models.tiny import TinySize, build_tiny_internvl

SENTENCE = "the part has a mark on its upper left edge that no other part of this kind shows and it is small"
WORDS = SENTENCE.split(" ")
FACTS = [f"Parts of this kind can have a {kind}." for kind in ("scratch", "stain", "dent", "crack")]


@dataclass(frozen=True)
class Shape:
    """Sizes of an InternVL. A tile has `tile_tokens` image tokens.

    Attributes:
        vocab_size: rows of the language model's head.
    """

    width: int = 512
    layers: int = 8
    heads: int = 8
    key_value_heads: int = 8
    intermediate: int = 2048
    vocab_size: int = 8192
    vision_width: int = 256
    vision_layers: int = 4
    vision_heads: int = 4
    tile_tokens: int = 64


SHAPES = {
    "tiny": Shape(32, 1, 2, 2, 64, 512, 16, 1, 2, 16),
    "cpu": Shape(),
    # As InternVL2-8B: InternLM2-7B with InternViT-300M.
    "8b": Shape(4096, 32, 32, 8, 14336, 92553, 1024, 24, 16, 256),
}


def build_model(shape: Shape, *, bf16: bool) -> tuple[Any, Any, int]:
    """A randomly initialised model of that shape, in bf16 or fp32, its processor, and the side of a tile in pixels."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tile = 2 * 8 * int(shape.tile_tokens**0.5)
    texts = [" ".join(WORDS), *FACTS, *(question(index) for index in range(8))]
    _, processor = build_tiny_internvl(texts, TinySize(image_size=tile, patch_size=8))
    tokenizer = processor.tokenizer
    vision = InternVLVisionConfig(
        hidden_size=shape.vision_width,
        num_hidden_layers=shape.vision_layers,
        num_attention_heads=shape.vision_heads,
        intermediate_size=4 * shape.vision_width,
        image_size=[tile, tile],
        patch_size=[8, 8],
    )
    text = Qwen2Config(
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        intermediate_size=shape.intermediate,
        vocab_size=shape.vocab_size,
        max_position_embeddings=32768,
        tie_word_embeddings=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = SageInternVLConfig(  # type: ignore[call-arg]
        vision_config=vision,
        text_config=text,
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=shape.tile_tokens,
        tie_word_embeddings=False,
        fact_token_id=tokenizer.convert_tokens_to_ids(FACT_TOKEN),
        num_selected_patches=16,
        fusion_num_heads=8,
    )
    torch.manual_seed(0)
    with torch.device(device):
        model = SageInternVLForConditionalGeneration(config).to(torch.bfloat16 if bf16 else torch.float32)
    processor.image_processor.crop_to_patches = True
    processor.image_processor.max_patches = 64
    return model, processor, tile


def copy_to_train(policy: Any, lora_r: int | None) -> Any:
    """A copy of the model; with LoRA of that rank on it, the copy shares the frozen weights."""
    if lora_r is None:
        return copy.deepcopy(policy)
    shared = {id(parameter): parameter for parameter in policy.parameters()}
    parts = ["projector", "language_model"]
    model = add_lora(copy.deepcopy(policy, shared), parts, r=lora_r)
    set_trainable_parts(model, parts)
    return model


def question(index: int) -> str:
    """The text of one question; they share no beginning."""
    return f"{('Is', 'Has', 'Does', 'Can', 'Why is', 'Where is', 'How is', 'When is')[index]} this part {WORDS[index]}?"


def answer(index: int, tokens: int) -> str:
    """An answer of about that many tokens; answers differ from the first word on."""
    return " ".join(WORDS[(index + step) % len(WORDS)] for step in range(tokens - 2))


def picture(tiles: int, tile: int, seed: int) -> Image.Image:
    """A picture that is cut into `tiles` tiles, the thumbnail among them."""
    across = max(tiles - 1, 1)
    pixels = np.random.default_rng(seed).integers(0, 256, (tile, tile * across, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def preference_rows(groups: int, questions: int, tiles: int, tile: int, answer_tokens: int) -> Dataset:
    """Two pairs for each question of each group, (a1, a4) and (a2, a3): four answers, each in one pair."""
    rows = []
    for group, index in itertools.product(range(groups), range(questions)):
        shown = {"images": [picture(tiles, tile, 2 * group)], "reference_image": picture(1, tile, 2 * group + 1)}
        answers = [[{"role": "assistant", "content": answer(4 * index + rank, answer_tokens)}] for rank in range(4)]
        for winner, loser, kind in ((0, 3, "max"), (1, 2, "min")):
            rows.append(
                {
                    **shown,
                    "facts": FACTS,
                    "prompt": question_messages(question(index)),
                    "group_id": f"g{group}",
                    "question_id": f"q{index}",
                    "chosen": answers[winner],
                    "rejected": answers[loser],
                    "delta_entropy": 0.1,
                    "pair_kind": kind,
                }
            )
    return Dataset.from_list(rows)


def completion_rows(groups: int, questions: int, tiles: int, tile: int, answer_tokens: int) -> Dataset:
    """The best answer of each question of each group."""
    pairs = preference_rows(groups, questions, tiles, tile, answer_tokens)
    best = [row for row in pairs if row["pair_kind"] == "max"]
    columns = ("chosen", "rejected", "delta_entropy", "pair_kind")
    return Dataset.from_list(
        [{**{key: row[key] for key in row if key not in columns}, "completion": row["chosen"]} for row in best]
    )
