"""4-bit weights for QLoRA, through bitsandbytes."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from accelerate import PartialState
from transformers import BitsAndBytesConfig

from sage_trl.errors import DataError
from sage_trl.models.parts import Part

WHOLE_PARTS: tuple[Part, ...] = ("vision_encoder", "projector", "fusion")


def four_bit_settings(model_class: Any, compute_dtype: torch.dtype | str) -> dict[str, Any]:
    """What `from_pretrained` needs for NF4 with double quantisation of the language model's layers, and of no others.

    Args:
        model_class: a backbone's outer class, which names its parts.
        compute_dtype: what the weights are unpacked to; `auto` is bf16.

    Raises:
        DataError: bitsandbytes is not installed.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        problem = "load_in_4bit needs bitsandbytes, which is not installed"
        raise DataError(f'{problem}\n  remedy: pip install "sage-trl[quant]", or set load_in_4bit to false')
    whole = [prefix.removesuffix(".") for part in WHOLE_PARTS for prefix in model_class.part_prefixes[part]]
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if compute_dtype == "auto" else compute_dtype,
        llm_int8_skip_modules=[*whole, "lm_head"],
    )
    # Quantised weights cannot be moved later, so each process loads them where it computes.
    placement = {"device_map": {"": PartialState().device}} if torch.cuda.is_available() else {}
    return {"quantization_config": quantization, **placement}


def keep_weight_format(model: Any) -> None:
    """Keep bitsandbytes from packing 4-bit weights anew in place on CPUs with AVX512-BF16 when a model is read.

    It rounds their scales to bf16, so that a reference would differ from the policy, and fails on layers narrower than
    a block.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
