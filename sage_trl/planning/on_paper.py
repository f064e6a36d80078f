"""A released model and a dataset on paper: configuration and one group of questions, with nothing downloaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from transformers import InternVLConfig, InternVLVisionConfig, LlamaConfig, Qwen2Config
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

from sage_trl.data.dataset import SCORES_FILE, DatasetInfo, write_ad_pl
from sage_trl.errors import RecipeError
from sage_trl.models.backbones.internvl import SageInternVLConfig, SageInternVLProcessor
from sage_trl.models.prompt import FACT_TOKEN
from sage_trl.models.tiny import CHAT_TEMPLATE, train_tokenizer
from sage_trl.recipe import Recipe
from sage_trl.records import FactSet, Inspection, JudgeScore, Question
from sage_trl.storage import file_sha256, write_jsonl

TILE = 448
TILE_TOKENS = 256
# Tiles beside the thumbnail.
LARGEST_GRID = 64
QUESTIONS = 5
ANSWERS = 4
ANSWER_WORDS = 60
FACTS = 10
STAND_IN_VOCABULARY = 1024


class Vision(NamedTuple):
    """An InternViT: width, intermediate width, layers, heads, and whether it is of the 6B's kind."""

    width: int
    intermediate: int
    layers: int
    heads: int
    is_6b: bool


class Text(NamedTuple):
    """A language model: width, intermediate width, layers, heads, key/value heads, rows of its head, and its class."""

    width: int
    intermediate: int
    layers: int
    heads: int
    key_value_heads: int
    vocabulary: int
    config: Any


INTERNVIT_300M = Vision(1024, 4096, 24, 16, is_6b=False)
INTERNVIT_6B = Vision(3200, 12800, 45, 25, is_6b=True)
# The vocabularies are those of the language models with the nine image tokens of InternVL2.
SHAPES = {
    "internvl2-1b": (INTERNVIT_300M, Text(896, 4864, 24, 14, 2, 151655, Qwen2Config)),
    "internvl2-8b": (INTERNVIT_300M, Text(4096, 14336, 32, 32, 8, 92553, LlamaConfig)),
    "internvl2-26b": (INTERNVIT_6B, Text(6144, 16384, 48, 48, 8, 92553, LlamaConfig)),
    "internvl2-40b": (INTERNVIT_6B, Text(7168, 20480, 60, 56, 8, 64009, LlamaConfig)),
}


def put_on_paper(recipe: Recipe, name: str, tiles: int, directory: Path) -> Recipe:
    """The recipe with a released model's configuration and one assumed group in place of its model and dataset.

    The group has five questions with four answers of 60 tokens each, ten facts, and a test and a reference image of
    `tiles` tiles each. Its words stand in for real ones, each a token.

    Args:
        recipe: the recipe.
        name: one of `SHAPES`.
        tiles: tiles of an image, the thumbnail among them; not two, because an image of one has no thumbnail.
        directory: where configuration and group are written; no weights are.

    Raises:
        RecipeError: the fusion's settings do not fit the model.
    """
    words = _words()
    texts = [" ".join(words), *_facts(words)]
    needs_fusion = recipe.run.stage in ("dpo", "edpo")
    try:
        _write_model(directory / "model", name, texts, recipe.run.fusion, has_fusion=needs_fusion)
    except ValueError as error:
        raise RecipeError(f"{name}: {error}\n  remedy: mend the recipe's keys") from None
    _write_group(directory / "dataset", words, tiles)
    own: dict[str, Any] = {
        "model": str(directory / "model"),
        "revision": None,
        "dataset": str(directory / "dataset"),
        "datasets": None,
    }
    assumed: dict[str, Any] = {"split": "train", "facts_file": None, "scores": None}
    return dataclasses.replace(recipe, run=dataclasses.replace(recipe.run, **own, **assumed))


def _write_model(directory: Path, name: str, texts: Iterable[str], fusion: dict[str, Any], *, has_fusion: bool) -> None:
    vision, text = SHAPES[name]
    tokenizer = train_tokenizer(texts, STAND_IN_VOCABULARY)
    settings: dict[str, Any] = {
        "vision_config": InternVLVisionConfig(
            hidden_size=vision.width,
            intermediate_size=vision.intermediate,
            num_hidden_layers=vision.layers,
            num_attention_heads=vision.heads,
            image_size=[TILE, TILE],
            patch_size=[14, 14],
            attention_bias=not vision.is_6b,
            use_qk_norm=vision.is_6b,
            norm_type="rms_norm" if vision.is_6b else "layer_norm",
        ),
        "text_config": text.config(
            hidden_size=text.width,
            intermediate_size=text.intermediate,
            num_hidden_layers=text.layers,
            num_attention_heads=text.heads,
            num_key_value_heads=text.key_value_heads,
            vocab_size=text.vocabulary,
            max_position_embeddings=32768,
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        "image_token_id": tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        "image_seq_length": TILE_TOKENS,
        "tie_word_embeddings": False,
    }
    if has_fusion:
        fact = {"fact_token_id": tokenizer.convert_tokens_to_ids(FACT_TOKEN)}
        config = SageInternVLConfig(**settings, **fact, **fusion)
    else:
        config = InternVLConfig(**settings)
    config.save_pretrained(directory)
    images = GotOcr2ImageProcessorPil(
        size={"height": TILE, "width": TILE}, crop_to_patches=True, min_patches=1, max_patches=LARGEST_GRID
    )
    SageInternVLProcessor(images, tokenizer, image_seq_length=TILE_TOKENS, chat_template=CHAT_TEMPLATE).save_pretrained(
        directory
    )


def _words() -> list[str]:
    return [f"{first}{second}{third}" for first in "bdfg" for second in "aeiou" for third in "klmn"]


def _facts(words: list[str]) -> list[str]:
    return [f"Parts of this kind can have a {words[index]}." for index in range(FACTS)]


def _write_group(directory: Path, words: list[str], tiles: int) -> None:
    directory.mkdir()
    for index, name in enumerate(("test.png", "reference.png")):
        Image.new("RGB", (TILE * max(1, tiles - 1), TILE), (index, 0, 0)).save(directory / name)
    questions = [
        Question(
            id=f"q{number}",
            question=" ".join(words[number : number + 20]) + "?",
            verdict=True,
            answers=tuple(_answer(words, ANSWERS * number + rank) for rank in range(ANSWERS)),
        )
        for number in range(QUESTIONS)
    ]
    group = Inspection(
        id="g",
        dataset="on_paper",
        category="part",
        split="train",
        level="defect_identification",
        test_image="test.png",
        reference_image="reference.png",
        defects=(),
        questions=tuple(questions),
    )
    licence = "CC0-1.0"
    info = DatasetInfo(
        name="on_paper", licence=licence, sources={"on_paper": licence}, seed=0, splits={}, sha256="0" * 64
    )
    write_ad_pl(directory, [group], info)
    digest = file_sha256(directory / "test.png")
    facts = FactSet(test_image_sha256=digest, facts=tuple(_facts(words)), model="on_paper", prompt_version="1")
    write_jsonl(directory / "facts.jsonl", [facts.model_dump()])
    scores = [
        JudgeScore(
            group_id="g",
            question_id=question.id,
            answer_index=index,
            type=5 - index,
            location=5 - index,
            logic=5 - index,
            mle=5 - index,
            judge="on_paper",
        )
        for question in questions
        for index in range(ANSWERS)
    ]
    write_jsonl(directory / SCORES_FILE, (score.model_dump() for score in scores))


def _answer(words: list[str], start: int) -> str:
    return " ".join(words[(start + step) % len(words)] for step in range(ANSWER_WORDS))
