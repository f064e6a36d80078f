"""Models as transformers has them, for comparison: no fusion, no class of ours but for the processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForImageTextToText
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

from sage_trl.errors import DataError
from sage_trl.models.adapters import Source
from sage_trl.models.backbones import BY_BASE_MODEL_TYPE, BY_MODEL_TYPE
from sage_trl.models.checkpoints import hub_commit, read_config, refuse_partial_load
from sage_trl.models.processors import load_named_processor, load_processor


def load_plain(name_or_path: str | Path, *, dtype: torch.dtype | str = torch.float32) -> tuple[Any, Any]:
    """Load any image-text-to-text model of transformers, without running code of the checkpoint.

    The processors of our backbones' bases are ours, which need no torchvision.

    Args:
        name_or_path: directory or hub id.
        dtype: weight type.

    Returns:
        The model in evaluation mode, and its processor.

    Raises:
        DataError: no such model, another kind of model, a checkpoint that lacks tensors, or no usable processor.
    """
    source = Source(str(name_or_path))
    config = read_config(source)
    _refuse_other_kinds(source, config)
    backbone = BY_BASE_MODEL_TYPE.get(config.model_type)
    processor = load_processor(source, backbone.processor) if backbone else load_named_processor(source, config)
    try:
        model, report = AutoModelForImageTextToText.from_pretrained(
            source.name,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are reported, and refused below with their names
        )
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        problem = f"the model cannot be loaded: {error}"
        raise DataError.at(source.name, None, problem, "fetch or save the model anew") from None
    # Tensors left over do no harm here: some checkpoints carry heads for training.
    refuse_partial_load(source.name, {**report, "unexpected_keys": []}, may_lack_fusion=False)
    model.config._commit_hash = hub_commit(source.name, source.revision)
    tokenizer = processor.tokenizer
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if model.generation_config.pad_token_id is None:
        model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model.eval(), processor


def shares_prefixes(model: Any) -> bool:
    """Whether what prompts share can be read once: tested for the bases of our backbones."""
    return model.config.model_type in BY_BASE_MODEL_TYPE


def _refuse_other_kinds(source: Source, config: Any) -> None:
    if config.model_type in BY_MODEL_TYPE:
        problem = f"model type {config.model_type!r} is of this toolkit"
        raise DataError.at(source.name, None, problem, f"leave hf: out: --model {source.name}")
    if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING or config.is_encoder_decoder:
        problem = f"model type {config.model_type!r} does not answer questions on images in a chat"
        raise DataError.at(source.name, None, problem, "use an image-text-to-text model with a decoder alone")
