"""A small InternVL made from configuration alone, with a tokenizer trained on the texts at hand.

It serves the demo and the tests: the same classes, processors and code paths as a released checkpoint, at a size that
two CPU cores can train.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import InternVLVisionConfig, Qwen2Config
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.tokenization_utils_tokenizers import PreTrainedTokenizerFast

from sage_trl.models.backbones.internvl import (
    SageInternVLConfig,
    SageInternVLForConditionalGeneration,
    SageInternVLProcessor,
)
from sage_trl.models.prompt import FACT_TOKEN

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", "<video>")
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<IMG_CONTEXT>\n' }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

POSITION_STD = 1.0


@dataclass(frozen=True)
class TinySize:
    """Sizes of a tiny InternVL. A patch token covers `2 * patch_size` pixels, after InternVL's pixel shuffle."""

    image_size: int = 64
    patch_size: int = 8
    vision_width: int = 96
    vision_layers: int = 2
    vision_heads: int = 4
    text_width: int = 128
    text_layers: int = 3
    text_heads: int = 4
    vocab_size: int = 1024

    @property
    def image_seq_length(self) -> int:
        """Image tokens per tile."""
        return (self.image_size // self.patch_size // 2) ** 2


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer with InternVL's special tokens and `<fact>`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[*SPECIAL_TOKENS, FACT_TOKEN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=[FACT_TOKEN, "<|im_start|>"],
        model_specific_special_tokens={
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
    )


def build_tiny_internvl(
    texts: Iterable[str],
    size: TinySize | None = None,
    seed: int = 0,
    fusion: Mapping[str, Any] | None = None,
) -> tuple[SageInternVLForConditionalGeneration, SageInternVLProcessor]:
    """A randomly initialised Sage InternVL and its processor.

    Args:
        texts: what the tokenizer is trained on, for example all questions, answers and facts of a training split.
        size: the sizes; a 64 px model of about a million parameters by default.
        seed: seed of the weights; the global random state stays as it is.
        fusion: settings of `SageInternVLConfig` that differ from the tiny model's (`fusion_values`, ...).
    """
    size = size or TinySize()
    tokenizer = train_tokenizer(texts, size.vocab_size)
    processor = SageInternVLProcessor(
        GotOcr2ImageProcessorPil(
            size={"height": size.image_size, "width": size.image_size}, crop_to_patches=False, max_patches=4
        ),
        tokenizer,
        image_seq_length=size.image_seq_length,
        chat_template=CHAT_TEMPLATE,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SageInternVLForConditionalGeneration(_config(size, tokenizer, fusion or {}))
        # InternVL starts these at zero; a tower that is never trained could not tell places apart.
        torch.nn.init.normal_(model.model.vision_tower.embeddings.position_embeddings, std=POSITION_STD)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model, processor


def _config(size: TinySize, tokenizer: PreTrainedTokenizerFast, fusion: Mapping[str, Any]) -> SageInternVLConfig:
    vision = InternVLVisionConfig(
        hidden_size=size.vision_width,
        num_hidden_layers=size.vision_layers,
        num_attention_heads=size.vision_heads,
        intermediate_size=2 * size.vision_width,
        image_size=size.image_size,
        patch_size=size.patch_size,
        initializer_range=size.vision_width**-0.5,
    )
    text = Qwen2Config(
        hidden_size=size.text_width,
        num_hidden_layers=size.text_layers,
        num_attention_heads=size.text_heads,
        num_key_value_heads=size.text_heads,
        intermediate_size=3 * size.text_width,
        vocab_size=len(tokenizer),
        max_position_embeddings=4096,
        initializer_range=size.text_width**-0.5,
        tie_word_embeddings=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    return SageInternVLConfig(  # type: ignore[call-arg]
        vision_config=vision,
        text_config=text,
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=size.image_seq_length,
        initializer_range=size.text_width**-0.5,
        tie_word_embeddings=False,
        fact_token_id=tokenizer.convert_tokens_to_ids(FACT_TOKEN),
        **{"num_selected_patches": 4, "fusion_num_heads": 4, **fusion},
    )
