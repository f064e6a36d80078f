"""Small checkpoints of models that this toolkit only measures, as the stock classes save them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    DeepseekVLConfig,
    DeepseekVLForConditionalGeneration,
    DeepseekVLProcessor,
    LlamaConfig,
    Molmo2Config,
    Molmo2ForConditionalGeneration,
    SiglipVisionConfig,
)
from transformers.models.deepseek_vl.image_processing_pil_deepseek_vl import DeepseekVLImageProcessorPil

from sage_trl.models.molmo2_images import Molmo2ImageProcessorWithoutTorchvision
from sage_trl.storage import read_json, write_json
from tests.models.stock_checkpoints import CHATML, PLAIN, TEXT, WIDTH, train_tokenizer

MOLMO2_TOKENS = [
    *("<im_patch>", "<im_col>", "<im_start>", "<low_res_im_start>", "<frame_start>"),
    *("<im_end>", "<frame_end>", "<im_low>"),
]


def save_deepseek_vl(directory: Path) -> Any:
    """A small DeepSeek-VL with its processor; returns the model."""
    tokenizer = train_tokenizer(
        "<image_placeholder>", bos="<s>", model_specific_special_tokens={"image_token": "<image_placeholder>"}
    )
    config = DeepseekVLConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=32,
            patch_size=8,
        ),
        text_config=LlamaConfig(**TEXT, vocab_size=len(tokenizer)),
        image_token_id=tokenizer.convert_tokens_to_ids("<image_placeholder>"),
        tie_word_embeddings=False,
    )
    images = DeepseekVLImageProcessorPil(size={"height": 32, "width": 32}, min_size=8)
    template = PLAIN.replace("<image>", "<image_placeholder>")
    processor = DeepseekVLProcessor(images, tokenizer, chat_template=template, num_image_tokens=16)
    return _save(DeepseekVLForConditionalGeneration, config, tokenizer, [processor], directory)


def save_molmo2(directory: Path) -> Any:
    """A small Molmo2 with the files of its processor; returns the model."""
    special = {"image_token": "<|image|>", "video_token": "<|video|>"}
    tokenizer = train_tokenizer(*special.values(), *MOLMO2_TOKENS, model_specific_special_tokens=special)
    vision = {"hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8}
    layers = {"intermediate_size": 32}
    config = Molmo2Config(
        vision_config={
            **vision,
            "intermediate_size": 32,
            "num_hidden_layers": 3,
            "image_size": [32, 32],
            "patch_size": 8,
        },
        adapter_config={**vision, **layers, "vision_feature_layer": [2, 1], "text_hidden_size": WIDTH},
        text_config={**TEXT, "head_dim": 8, "vocab_size": len(tokenizer), "additional_vocab_size": 8},
        image_patch_id=tokenizer.convert_tokens_to_ids("<im_patch>"),
        image_start_token_id=tokenizer.convert_tokens_to_ids("<im_start>"),
        image_end_token_id=tokenizer.convert_tokens_to_ids("<im_end>"),
        low_res_image_start_token_id=tokenizer.convert_tokens_to_ids("<low_res_im_start>"),
        frame_start_token_id=tokenizer.convert_tokens_to_ids("<frame_start>"),
        frame_end_token_id=tokenizer.convert_tokens_to_ids("<frame_end>"),
    )
    images = Molmo2ImageProcessorWithoutTorchvision(
        size={"height": 32, "width": 32}, patch_size=8, max_crops=4, overlap_margins=[1, 1]
    )
    tokenizer.chat_template = CHATML.replace("IMAGE", "<|image|>")
    model = _save(Molmo2ForConditionalGeneration, config, tokenizer, [tokenizer, images], directory)
    # As released: the name of transformers' class, and which processor puts the two together.
    path = directory / "preprocessor_config.json"
    names = {"image_processor_type": "Molmo2ImageProcessor", "processor_class": "Molmo2Processor"}
    write_json(path, {**read_json(path), **names})
    return model


def _save(model_class: Any, config: Any, tokenizer: Any, parts: list[Any], directory: Path) -> Any:
    torch.manual_seed(1)
    model = model_class(config).eval()
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    for part in (model, *parts):
        part.save_pretrained(directory)
    return model
