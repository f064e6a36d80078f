"""Models from their configuration alone, on the meta device: every tensor has its shape and type, and no memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from transformers.quantizers import AutoHfQuantizer

from sage_trl.models.quantization import four_bit_settings

# What bitsandbytes' NF4 with double quantisation keeps beside two weights in a byte: a scale per block, in a byte; a
# scale of fp32 per block of those scales; their mean; and the values that the codes of both stand for.
BLOCK = 64
NESTED_BLOCK = 256
CODES = 16
NESTED_CODES = 256


def build_on_meta(model_class: Any, config: Any, settings: Mapping[str, Any], *, load_in_4bit: bool) -> Any:
    """The model that `from_pretrained` would load, without its weights.

    Args:
        model_class: a backbone's outer class.
        config: its configuration.
        settings: `dtype` and what else `from_pretrained` would get.
        load_in_4bit: give the layers that would be quantised the tensors of NF4.

    Raises:
        DataError: bitsandbytes is not installed, and the layers would be quantised.
    """
    with torch.device("meta"):
        model = model_class._from_config(config, **settings)
        if load_in_4bit:
            quantization = four_bit_settings(model_class, settings["dtype"])["quantization_config"]
            quantizer = AutoHfQuantizer.from_config(quantization)
            quantizer.preprocess_model(model, device_map=None)
            quantizer.postprocess_model(model)
            model.hf_quantizer = quantizer
            for module in model.modules():
                if hasattr(module, "quant_state"):
                    _quantize_shapes(module, settings["dtype"])
    return model.eval()


def _quantize_shapes(layer: Any, dtype: torch.dtype) -> None:
    """Give a `bitsandbytes.nn.Linear4bit` the tensors it has once it is quantised, and a forward of shapes.

    Args:
        layer: the layer, whose weight still has a place for every element.
        dtype: type of its bias.
    """
    unpacked = layer.weight
    blocks = math.ceil(unpacked.numel() / BLOCK)
    layer.weight = nn.Parameter(torch.empty(math.ceil(unpacked.numel() / 2), 1, dtype=torch.uint8), requires_grad=False)
    # PEFT asks for these.
    layer.weight.compress_statistics, layer.weight.quant_type = unpacked.compress_statistics, unpacked.quant_type
    layer.weight.quant_state = SimpleNamespace(shape=unpacked.shape)
    if layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias.to(dtype), requires_grad=False)
    layer.register_buffer("scales", torch.empty(blocks, dtype=torch.uint8))
    layer.register_buffer("nested_scales", torch.empty(math.ceil(blocks / NESTED_BLOCK), dtype=torch.float32))
    layer.register_buffer("offset", torch.empty((), dtype=torch.float32))
    layer.register_buffer("codes", torch.empty(CODES, dtype=torch.float32))
    layer.register_buffer("nested_codes", torch.empty(NESTED_CODES, dtype=torch.float32))
    layer.forward = lambda states: _QuantizedShapes.apply(states, layer.out_features)  # type: ignore[no-untyped-call]


class _QuantizedShapes(torch.autograd.Function):
    """The product with a frozen 4-bit weight: like bitsandbytes' own it keeps no activation for its backward.

    The weight is unpacked for the time of the product.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, out_features: int) -> Tensor:
        ctx.in_features = states.shape[-1]
        return states @ states.new_empty(ctx.in_features, out_features)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        gradient = gradients[0]
        return gradient @ gradient.new_empty(gradient.shape[-1], ctx.in_features), None
